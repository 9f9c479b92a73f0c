"""How Kafka is reached: the URL, TLS, the login, a deadline on every answer, and Kafka's errors in the log's own words.

kafka://host:port[,host:port]           plain text
kafkas://host:port[,host:port]          TLS, with the system's authorities or `log_ca_file`
…?mechanism=SCRAM-SHA-256               how to log in where `log_user` is set; SCRAM-SHA-512 unless said otherwise.
                                        PLAIN is accepted on TLS only
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import KafkaConnectionError, KafkaError, MessageSizeTooLargeError, RecordTooLargeError

from telemetry.errors import ConfigError, Fault, LogRefused, LogUnavailable
from telemetry.settings import Settings

ANSWER_S: Final = 10.0
"""A broker that does not answer for so long is unavailable."""
METADATA_S: Final = 30.0
"""How often clients look which topics and partitions there are: new partitions, and topics made anew, are seen by then."""
ASK_WHY_S: Final = 2.0
"""How long each broker is given to say why it lets nobody in."""
MECHANISMS: Final = ("SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN")


class _EndsAtOnce(ssl.SSLObject):
    """Says that it ends and does not wait until the other side says so, too (RFC 8446, 6.1, lets it). asyncio would keep the
    socket of a closed connection for up to 30 s, and nobody can wait for one that aiokafka gave up in its beginning."""

    def unwrap(self) -> None:
        """What asyncio calls at the end of a connection."""
        with suppress(ssl.SSLWantReadError):
            super().unwrap()


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach and log in to the brokers: arguments of every aiokafka client."""

    servers: tuple[str, ...]
    tls: ssl.SSLContext | None = None
    mechanism: str = "SCRAM-SHA-512"
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments for an aiokafka client."""
        protocol = ("SASL_" if self.user else "") + ("SSL" if self.tls else "PLAINTEXT")
        login = {"sasl_plain_username": self.user, "sasl_plain_password": self.password} if self.user else {}
        return {
            "bootstrap_servers": list(self.servers),
            "security_protocol": protocol,
            "ssl_context": self.tls,
            "sasl_mechanism": self.mechanism,
            "request_timeout_ms": int(ANSWER_S * 1000),
            "metadata_max_age_ms": int(METADATA_S * 1000),
            **login,
        }


def access(settings: Settings) -> Access:
    """How to reach the brokers that `settings.log` names. Raises ConfigError."""
    url = urlsplit(settings.log)
    secure = url.scheme == "kafkas"
    mechanism = parse_qs(url.query).get("mechanism", [MECHANISMS[0]])[0]
    servers = tuple(server for server in url.netloc.split(",") if server)
    faults = []
    for server in servers or ("",):
        host, _, port = server.rpartition(":")
        if not host or not port.isdecimal() or url.path.strip("/") or "@" in server:
            faults.append(_fault("VIGIL_LOG", "kafka://host:port[,host:port]", settings.log.rpartition("@")[2]))
    if mechanism not in MECHANISMS:
        faults.append(_fault("VIGIL_LOG", f"mechanism={'|'.join(MECHANISMS)}", mechanism))
    if mechanism == "PLAIN" and not secure:
        faults.append(_fault("VIGIL_LOG", "kafkas:// with mechanism=PLAIN, which shows the password", url.scheme))
    password, tls = None, None
    try:
        password = settings.secret("log_password")
    except ConfigError as error:
        faults += error.faults
    try:
        tls = _tls(settings) if secure else None
    except OSError as error:  # ssl.SSLError is one
        faults.append(_fault("VIGIL_LOG_CA_FILE", "a readable file of certificates", str(error)))
    if (settings.log_user is None) != (settings.log_password is None and settings.log_password_file is None):
        faults.append(_fault("VIGIL_LOG_USER", "set together with VIGIL_LOG_PASSWORD_FILE", "one of the two"))
    if faults:
        raise ConfigError(faults)
    logging.getLogger("aiokafka.conn").addFilter(_shows_no_request)
    return Access(servers, tls, mechanism, settings.log_user, password)


def _tls(settings: Settings) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=settings.log_ca_file)
    context.sslobject_class = _EndsAtOnce
    return context


def _shows_no_request(line: logging.LogRecord) -> bool:
    """At DEBUG aiokafka logs every request, and a PLAIN login is one with the password in it."""
    return line.levelno > logging.DEBUG


def _fault(key: str, expected: str, found: str) -> Fault:
    return Fault("settings", 0, key, expected, found)


@asynccontextmanager
async def translated(what: str) -> AsyncIterator[None]:
    """A deadline, and Kafka's errors in the log's own words."""
    try:
        async with asyncio.timeout(ANSWER_S):
            yield
    except (MessageSizeTooLargeError, RecordTooLargeError) as error:
        raise LogRefused(f"{what}: the broker takes no record of this size: {error}") from error
    except (KafkaError, OSError) as error:  # TimeoutError is an OSError
        raise LogUnavailable(f"{what}: {str(error) or f'no answer in {ANSWER_S:.0f} s'}") from error


@asynccontextmanager
async def connecting(what: str, access: Access) -> AsyncIterator[None]:
    """As `translated`, for what begins with a connection: says why no broker took it."""
    async with translated(what):
        try:
            yield
        except KafkaConnectionError as error:
            raise LogUnavailable(f"{what}: {await _why_not(access) or error}") from error


async def _why_not(access: Access) -> str:
    """What each broker answers to one connection more: of its first one aiokafka says why to its own log only."""
    known = ("security_protocol", "ssl_context", "sasl_mechanism", "sasl_plain_username", "sasl_plain_password")
    arguments = {name: value for name, value in access.arguments().items() if name in known}
    reasons = []
    for server in access.servers:
        host, _, port = server.rpartition(":")
        connection = AIOKafkaConnection(host, int(port), request_timeout_ms=int(ASK_WHY_S * 1000), **arguments)
        try:
            await connection.connect()
        except (KafkaError, OSError) as error:
            reasons.append(f"{server}: {str(error) or 'no answer'}")
        finally:
            await _closed(connection)
    return "; ".join(reasons)


async def _closed(connection: AIOKafkaConnection) -> None:
    """Its socket, too: `close` leaves that to the event loop's next rounds, which may never come."""
    closed = connection.close()
    if connection._protocol is not None:  # one that never stood has nothing to wait for
        await asyncio.wait([closed], timeout=ASK_WHY_S)
