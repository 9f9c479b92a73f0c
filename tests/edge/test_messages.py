"""What a person reads when a device says nonsense: which equipment, which topic or registers, what was expected and found."""

from __future__ import annotations

import asyncio

import pytest

from edge.complaints import Complaints
from tests.edge.asking import bus_to, cycle, device_at
from tests.edge.build import make_equipment, make_profile
from tests.edge.device import Ask, Behaviour, Device, data, frame, send, silent
from tests.edge.test_payload import RECEIVED, state

PAYLOADS: dict[str, tuple[bytes, str, str]] = {
    # what is wrong → (payload, reason, what is said of it)
    "not JSON": (b"nope", "not-json", "expected JSON, found b'nope'"),
    "no field of its topic": (b"{}", "missing-field", "expected one of values.speed, doors.0.state"),
    "the year 1970": (b'{"time": 12, "values": {"speed": 1}}', "time", "expected a clock that was set, found 12"),
    "a future time": (
        b'{"time": "2027-01-01T00:00:00Z", "values": {"speed": 1}}',
        "time",
        "expected no more than 5 minutes ahead of the receipt, found '2027-01-01T00:00:00Z'",
    ),
    "a word for a number": (b'{"values": {"speed": "x"}}', "wrong-type", "speed: expected a number, found 'x'"),
}


@pytest.mark.parametrize("rule", PAYLOADS)
def test_a_bad_payload_becomes_an_event_that_names_equipment_topic_and_what_was_expected(rule: str) -> None:
    payload, reason, said = PAYLOADS[rule]
    [refusal] = state(payload).refusals
    [event] = Complaints().about("lift-1", "plant/lift-1/state", refusal, RECEIVED)
    assert (event.equipment, event.scheme, event.code, event.time_us) == ("lift-1", "vigil", "mqtt-payload", RECEIVED)
    assert event.attributes["reason"] == reason
    assert event.attributes["topic"] == "plant/lift-1/state"
    assert event.attributes["detail"].startswith(said)


async def _refused(ask: Ask, writer: asyncio.StreamWriter) -> None:
    writer.write(frame(ask, bytes([ask.function | 0x80, 2])))


ANSWERS: dict[str, tuple[Behaviour, str]] = {
    "an exception": (_refused, "holding 7+1: exception 2, illegal data address"),
    "half a frame": (send(lambda a: frame(a, data(a))[:9]), "holding 7+1: unusable answer: 9 bytes"),
    "another unit's frame": (send(lambda a: frame(a, data(a), unit=9)), "holding 7+1: answer of unit 9, expected 1"),
    "another transaction's": (
        send(lambda a: frame(a, data(a), transaction=a.transaction + 1)),
        "holding 7+1: answer to another transaction",
    ),
    "garbage": (
        send(lambda a: b"\xde\xad\xbe\xef" * 5),
        "holding 7+1: unusable answer: expected protocol 0, found .. .. be ef de ad be ef",
    ),
    "nothing": (silent, "holding 7+1: no answer within 0.2 s"),
}


@pytest.mark.parametrize("rule", ANSWERS)
async def test_a_bad_answer_is_told_with_its_registers_and_what_came(rule: str) -> None:
    behaviour, said = ANSWERS[rule]
    profile = make_profile({"p": {"modbus": {"address": 7}}}, timeout_s=0.2)
    async with Device(behaviour) as device:
        bus = bus_to(device)
        reader = device_at(bus, make_equipment("e", profile, f"{device.url}/1"))
        outcomes = [await cycle(reader), await cycle(reader)]
        bus.close()
    assert outcomes[0].faults[0].startswith(said)
    if rule != "an exception":  # by the second cycle it is learned
        assert outcomes[1].faults == outcomes[0].faults, "in the same words, so that it is logged once"
