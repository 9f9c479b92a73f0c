"""MQTT over TLS with a login, against a real mosquitto: who is let in, what is said of who is not, and nothing lost."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import ssl
import subprocess
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
import structlog
from paho.mqtt.enums import CallbackAPIVersion
from structlog.testing import capture_logs

from edge.mqtt import MqttDriver
from edge.service import run
from telemetry.errors import ConfigError
from telemetry.settings import Settings
from tests.edge.build import make_profile, write_plant
from tests.edge.mqtt_rig import Taking, at_work, connected, make_driver, told
from tests.edge.running import read_log
from tests.fixtures.certificates import Authority, Certificate, make_authority, require_openssl
from tests.fixtures.mosquitto import Mosquitto, find_mosquitto
from tests.fixtures.parts import missing, used
from tests.fixtures.serving import serving
from tests.fixtures.waiting import until

PROFILE = make_profile({"x": {"mqtt": {}}}, silent_after_s=30)
USER, RIGHT, WRONG = "edge-login", "right-s3cret", "wrong-s3cret"
TOPIC = "plant/e/state"


@dataclass(frozen=True, slots=True)
class Trust:
    """The authority that the edge trusts, and certificates that a broker may show. Made once: they take a while."""

    ours: Authority
    good: Certificate
    of_another_name: Certificate
    of_another_authority: Certificate


@pytest.fixture(scope="module")
def trust(tmp_path_factory: pytest.TempPathFactory) -> Trust:
    require_openssl("MQTT over TLS")
    folder = tmp_path_factory.mktemp("trust")
    ours, theirs = make_authority(folder / "ours"), make_authority(folder / "theirs")
    here = "IP:127.0.0.1"
    return Trust(ours, ours.certify(here), ours.certify("DNS:another.test"), theirs.certify(here))


@pytest.fixture
def secure(tmp_path: Path, trust: Trust, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mosquitto]:
    """A broker that speaks TLS only and lets in `edge-login` only, with the right password."""
    if find_mosquitto() is None:
        missing("mosquitto", not_tried="MQTT over TLS", how="apt-get install mosquitto")
    used("MQTT broker", "mosquitto")
    monkeypatch.setenv("MQTT_USER", USER)
    broker = Mosquitto(tmp_path / "mosquitto")
    broker.folder.mkdir()
    set_password(broker, RIGHT)
    present(broker, trust.good)
    try:
        yield broker.start()
    finally:
        broker.kill()


@pytest.fixture
def said(tmp_path: Path) -> Iterator[io.StringIO]:
    """All that is logged, at every level."""
    lines = io.StringIO()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(lines))
    yield lines
    structlog.reset_defaults()


def present(broker: Mosquitto, certificate: Certificate) -> None:
    """From its next start on, the broker shows this certificate."""
    broker.options = (
        f"allow_anonymous false\npassword_file {broker.folder / 'users'}\n"
        f"certfile {certificate.file}\nkeyfile {certificate.key}\n"
        f"log_type all\nlog_dest file {broker.folder / 'mosquitto.log'}\n"
    )


def set_password(broker: Mosquitto, password: str) -> None:
    """From its next start on, the broker lets USER in with this password."""
    command = ["mosquitto_passwd", "-b", "-c", str(broker.folder / "users"), USER, password]
    subprocess.run(command, check=True, timeout=20)


def url_of(broker: Mosquitto) -> str:
    return f"mqtts://127.0.0.1:{broker.port}"


def endpoint_of(folder: Path, ca: Authority | None, password: str = RIGHT) -> dict[str, str]:
    """How the plant file says it: the user from the environment (MQTT_USER), the password from a file."""
    (folder / "password").write_text(f"{password}\n", encoding="utf-8")
    endpoint = {"username": "env:MQTT_USER", "password": f"file:{folder}/password"}
    return {**endpoint, "ca_file": str(ca.file)} if ca is not None else endpoint


def driver_of(broker: Mosquitto, endpoint: dict[str, str]) -> MqttDriver:
    return make_driver(url_of(broker), PROFILE, endpoint=endpoint)


def listening(broker: Mosquitto, endpoint: dict[str, str], taking: Taking) -> AbstractAsyncContextManager[MqttDriver]:
    """A driver at work."""
    return at_work(driver_of(broker, endpoint), taking.put)


def say(broker: Mosquitto, values: Sequence[float]) -> None:
    """A device logs in and publishes with QoS 1; it trusts whatever the broker shows."""
    device = paho.Client(CallbackAPIVersion.VERSION2, client_id="device")
    device.username_pw_set(USER, RIGHT)
    device.tls_set(cert_reqs=ssl.CERT_NONE)
    device.connect("127.0.0.1", broker.port)
    device.loop_start()
    for value in values:
        sent = device.publish(TOPIC, json.dumps({"values": {"x": value}}), qos=1)
        sent.wait_for_publish(10)
        assert sent.is_published()
    device.disconnect()
    device.loop_stop()


def refusals(broker: Mosquitto) -> int:
    """How many logins the broker's own log refuses."""
    log = broker.folder / "mosquitto.log"
    return log.read_text(encoding="utf-8", errors="replace").count("disconnected, not authorised")


async def test_with_the_right_login_a_message_is_read_and_acknowledged(
    secure: Mosquitto, trust: Trust, tmp_path: Path
) -> None:
    endpoint = endpoint_of(tmp_path, trust.ours)
    first, again = Taking(), Taking()
    async with listening(secure, endpoint, first) as driver:
        await connected(driver)
        await asyncio.to_thread(say, secure, [1.0])
        await until(first.xs)
    async with listening(secure, endpoint, again) as driver:
        await connected(driver)
        await asyncio.to_thread(say, secure, [2.0])
        await until(again.xs)
    assert (first.xs(), again.xs()) == ([1.0], [2.0]), "what was acknowledged does not come again"


async def test_both_credentials_may_come_from_the_environment(
    secure: Mosquitto, trust: Trust, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MQTT_PASSWORD", RIGHT)
    endpoint = {"username": "env:MQTT_USER", "password": "env:MQTT_PASSWORD", "ca_file": str(trust.ours.file)}
    async with listening(secure, endpoint, Taking()) as driver:
        await connected(driver)
        assert driver.health.waiting_for == {}


def another_password(broker: Mosquitto, trust: Trust) -> None:
    set_password(broker, "another-s3cret")


def another_authority(broker: Mosquitto, trust: Trust) -> None:
    present(broker, trust.of_another_authority)


def another_name(broker: Mosquitto, trust: Trust) -> None:
    present(broker, trust.of_another_name)


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (another_password, "broker refused: Not authorized"),
        (another_authority, "broker's certificate is not accepted: unable to get local issuer certificate"),
        (another_name, "broker's certificate is not accepted: IP address mismatch"),
    ],
    ids=["password", "authority", "name"],
)
async def test_what_keeps_the_edge_out_is_said_and_tried_until_it_is_mended_and_then_nothing_is_missing(
    secure: Mosquitto, trust: Trust, tmp_path: Path, wrong: Callable[[Mosquitto, Trust], None], expected: str
) -> None:
    endpoint, taking = endpoint_of(tmp_path, trust.ours), Taking()
    async with listening(secure, endpoint, Taking()) as driver:
        await connected(driver)  # From now on the broker keeps what comes.
    await asyncio.to_thread(say, secure, [1.0, 2.0, 3.0])
    secure.stop()
    wrong(secure, trust)
    await asyncio.to_thread(secure.start)
    async with listening(secure, endpoint, taking) as driver:
        await told(driver, expected)
        assert taking.decoded == []
        secure.stop()
        set_password(secure, RIGHT)
        present(secure, trust.good)
        await asyncio.to_thread(secure.start)
        await connected(driver)
        await until(lambda: len(taking.xs()) >= 3)
    assert taking.xs() == [1.0, 2.0, 3.0]


async def test_a_password_and_an_authority_that_are_renewed_while_it_runs_are_used_without_a_restart(
    secure: Mosquitto, trust: Trust, tmp_path: Path
) -> None:
    """Whoever renews them writes the files one after the other: one that is not there for a moment ends nothing."""
    ca = tmp_path / "ca.pem"
    ca.write_bytes(trust.ours.file.read_bytes())
    endpoint, taking = {**endpoint_of(tmp_path, None), "ca_file": str(ca)}, Taking()
    async with listening(secure, endpoint, taking) as driver:
        await connected(driver)
        ca.unlink()
        secure.stop()
        await told(driver, f"login or certificate cannot be read: {ca}: [Errno 2] No such file")
        set_password(secure, "renewed-s3cret")
        (tmp_path / "password").unlink()
        ca.write_bytes(trust.ours.file.read_bytes())
        await asyncio.to_thread(secure.start)
        await told(
            driver, f"login or certificate cannot be read: [Errno 2] No such file or directory: '{tmp_path}/password'"
        )
        (tmp_path / "password").write_text("renewed-s3cret\n", encoding="utf-8")
        await connected(driver)


async def test_a_refusal_is_said_once_however_often_the_broker_hangs_up(
    secure: Mosquitto, trust: Trust, tmp_path: Path
) -> None:
    with capture_logs() as logged:
        async with listening(secure, endpoint_of(tmp_path, trust.ours, WRONG), Taking()) as driver:
            await until(lambda: refusals(secure) >= 2)
            await told(driver, "Not authorized")
    whys = [line["why"] for line in logged if line["event"] == "waiting"]
    assert whys == ["not connected yet", "broker refused: Not authorized"]


async def test_without_a_ca_file_only_the_systems_authorities_are_trusted(secure: Mosquitto, tmp_path: Path) -> None:
    async with listening(secure, endpoint_of(tmp_path, None), Taking()) as driver:
        await until(lambda: "certificate is not accepted" in driver.health.waiting_for[driver.endpoint])


async def test_a_broker_that_asks_for_the_clients_certificate_is_shown_ours(
    secure: Mosquitto, trust: Trust, tmp_path: Path
) -> None:
    secure.stop()
    secure.options += f"cafile {trust.ours.file}\nrequire_certificate true\n"
    await asyncio.to_thread(secure.start)
    endpoint, taking = endpoint_of(tmp_path, trust.ours), Taking()
    ours = trust.ours.certify("DNS:edge.test")
    both = tmp_path / "both.pem"
    both.write_text(ours.together(), encoding="utf-8")
    async with listening(secure, endpoint, taking) as driver:
        await told(driver, "connection lost")
    for shown in ({"cert_file": str(ours.file), "key_file": str(ours.key)}, {"cert_file": str(both)}):
        async with listening(secure, {**endpoint, **shown}, taking) as driver:
            await connected(driver)


@pytest.mark.parametrize("keys", [{"cert_file": "missing.pem"}, {"cert_file": "ca.pem"}], ids=["missing", "no key"])
def test_a_certificate_of_ours_that_is_none_is_a_fault_of_the_plant_file(
    secure: Mosquitto, trust: Trust, keys: dict[str, str]
) -> None:
    endpoint = {key: str(trust.ours.folder / name) for key, name in keys.items()}
    expected = rf"plant\.yaml:0: endpoints\.{url_of(secure)}\.cert_file: expected .*\.pem, a readable certificate"
    with pytest.raises(ConfigError, match=expected):
        driver_of(secure, endpoint)


def test_a_ca_file_that_is_none_is_a_fault_of_the_plant_file(secure: Mosquitto, tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("no certificate\n", encoding="utf-8")
    for name in ("missing.pem", "empty.pem"):
        endpoint = {"ca_file": str(tmp_path / name)}
        expected = rf"plant\.yaml:0: endpoints\.{url_of(secure)}\.ca_file: expected .*{name}, a readable file"
        with pytest.raises(ConfigError, match=expected):
            driver_of(secure, endpoint)


async def test_the_whole_edge_logs_in_by_its_plant_file_and_no_secret_is_ever_written(
    secure: Mosquitto, trust: Trust, tmp_path: Path, said: io.StringIO, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    endpoints = {url_of(secure): endpoint_of(tmp_path, trust.ours, password=WRONG)}
    equipment = [{"id": "e", "profile": "test", "address": f"{url_of(secure)}/plant/e"}]
    plant = write_plant(tmp_path, PROFILE, equipment, endpoints=endpoints)
    settings = Settings(state_dir=tmp_path / "state", plant=plant, profiles_dir=tmp_path)
    async with serving(run, settings, "edge") as health:
        await until(lambda: "Not authorized" in health.waiting_for.get(url_of(secure), ""))
    endpoint_of(tmp_path, trust.ours, password=RIGHT)
    before = said.getvalue()
    said.seek(said.truncate(0))
    async with serving(run, settings, "edge") as health:
        await until(lambda: "found" in said.getvalue() and not health.waiting_for)
        await asyncio.to_thread(say, secure, [7.0])
        await until(reached(settings))
    assert (await read_log(settings)).of("e/x") == [7.0]
    written = [file.read_bytes() for file in settings.state_dir.rglob("*") if file.is_file()]
    logged = before + said.getvalue() + caplog.text + "".join(map(str, health.waiting_for.values()))
    assert "Not authorized" in logged
    for secret in (RIGHT, WRONG):
        assert secret not in logged
        assert not any(secret.encode() in content for content in written)


def reached(settings: Settings) -> Callable[[], Coroutine[Any, Any, bool]]:
    async def on_the_log() -> bool:
        return bool((await read_log(settings)).of("e/x"))

    return on_the_log
