"""How an endpoint is reached: TLS with certificates of both sides, and a second host where the first fails."""

from __future__ import annotations

import asyncio
import ssl
import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from edge.bus import Bus, make_bus, spare
from edge.lane import Watch
from edge.policy import Reachability
from edge.probe import probe
from edge.reach import make_reach
from telemetry.clock import SystemClock
from telemetry.errors import ConfigError
from telemetry.plant import Endpoint, parse_address
from telemetry.profile import ModbusDefaults, Profile
from tests.edge.asking import TIMEOUT_S, ReadFailed, ask, device_at
from tests.edge.device import Ask, Close, Device, good, silent
from tests.edge.polling import Put, polled
from tests.edge.profiles import make_equipment, make_profile
from tests.fixtures.certificates import Authority, Certificate, make_authority, require_openssl
from tests.fixtures.waiting import until

RIGHT = b"\0\x0a\0\x0b"
PROFILE = make_profile({"p": {"modbus": {"address": 10}}}, poll_s=0.1, timeout_s=1.0)


def bus_of(address: str, endpoint: Endpoint) -> Bus:
    bus = make_bus(parse_address(address), endpoint, SystemClock(), Watch(), file="test")
    spare(bus, ModbusDefaults())
    return bus


async def qualities(address: str, endpoint: Endpoint, profile: Profile = PROFILE) -> list[str]:
    return [row.quality for row in await probe(address, profile, endpoint=endpoint)]


async def why(address: str, endpoint: Endpoint) -> str:
    """Why a request fails."""
    bus = bus_of(address, endpoint)
    try:
        with pytest.raises(ReadFailed) as caught:
            await ask(bus, timeout_s=1.0)
        return caught.value.why
    finally:
        bus.close()


# ---- TLS (MODBUS/TCP Security)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    require_openssl("Modbus over TLS")
    return make_authority(tmp_path_factory.mktemp("certificates") / "works")


@pytest.fixture(scope="module")
def gateway(authority: Authority) -> Certificate:
    return authority.certify("IP:127.0.0.1")


def secured(certificate: Certificate, *, clients_of: Authority | None = None) -> Device:
    """A device behind TLS; with `clients_of` it asks for a certificate of that authority."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate.file, certificate.key)
    if clients_of is not None:
        context.load_verify_locations(clients_of.file)
        context.verify_mode = ssl.CERT_REQUIRED
    return Device(tls=context)


async def test_a_device_behind_tls_is_read_when_its_authority_is_known(
    authority: Authority, gateway: Certificate
) -> None:
    async with secured(gateway) as device:
        address = f"modbus+tls://127.0.0.1:{device.port}/1"
        assert await qualities(address, Endpoint(ca_file=str(authority.file))) == ["good"]
        assert len(device.asked) == 1


async def test_a_device_whose_authority_is_not_known_is_not_asked(
    authority: Authority, gateway: Certificate, tmp_path: Path
) -> None:
    other = make_authority(tmp_path / "other")
    async with secured(gateway) as device:
        address = f"modbus+tls://127.0.0.1:{device.port}/1"
        for endpoint in (Endpoint(ca_file=str(other.file)), Endpoint()):
            assert "certificate verify failed" in await why(address, endpoint)
            assert await qualities(address, endpoint) == ["comms"]
        assert device.asked == []


async def test_a_certificate_of_another_name_is_refused_unless_that_name_is_expected(authority: Authority) -> None:
    async with secured(authority.certify("DNS:gateway.test")) as device:
        address = f"modbus+tls://127.0.0.1:{device.port}/1"
        assert "not valid for '127.0.0.1'" in await why(address, Endpoint(ca_file=str(authority.file)))
        assert device.asked == []
        expected = Endpoint(ca_file=str(authority.file), server_name="gateway.test")
        assert await qualities(address, expected) == ["good"]
        wrong = Endpoint(ca_file=str(authority.file), server_name="other.test")
        assert "certificate is not valid for 'other.test'" in await why(address, wrong)


async def test_a_device_that_wants_our_certificate_is_shown_it_and_answers_nobody_without(
    authority: Authority, gateway: Certificate
) -> None:
    ours = authority.certify("DNS:edge.test")
    together = ours.file.with_name("together.pem")
    together.write_text(ours.together(), encoding="utf-8")
    async with secured(gateway, clients_of=authority) as device:
        address = f"modbus+tls://127.0.0.1:{device.port}/1"
        bare = Endpoint(ca_file=str(authority.file))
        assert await qualities(address, bare) == ["comms"]
        assert device.asked == []
        shown = {"cert_file": str(ours.file), "key_file": str(ours.key)}
        assert await qualities(address, bare.model_copy(update=shown)) == ["good"]
        assert await qualities(address, bare.model_copy(update={"cert_file": str(together)})) == ["good"]


async def test_whom_a_device_hangs_up_on_is_told_of_the_certificate_that_it_may_ask_for(
    authority: Authority, gateway: Certificate
) -> None:
    """One that closes without the alert that would say so."""

    async def closes(ask: Ask, writer: asyncio.StreamWriter) -> None:
        raise Close

    hint = "closed by the device, which may ask for a certificate (cert_file, key_file)"
    bare = Endpoint(ca_file=str(authority.file))
    ours = authority.certify("DNS:edge.test")
    with_ours = bare.model_copy(update={"cert_file": str(ours.file), "key_file": str(ours.key)})
    async with secured(gateway) as device, Device(closes) as plain:
        device.behaviour = closes
        assert hint in await why(f"modbus+tls://127.0.0.1:{device.port}/1", bare)
        for address, endpoint in (
            (f"modbus+tls://127.0.0.1:{device.port}/1", with_ours),
            (f"{plain.url}/1", Endpoint()),
        ):
            said = await why(address, endpoint)
            assert "closed by the device" in said
            assert "certificate" not in said


async def test_plain_and_tls_do_not_take_each_other_for_an_answer(authority: Authority, gateway: Certificate) -> None:
    async with secured(gateway) as device:
        assert await qualities(f"modbus+tcp://127.0.0.1:{device.port}/1", Endpoint()) == ["comms"]
        assert device.asked == []

    async def greets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"no TLS here\r\n")
        writer.close()

    server = await asyncio.start_server(greets, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    assert "refused" in await why(f"modbus+tls://127.0.0.1:{port}/1", Endpoint(ca_file=str(authority.file)))
    server.close()
    await server.wait_closed()


async def test_a_host_that_never_finishes_the_handshake_is_given_up_in_time(authority: Authority) -> None:
    async with Device(silent) as device:
        begun = time.monotonic()
        said = await why(f"modbus+tls://127.0.0.1:{device.port}/1", Endpoint(ca_file=str(authority.file)))
        assert "did not answer within 1 s" in said or "refused" in said
        assert time.monotonic() - begun < 5


@pytest.mark.parametrize("key", ["ca_file", "cert_file", "key_file"])
def test_certificates_that_cannot_be_read_are_told_before_anything_is_asked(
    authority: Authority, gateway: Certificate, tmp_path: Path, key: str
) -> None:
    files = {"ca_file": str(authority.file), "cert_file": str(gateway.file), "key_file": str(gateway.key)}
    (tmp_path / "none.pem").write_text("nothing", encoding="utf-8")
    for wrong in (tmp_path / "missing.pem", tmp_path / "none.pem"):
        endpoint = Endpoint(**(files | {key: str(wrong)}))
        with pytest.raises(ConfigError, match=r"endpoints\.modbus\+tls://h:802: expected ca_file") as caught:
            make_reach(parse_address("modbus+tls://h/1"), endpoint, file="plant.yaml")
        assert str(wrong) in str(caught.value)


async def test_an_authority_that_is_renewed_while_it_runs_counts_from_the_next_connection_on(
    authority: Authority, gateway: Certificate, tmp_path: Path
) -> None:
    other, ca = make_authority(tmp_path / "other"), tmp_path / "ca.pem"
    ca.write_bytes(other.file.read_bytes())
    async with secured(gateway) as device:
        address = parse_address(f"modbus+tls://127.0.0.1:{device.port}/1")
        reach = make_reach(address, Endpoint(ca_file=str(ca)), file="plant.yaml")
        with pytest.raises(ssl.SSLCertVerificationError):
            await reach.open(0, asyncio.Protocol)
        ca.unlink()
        with pytest.raises(OSError, match=rf"{ca}: \[Errno 2\] No such file"):
            await reach.open(0, asyncio.Protocol)
        ca.write_bytes(authority.file.read_bytes())
        (await reach.open(0, asyncio.Protocol)).abort()


# ---- a second host


def fallback(device: Device) -> Endpoint:
    return Endpoint(fallback=f"127.0.0.1:{device.port}")


async def test_where_the_first_host_refuses_the_second_is_asked() -> None:
    async with Device() as first:
        pass
    async with Device() as second:
        whys: list[str] = []
        (row,) = await probe(f"{first.url}/1", PROFILE, endpoint=fallback(second), tell=whys.append)
        assert row.quality == "good"
        assert len(second.asked) == 1
    assert whys == [f"127.0.0.1:{first.port} does not serve: read at its fallback 127.0.0.1:{second.port}"]


async def test_a_device_that_its_first_host_reaches_is_not_said_to_be_elsewhere() -> None:
    async with Device() as first, Device() as second:
        whys: list[str] = []
        await probe(f"{first.url}/1", PROFILE, endpoint=fallback(second), tell=whys.append)
    assert whys == []


async def test_a_change_of_host_is_told_once_with_its_reason() -> None:
    first, second = Device(), Device()
    async with first, second:
        pass
    bus = bus_of(f"{first.url}/1", fallback(second))
    with capture_logs() as said:
        async with second:
            assert await ask(bus) == await ask(bus) == RIGHT
        async with first:
            await until(lambda: bus.main.connection.transport is None)
            assert await ask(bus) == RIGHT
    bus.close()
    assert [(line["log_level"], line["event"]) for line in said] == [
        ("warning", "read at the fallback"),
        ("info", "read at the first host again"),
    ]
    assert {line["endpoint"] for line in said} == {f"127.0.0.1:{first.port}"}
    assert said[0]["fallback"] == f"127.0.0.1:{second.port}"
    assert said[0]["why"].startswith(f"127.0.0.1:{first.port} refused")


async def test_where_neither_is_reached_both_are_named() -> None:
    async with Device() as first, Device() as second:
        pass
    said = await why(f"{first.url}/1", fallback(second))
    assert f"127.0.0.1:{first.port} refused" in said
    assert f"127.0.0.1:{second.port} refused" in said


async def test_a_first_host_that_accepts_and_is_silent_is_left_for_the_second_and_both_silent_take_turns() -> None:
    async with Device(silent) as first, Device() as second:
        bus = bus_of(f"{first.url}/1", fallback(second))
        for _ in range(3):
            with pytest.raises(ReadFailed, match="no answer"):
                await ask(bus)
        assert await ask(bus) == RIGHT
        assert (len(first.asked), len(second.asked)) == (3, 1)
        second.behaviour = silent
        for _ in range(3):
            with pytest.raises(ReadFailed, match="no answer"):
                await ask(bus)
        first.behaviour = good
        assert await ask(bus) == RIGHT
        assert (len(first.asked), len(second.asked)) == (4, 4)
        bus.close()


async def test_a_host_that_dies_while_it_is_read_gives_way_to_the_other_and_back() -> None:
    first, second = Device(), Device()
    async with first:
        pass
    async with second:
        endpoint = fallback(second)
        bus, put, reach = bus_of(f"{first.url}/1", endpoint), Put(), Reachability()
        equipment = make_equipment("e", PROFILE, f"{first.url}/1")
        async with polled([device_at(bus, equipment, endpoint)], put, reach):
            async with first:  # nobody was connected yet: the first is there from the start
                await until(lambda: len(first.asked) >= 3)
                assert second.asked == []
            await until(lambda: len(second.asked) >= 3)
            async with first:
                seen = len(first.asked)
                await second.__aexit__()
                await until(lambda: len(first.asked) >= seen + 3)
                assert reach.since_us == {}
        bus.close()
        second.port = 0
        await second.__aenter__()


async def test_the_fallback_of_a_gateway_serves_its_units_with_the_same_rules() -> None:
    """A unit that is silent behind both hosts does not send the others from one to the other."""

    async def unit_2_is_silent(ask: Ask, writer: asyncio.StreamWriter) -> None:
        if ask.unit != 2:
            await good(ask, writer)

    async with Device(unit_2_is_silent) as first, Device(unit_2_is_silent) as second:
        endpoint = fallback(second)
        bus, reach = bus_of(f"{first.url}/1", endpoint), Reachability()
        bus.shared = True
        profile = make_profile({"p": {"modbus": {"address": 10}}}, poll_s=0.1, timeout_s=TIMEOUT_S)
        drivers = [device_at(bus, make_equipment(f"e{u}", profile, f"{first.url}/{u}"), endpoint) for u in (1, 2, 3)]
        async with polled(drivers, Put(), reach):
            await until(lambda: "e2" in reach.since_us)
            await until(lambda: len(first.asked) > 50)
        assert {ask.unit for ask in second.asked} <= {2}, "only the silent one may have been tried elsewhere"
        assert reach.since_us.keys() <= {"e2"}
        bus.close()
