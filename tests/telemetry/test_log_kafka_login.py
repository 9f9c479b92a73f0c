"""Who a real Kafka lets in: SCRAM and PLAIN, with and without TLS; what is said of who is not, and no secret in it."""

from __future__ import annotations

import io
import itertools
import logging
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import structlog

from telemetry.errors import ConfigError, LogUnavailable
from telemetry.log import open_log
from telemetry.log.protocol import Log
from telemetry.settings import Settings
from tests.fixtures.certificates import make_authority, require_openssl
from tests.fixtures.kafka import KafkaBroker, require_kafka_jars
from tests.fixtures.ports import free_port
from tests.telemetry.log_rig import Owner, read_count, record

_NUMBERS = itertools.count()
RIGHT, WRONG = "right-s3cret", "wrong-s3cret"
MODULES = "org.apache.kafka.common.security"
SCRAM = ("SCRAM-SHA-256", "SCRAM-SHA-512")
EVERY_WAY = [("kafka", mechanism) for mechanism in SCRAM] + [("kafkas", m) for m in (*SCRAM, "PLAIN")]


@dataclass(frozen=True, slots=True)
class Guarded:
    """A broker that asks everybody for a login: its ports, without and with TLS, and whom to trust."""

    plain_port: int
    tls_port: int
    ca: Path

    def log(self, folder: Path, url: str, *, password: str = RIGHT, user: str = "vigil", ca: bool = True) -> Log:
        """`url` with `PORT` for that of its scheme."""
        secret = folder / "password"
        secret.write_text(f"{password}\n", encoding="utf-8")
        port = self.tls_port if url.startswith("kafkas") else self.plain_port
        return open_log(
            Settings(
                log=url.replace("PORT", str(port)),
                log_user=user,
                log_password_file=secret,
                log_ca_file=self.ca if ca else None,
                state_dir=folder,
            )
        )


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    require_openssl("the log on Kafka with a login")
    jars = require_kafka_jars("the log on Kafka with a login")
    home = tmp_path_factory.mktemp("guarded")
    authority = make_authority(home / "authority")
    (home / "server.pem").write_text(authority.certify("IP:127.0.0.1").together(), encoding="utf-8")
    ports = Guarded(free_port(), free_port(), authority.file)
    broker = KafkaBroker(home / "broker", jars)
    broker.listen(f"LOGIN://127.0.0.1:{ports.plain_port}", login("login", *SCRAM))
    broker.listen(
        f"SECURE://127.0.0.1:{ports.tls_port}",
        f"{login('secure', *SCRAM, 'PLAIN')}"
        "listener.name.secure.ssl.keystore.type=PEM\n"
        f"listener.name.secure.ssl.keystore.location={home / 'server.pem'}\n",
    )
    for mechanism in SCRAM:
        broker.add_scram_user(mechanism, "vigil", RIGHT)
    broker.start()
    yield ports
    broker.stop()


def login(listener: str, *mechanisms: str) -> str:
    """The broker's properties for who may log in how at a listener."""
    lines = [f"listener.name.{listener}.sasl.enabled.mechanisms={','.join(mechanisms)}"]
    for mechanism in mechanisms:
        checks = "scram.ScramLoginModule required"
        if mechanism == "PLAIN":
            checks = f'plain.PlainLoginModule required user_vigil="{RIGHT}"'
        lines.append(f"listener.name.{listener}.{mechanism.lower()}.sasl.jaas.config={MODULES}.{checks};")
    return "\n".join([*lines, ""])


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Iterator[io.StringIO]:
    """All that Vigil logs, at every level; what aiokafka logs is in caplog."""
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "aiokafka")
    lines = io.StringIO()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(lines))
    yield lines
    structlog.reset_defaults()


def a_topic() -> str:
    return f"guarded.{os.getpid()}.{next(_NUMBERS)}"


@pytest.mark.parametrize(("scheme", "mechanism"), EVERY_WAY)
async def test_records_travel_with_every_login(guarded: Guarded, scheme: str, mechanism: str, tmp_path: Path) -> None:
    log, topic = guarded.log(tmp_path, f"{scheme}://127.0.0.1:PORT?mechanism={mechanism}"), a_topic()
    producer = await log.producer()
    reader = await log.reader("g", [topic], Owner())
    await producer.send(topic, [record("k", "sealed")])
    assert [r.value for r in await read_count(reader, 1)] == [b"sealed"]
    await reader.close()
    await producer.close()


@pytest.mark.parametrize(("scheme", "mechanism"), EVERY_WAY)
async def test_a_wrong_password_is_said_to_be_one_and_no_secret_is_logged(
    guarded: Guarded,
    scheme: str,
    mechanism: str,
    tmp_path: Path,
    said: io.StringIO,
    caplog: pytest.LogCaptureFixture,
) -> None:
    url = f"{scheme}://127.0.0.1:PORT?mechanism={mechanism}"
    for user, password in (("vigil", WRONG), ("nobody", RIGHT)):
        log = guarded.log(tmp_path, url, user=user, password=password)
        expected = r"127\.0\.0\.1:\d+: .*SaslAuthenticationFailed: Authentication failed"
        with pytest.raises(LogUnavailable, match=f"producer: {expected}") as sending:
            await log.producer()
        with pytest.raises(LogUnavailable, match=f"topics: {expected}") as reading:
            await log.reader("g", [a_topic()], Owner())
        told = f"{log!r} {sending.value!r} {reading.value!r} {said.getvalue()} {caplog.text}"
        assert "s3cret" not in told
    assert "SaslAuthenticationFailed" in caplog.text, "the logs were looked at"


async def test_the_login_is_scram_sha_512_unless_the_url_says_otherwise(guarded: Guarded, tmp_path: Path) -> None:
    with pytest.raises(LogUnavailable, match="SCRAM-SHA-512"):
        await guarded.log(tmp_path, "kafka://127.0.0.1:PORT", password=WRONG).producer()


@pytest.mark.parametrize("scheme", ["kafka", "kafkas"])
async def test_nothing_is_left_open_to_a_broker_that_lets_nobody_in(
    guarded: Guarded, scheme: str, tmp_path: Path
) -> None:
    log = guarded.log(tmp_path, f"{scheme}://127.0.0.1:PORT", password=WRONG)
    for asking in (log.producer(), log.reader("g", [a_topic()], Owner())):
        with pytest.raises(LogUnavailable):
            await asking
        assert connections_to(guarded.tls_port if scheme == "kafkas" else guarded.plain_port) == []


async def test_nothing_is_left_open_to_one_that_never_says_that_it_ends(tmp_path: Path) -> None:
    require_openssl("a broker that keeps its end of a TLS connection open")
    with a_mute_broker(tmp_path) as (port, ca):
        log = open_log(Settings(log=f"kafkas://127.0.0.1:{port}", log_ca_file=ca, state_dir=tmp_path))
        with pytest.raises(LogUnavailable, match="Correlation ids do not match"):
            await log.producer()
        assert connections_to(port) == []


@contextmanager
def a_mute_broker(folder: Path) -> Iterator[tuple[int, Path]]:
    """(port, authority) of somebody who answers each connection's first request with nonsense, and nothing ever after."""
    authority = make_authority(folder / "authority")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server = authority.certify("IP:127.0.0.1")
    tls.load_cert_chain(server.file, server.key)
    with ExitStack() as open_still, socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            with suppress(OSError):  # the end of the test
                while True:
                    raw, _ = listening.accept()
                    one = open_still.enter_context(tls.wrap_socket(raw, server_side=True))
                    one.recv(4096)
                    one.sendall(b"\0\0\0\4\xff\xff\xff\xff")

        answering = threading.Thread(target=answer)
        answering.start()
        yield listening.getsockname()[1], authority.file
        listening.shutdown(socket.SHUT_RDWR)
        answering.join()


def connections_to(port: int) -> list[str]:
    """This process's own ends."""
    found = psutil.Process().net_connections("tcp")
    return [f"{one.fd}: {one.status}" for one in found if one.raddr and one.raddr.port == port]


@pytest.mark.parametrize(
    ("url", "trusts", "expected"),
    [
        ("kafkas://127.0.0.1:PORT", False, "unable to get local issuer certificate"),
        ("kafkas://localhost:PORT", True, "Hostname mismatch, certificate is not valid for 'localhost'"),
    ],
    ids=["authority", "name"],
)
async def test_a_certificate_of_an_unknown_authority_or_another_name_is_said_to_be_one(
    guarded: Guarded, url: str, trusts: bool, expected: str, tmp_path: Path
) -> None:
    with pytest.raises(LogUnavailable, match=expected) as caught:
        await guarded.log(tmp_path, url, ca=trusts).producer()
    assert "s3cret" not in str(caught.value)


async def test_of_several_brokers_each_says_why_it_takes_nobody(guarded: Guarded, tmp_path: Path) -> None:
    nobody = free_port()
    with pytest.raises(LogUnavailable, match=rf"127\.0\.0\.1:{nobody}: .*; 127\.0\.0\.1:{guarded.plain_port}: .*Sasl"):
        await guarded.log(tmp_path, f"kafka://127.0.0.1:{nobody},127.0.0.1:PORT", password=WRONG).producer()


def test_a_missing_ca_file_is_a_fault_of_the_settings(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="VIGIL_LOG_CA_FILE"):
        open_log(Settings(log="kafkas://a:1", log_ca_file=tmp_path / "none.pem"))
