"""How a broker is reached: address, secrets, certificates; and a paho-mqtt client made for it."""

from __future__ import annotations

import hashlib
import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from paho.mqtt.client import Client
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edge.mqtt_packets import LIMIT
from telemetry.errors import ConfigError, Fault
from telemetry.plant import Address, Endpoint

CONNECT_TIMEOUT_S: Final = 3.0
SESSION_S: Final = 7 * 86_400
"""MQTT 5: the broker keeps the session, and what comes for it, so long after the agent was last there."""
RECEIVE_MAXIMUM: Final = 4_000
"""MQTT 5: messages that the broker hands out before the first is acknowledged. What two commits at full speed cover."""


@dataclass(frozen=True, slots=True)
class Broker:
    """How a broker is reached."""

    address: Address
    client_id: str
    username: str | None = None
    password: str | None = None
    """References (env:NAME, file:PATH), as the plant file has them: read for each connection, never kept."""
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    version: str | None = None
    """Of MQTT, 3.1.1 or 5. None: 5, and 3.1.1 where the broker does not know it."""
    keeps: bool = True
    """Whether it is to keep the session, and what comes for it, while nobody is connected."""


def make_broker(address: Address, endpoint: Endpoint, *, edge: str, file: str) -> Broker:
    """How to reach a broker. Raises ConfigError for a secret that is not there, and for a certificate file that is none."""
    digest = hashlib.blake2b(address.endpoint.encode(), digest_size=6).hexdigest()
    broker = Broker(
        address,
        f"vigil-{edge}-{digest}",
        endpoint.username,
        endpoint.password,
        endpoint.ca_file,
        endpoint.cert_file,
        endpoint.key_file,
        endpoint.mqtt_version,
    )
    _check_files(broker, file)
    return broker


def secure(client: Client, broker: Broker) -> None:
    """Gives a client its credentials, TLS and time-out, by what the files hold now: a password or certificate that was
    renewed counts from the next connection on. Raises OSError or ValueError where one cannot be read.
    """
    client.connect_timeout = CONNECT_TIMEOUT_S
    if broker.username is not None:
        client.username_pw_set(_secret(broker.username), _secret(broker.password))
    if broker.address.scheme == "mqtts":
        try:
            client.tls_set_context(_context(broker.ca_file, broker.cert_file, broker.key_file))
        except OSError as error:  # ssl.SSLError is one; neither names the file
            files = ", ".join(filter(None, (broker.ca_file, broker.cert_file, broker.key_file)))
            raise OSError(f"{files}: {error}") from error


def connect_properties(*, keeps: bool) -> Properties:
    """MQTT 5: whether the session stays, and how much the broker may hand out."""
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = SESSION_S if keeps else 0
    properties.ReceiveMaximum = RECEIVE_MAXIMUM
    properties.MaximumPacketSize = LIMIT
    return properties


def why_not_connected(error: BaseException | None) -> str:
    """Why a connection could not be made, in words for people."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"broker's certificate is not accepted: {error.verify_message}"
    reason = "" if error is None else f": {getattr(error, 'strerror', None) or error}"
    return f"broker cannot be reached{reason}"


def _context(ca_file: str | None, cert_file: str | None, key_file: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca_file)
    context.sslsocket_class = _ClosedOnFailure
    if cert_file is not None:
        context.load_cert_chain(cert_file, key_file, password=lambda: "")  # Never ask at the terminal.
    return context


class _ClosedOnFailure(ssl.SSLSocket):
    """paho forgets a socket whose handshake failed, and leaves it open."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except OSError:
            self.close()
            raise


def _check_files(broker: Broker, file: str) -> None:
    """Raises ConfigError that names the key and the file."""
    where = f"endpoints.{broker.address.endpoint}"
    for key, reference in (("username", broker.username), ("password", broker.password)):
        try:
            _secret(reference)
        except (OSError, ValueError) as error:
            expected = f"{reference} to be there"
            raise ConfigError([Fault(file, 0, f"{where}.{key}", expected, type(error).__name__)]) from error
    try:
        if broker.ca_file is not None:
            _context(broker.ca_file, None, None)
    except OSError as error:  # ssl.SSLError is one
        expected = f"{broker.ca_file}, a readable file of certificates"
        raise ConfigError([Fault(file, 0, f"{where}.ca_file", expected, str(error))]) from error
    try:
        if broker.cert_file is not None:
            _context(None, broker.cert_file, broker.key_file)
    except OSError as error:
        expected = f"{broker.cert_file}, a readable certificate with its key"
        raise ConfigError([Fault(file, 0, f"{where}.cert_file", expected, str(error))]) from error


def _secret(reference: str | None) -> str | None:
    """What a reference stands for. Raises OSError or ValueError, which show no secret."""
    if reference is None:
        return None
    kind, _, name = reference.partition(":")
    if kind == "env":
        if name not in os.environ:
            raise OSError(f"environment variable {name} is not set")
        return os.environ[name]
    try:
        return Path(name).read_text(encoding="utf-8").strip()
    except UnicodeDecodeError:
        raise ValueError(f"{name} is not UTF-8") from None
