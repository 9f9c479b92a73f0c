"""The socket under a paho-mqtt client: reads far ahead, keeps PUBLISH packets from paho, sends acknowledgements joined.

paho's own protocol machine (CONNECT, SUBSCRIBE, PING, DISCONNECT, properties, refusals) stays as it is and sees only
whole packets; see docs/adr/0014. Not for several threads.

Invariant: what paho sends and what is sent beside it never mix within a packet.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from dataclasses import dataclass, field
from typing import Any, Final

from paho.mqtt.client import Client

from edge.mqtt_packets import PacketStream

READ_BYTES: Final = 1 << 17
_NOT_NOW: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


@dataclass(slots=True)
class ReadAhead:
    """Stands for a connected socket, plain or TLS."""

    raw: socket.socket
    stream: PacketStream
    unsent: bytearray = field(default_factory=bytearray)
    ended: Exception | bool = False
    """True, or the error, once nothing more will come."""

    # ---- for the session

    def fill(self) -> None:
        """Reads what is there; of TLS, whatever is decrypted already, which no selector sees. Raises StreamError."""
        size = READ_BYTES
        while size and not self.ended:
            try:
                data = self.raw.recv(size)
            except _NOT_NOW:
                return
            except OSError as error:
                self.ended = error
                return
            self.ended = not data
            self.stream.feed(data)
            size = self.raw.pending() if isinstance(self.raw, ssl.SSLSocket) else 0

    @property
    def why(self) -> str:
        """What ended it, in words for people; empty where the other side just closed it."""
        return "" if isinstance(self.ended, bool) else getattr(self.ended, "strerror", None) or str(self.ended)

    def push(self, packets: bytes) -> None:
        """Sends whole packets beside paho's, which must have none half sent; what cannot go now goes with `flush`."""
        self.unsent += packets
        self.flush()

    def flush(self) -> None:
        """Sends what is left of `push`."""
        try:
            while self.unsent:
                del self.unsent[: self.raw.send(self.unsent)]
        except _NOT_NOW:
            return
        except OSError as error:
            self.ended = self.ended or error

    # ---- for paho

    def recv(self, size: int) -> bytes:
        """The next bytes of packets that are no PUBLISH."""
        control = self.stream.control
        if control:
            data = bytes(control[:size])
            del control[:size]
            return data
        if isinstance(self.ended, Exception):
            raise self.ended
        if self.ended:
            return b""
        raise BlockingIOError

    def send(self, data: bytes | bytearray) -> int:
        """As a socket's."""
        self.flush()
        if self.unsent:
            raise BlockingIOError
        try:
            return self.raw.send(data)
        except _NOT_NOW:
            raise
        except OSError as error:
            self.ended = error
            raise

    def close(self) -> None:
        """As a socket's."""
        with contextlib.suppress(OSError):
            self.raw.close()

    def fileno(self) -> int:
        """As a socket's."""
        return self.raw.fileno()

    def setblocking(self, flag: bool) -> None:
        """As a socket's."""
        self.raw.setblocking(flag)


class ReadingAhead(Client):
    """A paho client whose socket reads ahead. `ahead` is the socket of the present connection."""

    ahead: ReadAhead | None = None

    def _create_socket(self) -> Any:
        """What paho calls to make a connected socket: the one inner seam of it that is leaned on."""
        self.ahead = ReadAhead(super()._create_socket(), PacketStream(int(self.protocol) == 5))  # type: ignore[arg-type]
        return self.ahead
