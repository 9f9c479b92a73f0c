"""Addresses and endpoints: taken apart once, compared by one spelling."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry.address import Address, endpoint_of, parse_address

GOOD = [
    ("modbus+tcp://10.0.0.5:502/3", "modbus+tcp://10.0.0.5:502", 3, ""),
    ("modbus+tcp://10.0.0.5", "modbus+tcp://10.0.0.5:502", 1, ""),
    ("modbus+tcp://PLC.local/0", "modbus+tcp://plc.local:502", 0, ""),
    ("modbus+tcp://[fe80::1]:5020/255", "modbus+tcp://[fe80::1]:5020", 255, ""),
    ("modbus+rtuovertcp://gw:4001/17", "modbus+rtuovertcp://gw:4001", 17, ""),
    ("mqtt://127.0.0.1:1883/lifts/0012", "mqtt://127.0.0.1:1883", 1, "lifts/0012"),
    ("mqtt://broker/lifts/0012/", "mqtt://broker:1883", 1, "lifts/0012"),
    ("mqtts://broker/a", "mqtts://broker:8883", 1, "a"),
]

hosts = st.from_regex(r"[a-z][a-z0-9]{0,10}(\.[a-z0-9]{1,5}){0,2}", fullmatch=True) | st.just("[::1]")
ports = st.integers(1, 65535)


@pytest.mark.parametrize(("text", "endpoint", "unit", "prefix"), GOOD)
def test_an_address_is_taken_apart(text: str, endpoint: str, unit: int, prefix: str) -> None:
    address = parse_address(text)
    assert (address.endpoint, address.unit, address.prefix) == (endpoint, unit, prefix)
    assert address.is_modbus == text.startswith("modbus")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10.0.0.5",
        "http://h/1",
        "modbus+tcp://",
        "modbus+tcp://h/256",
        "modbus+tcp://h/-1",
        "modbus+tcp://h/1/2",
        "modbus+tcp://h/1#2",
        "modbus+tcp://h:0/1",
        "modbus+tcp://h:x/1",
        "modbus+tcp://[::1/1",
        "mqtt://h",
        "mqtt://h/a/+",
        "mqtt://h/#",
    ],
)
def test_what_is_no_address_is_refused_with_what_was_expected(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected .*, found .*"):
        parse_address(text)


@pytest.mark.parametrize("text", ["mqtt://me:hunter2@h/x", "ftp://me:hunter2@h/x", "mqtt://me:hunter2@h:99999/x"])
def test_a_password_in_an_address_is_refused_and_never_repeated(text: str) -> None:
    for read in (parse_address, endpoint_of):
        with pytest.raises(ValueError, match="env: or file:") as raised:
            read(text)
        assert "hunter2" not in str(raised.value)


@settings(deadline=None)
@given(host=hosts, port=ports, unit=st.integers(0, 255))
def test_an_endpoint_key_is_spelled_as_addresses_spell_it(host: str, port: int, unit: int) -> None:
    for scheme in ("modbus+tcp", "modbus+rtuovertcp"):
        assert endpoint_of(f"{scheme}://{host}:{port}") == parse_address(f"{scheme}://{host}:{port}/{unit}").endpoint
    assert endpoint_of(f"mqtt://{host}") == parse_address(f"mqtt://{host}:1883/x/{unit}").endpoint
    assert endpoint_of(endpoint_of(f"mqtts://{host}:{port}/")) == f"mqtts://{host}:{port}"


@settings(deadline=None)
@given(text=st.text(max_size=40))
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    for start in ("", "modbus+tcp://", "mqtt://h/", "mqtts://"):
        said = address_or_words(start + text)
        if isinstance(said, Address):
            assert said.host
            assert 1 <= said.port <= 65535
            assert 0 <= said.unit <= 255
        else:
            assert "expected" in said


def address_or_words(text: str) -> Address | str:
    try:
        return parse_address(text)
    except ValueError as error:
        return str(error)
