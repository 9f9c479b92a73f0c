"""How a Modbus endpoint is reached: TCP, TLS or a serial line, and where else when that fails.

Invariant: `open` tries one place, within the time it is given, and leaves nothing behind when it fails.
"""

from __future__ import annotations

import asyncio
import ssl
import termios
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pymodbus.transport.serialtransport import create_serial_connection

from telemetry.address import DEFAULT_PORTS, host_and_port
from telemetry.errors import ConfigError, Fault
from telemetry.plant import Address, Endpoint, LineSettings

BITS_A_CHARACTER = 11
"""Start, 8 data, parity or a second stop, stop (MODBUS over Serial Line 1.02, 2.5.1)."""
FAST_BAUD = 19_200
FAST_SILENCE_S = 0.001_75
"""Above FAST_BAUD the silent interval between frames is fixed (2.5.1.1)."""
CLOSED = "closed by the device"


class Reach(Protocol):
    """One or more places where the endpoint may be found."""

    @property
    def places(self) -> int:
        """How many."""
        ...

    def name(self, place: int) -> str:
        """What people call it."""
        ...

    def on_wire_s(self, count: int) -> float:
        """How long so many bytes take on the line; 0 on a network."""
        ...

    @property
    def why_closed(self) -> str:
        """What people look at where a connection is closed before anything is answered on it."""
        ...

    async def open(self, place: int, protocol: Callable[[], asyncio.Protocol]) -> asyncio.Transport:
        """A connection. Raises OSError."""
        ...


@dataclass(slots=True)
class Credentials:
    """What TLS goes by, as the files are: certificates that were renewed count from the next connection on."""

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    _read: tuple[tuple[tuple[int, int], ...], ssl.SSLContext] | None = None
    """When the files were written, and what they said: the system's authorities cost 20 ms of the event loop."""

    def context(self) -> ssl.SSLContext:
        """Read again where a file has changed. Raises OSError that names the files where they cannot be read."""
        try:
            found = [Path(file).stat() for file in self._files()]
            written = tuple((file.st_mtime_ns, file.st_size) for file in found)
            if self._read is None or self._read[0] != written:
                self._read = written, self._context()
            return self._read[1]
        except OSError as error:  # ssl.SSLError is one
            raise OSError(f"{', '.join(self._files()) or 'the system’s authorities'}: {error}") from error

    def _files(self) -> list[str]:
        return [file for file in (self.ca_file, self.cert_file, self.key_file) if file is not None]

    def _context(self) -> ssl.SSLContext:
        """MODBUS/TCP Security 3.6: TLS 1.2 or later; both sides show a certificate."""
        context = ssl.create_default_context(cafile=self.ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.cert_file is not None:
            context.load_cert_chain(self.cert_file, self.key_file, password=lambda: "")  # never ask at the terminal
        return context


@dataclass(frozen=True, slots=True)
class NetworkReach:
    """TCP, or TLS where there are credentials."""

    hosts: tuple[tuple[str, int], ...]
    tls: Credentials | None = None
    server_name: str | None = None

    @property
    def places(self) -> int:
        """See Reach."""
        return len(self.hosts)

    def name(self, place: int) -> str:
        """See Reach."""
        host, port = self.hosts[place]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def on_wire_s(self, count: int) -> float:
        """See Reach."""
        return 0.0

    @property
    def why_closed(self) -> str:
        """See Reach."""
        asks = self.tls is not None and self.tls.cert_file is None
        return "closed by the device, which may ask for a certificate (cert_file, key_file)" if asks else CLOSED

    async def open(self, place: int, protocol: Callable[[], asyncio.Protocol]) -> asyncio.Transport:
        """See Reach."""
        host, port = self.hosts[place]
        name = (self.server_name or host) if self.tls else None
        context = self.tls.context() if self.tls else None
        transport, _ = await asyncio.get_running_loop().create_connection(
            protocol, host, port, ssl=context, server_hostname=name
        )
        return transport


@dataclass(frozen=True, slots=True)
class SerialReach:
    """A serial line of this machine."""

    device: str
    line: LineSettings

    @property
    def places(self) -> int:
        """See Reach."""
        return 1

    def name(self, place: int) -> str:
        """See Reach."""
        return f"{self.device} ({self.line})"

    @property
    def why_closed(self) -> str:
        """See Reach."""
        return CLOSED

    def on_wire_s(self, count: int) -> float:
        """See Reach."""
        return count * BITS_A_CHARACTER / self.line.baud

    @property
    def silence_s(self) -> float:
        """Rest of the line between two frames: 3.5 characters; the RS-485 drivers turn round in it."""
        return FAST_SILENCE_S if self.line.baud > FAST_BAUD else self.on_wire_s(7) / 2

    async def open(self, place: int, protocol: Callable[[], asyncio.Protocol]) -> asyncio.Transport:
        """See Reach."""
        line = self.line
        try:
            transport, _ = await create_serial_connection(
                asyncio.get_running_loop(),
                protocol,
                self.device,
                baudrate=line.baud,
                bytesize=line.data_bits,
                parity=line.parity,
                stopbits=line.stop_bits,
            )
        except termios.error as error:  # is no OSError
            raise OSError(*error.args) from error
        await asyncio.sleep(0)  # it listens from the next turn of the loop on, and must not be closed before
        return transport


def make_reach(address: Address, endpoint: Endpoint, *, file: str) -> Reach:
    """How an address's endpoint is reached. Raises ConfigError for certificates that cannot be read."""
    if address.is_serial:
        return SerialReach(address.device, LineSettings.of(address, endpoint))
    hosts = [(address.host, address.port)]
    if endpoint.fallback is not None:
        hosts.append(host_and_port(endpoint.fallback, port=address.port or DEFAULT_PORTS[address.scheme]))
    tls = _tls(address, endpoint, file) if address.scheme == "modbus+tls" else None
    return NetworkReach(tuple(hosts), tls, endpoint.server_name)


def _tls(address: Address, endpoint: Endpoint, file: str) -> Credentials:
    tls = Credentials(endpoint.ca_file, endpoint.cert_file, endpoint.key_file)
    try:
        tls.context()
    except OSError as error:
        expected = "ca_file, cert_file and key_file that can be read and belong together"
        raise ConfigError([Fault(file, 0, f"endpoints.{address.endpoint}", expected, str(error))]) from error
    return tls
