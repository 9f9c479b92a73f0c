"""An MQTT byte stream taken apart: golden packets by hand from the standards, any cut of them, and what is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.mqtt_packets import DUP, RETAIN, TOO_LARGE, PacketStream, StreamError

# MQTT 3.1.1, section 3.3: DUP 0, QoS 1, RETAIN 1; topic "a/b" (00 03 61 2F 62), packet id 10 (00 0A), payload "hi".
GOLDEN = bytes.fromhex("33 09 0003612F62 000A 6869".replace(" ", ""))
# MQTT 5.0, section 3.3: the same, marked as a duplicate, with one property: Message Expiry Interval (02), 300 s.
GOLDEN_5 = bytes.fromhex("3B 0F 0003612F62 000A 05 020000012C 6869".replace(" ", ""))
QOS_0 = bytes.fromhex("30 07 0003612F62 6869".replace(" ", ""))
PINGRESP = b"\xd0\x00"
SUBACK = b"\x90\x03\x00\x01\x01"


def long(size: int, topic: bytes = b"t") -> bytes:
    """A QoS 1 packet whose payload has `size` bytes; the length takes as many bytes as it needs."""
    body = len(topic).to_bytes(2, "big") + topic + b"\x00\x07" + b"x" * size
    length, spelled = len(body), bytearray()
    while True:
        length, low = divmod(length, 128)
        spelled.append(low | (0x80 if length else 0))
        if not length:
            return b"\x32" + bytes(spelled) + body


def test_a_publish_packet_gives_topic_payload_and_its_acknowledgement() -> None:
    stream = PacketStream(version_5=False)
    stream.feed(GOLDEN)
    came = stream.take()
    assert (came.topics, came.payloads, came.heads) == ([b"a/b"], [b"hi"], [0x30 | 2 | RETAIN])
    assert came.acks == [bytes.fromhex("4002000A")], "PUBACK: section 3.4"


def test_properties_of_version_5_are_passed_over() -> None:
    stream = PacketStream(version_5=True)
    stream.feed(GOLDEN_5)
    came = stream.take()
    assert (came.topics, came.payloads) == ([b"a/b"], [b"hi"])
    assert came.heads[0] & DUP


def test_qos_0_asks_for_no_acknowledgement() -> None:
    stream = PacketStream(version_5=False)
    stream.feed(QOS_0)
    came = stream.take()
    assert (came.payloads, came.acks) == ([b"hi"], [])


def test_other_packets_are_left_whole_for_paho() -> None:
    stream = PacketStream(version_5=False)
    stream.feed(PINGRESP + GOLDEN + SUBACK[:3])
    assert bytes(stream.control) == PINGRESP
    stream.feed(SUBACK[3:])
    assert bytes(stream.control) == PINGRESP + SUBACK


WHOLE = PINGRESP + GOLDEN + long(0) + long(125) + SUBACK + long(20_000) + QOS_0 + long(130)


@given(st.lists(st.integers(0, len(WHOLE)), max_size=12))
def test_however_the_stream_is_cut_the_same_packets_come(cuts: list[int]) -> None:
    stream, at = PacketStream(version_5=False), 0
    for cut in [*sorted(cuts), len(WHOLE)]:
        stream.feed(WHOLE[at:cut])
        at = max(cut, at)
    came = stream.take()
    assert [len(p) for p in came.payloads] == [2, 0, 125, 20_000, 2, 130]
    assert came.topics == [b"a/b", b"t", b"t", b"t", b"a/b", b"t"]
    assert len(came.acks) == 5
    assert bytes(stream.control) == PINGRESP + SUBACK


@given(st.lists(st.integers(0, 200_000), max_size=6))
def test_a_payload_beyond_the_limit_is_not_kept_and_the_next_packet_is_read(cuts: list[int]) -> None:
    data = GOLDEN + long(100_000, b"big") + GOLDEN
    stream, at = PacketStream(version_5=False, limit=70_000), 0
    for cut in [*sorted(min(c, len(data)) for c in cuts), len(data)]:
        stream.feed(data[at:cut])
        at = max(cut, at)
        assert len(stream._rest) <= 70_000 + 5
    came = stream.take()
    assert came.topics == [b"a/b", b"big", b"a/b"]
    assert came.payloads == [b"hi", b"100007", b"hi"]
    assert came.heads[1] & TOO_LARGE
    assert len(came.acks) == 3, "it is acknowledged, or the broker would send it for ever"


BAD: dict[str, bytes] = {
    "a topic beyond the packet": bytes.fromhex("32 04 00FF 6161".replace(" ", "")),
    "no room for a topic": bytes.fromhex("30 01 00".replace(" ", "")),
    "no room for a packet id": bytes.fromhex("32 03 000161".replace(" ", "")),
    "QoS 2, which was not asked for": bytes.fromhex("34 05 000161 000A".replace(" ", "")),
    "a length of five bytes": b"\x30\x80\x80\x80\x80\x01",
    "a packet for paho that is too large": b"\x90\xff\xff\xff\x7f",
}


@pytest.mark.parametrize("rule", BAD)
def test_what_is_no_packet_ends_the_connection(rule: str) -> None:
    with pytest.raises(StreamError):
        PacketStream(version_5=False).feed(BAD[rule])


@pytest.mark.parametrize("packet", ["32 06 000161 0001 05", "32 0A 000161 0001 8080808001"])
def test_properties_beyond_the_packet_end_the_connection(packet: str) -> None:
    with pytest.raises(StreamError):
        PacketStream(version_5=True).feed(bytes.fromhex(packet.replace(" ", "")))


@given(st.binary(max_size=200), st.booleans())
def test_garbage_is_packets_or_an_end_and_columns_stay_of_one_length(data: bytes, version_5: bool) -> None:
    stream = PacketStream(version_5=version_5)
    try:
        stream.feed(data)
    except StreamError:
        return
    came = stream.take()
    assert len(came.heads) == len(came.topics) == len(came.payloads) >= len(came.acks)
    assert len(stream.control) + len(stream._rest) <= len(data)
