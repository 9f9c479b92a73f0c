"""Frames on the wire, against bytes written by hand from the protocols' documents; and the cutting of streams.

Golden: MODBUS Application Protocol 1.1b3, sections 6.1 to 6.4 and 7 (the PDUs of its examples); MODBUS Messaging on
TCP/IP 1.0b, section 3.1.3 (MBAP); MODBUS over Serial Line 1.02, section 2.5.1 and appendix B (RTU, CRC).
"""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.frames import PDU_MAX, RTU_MAX, Answer, Framing, Mbap, Rtu, Unreadable, crc, query
from tests.edge.serial_line import checksum, rtu

# The examples of Application Protocol 1.1b3: table, address, count → request PDU, answer PDU.
GOLDEN = {
    "6.1 coils 20 to 38": ("coil", 19, 19, "01 00 13 00 13", "01 03 CD 6B 05"),
    "6.2 discrete inputs 197 to 218": ("discrete", 196, 22, "02 00 C4 00 16", "02 03 AC DB 35"),
    "6.3 holding registers 108 to 110": ("holding", 107, 3, "03 00 6B 00 03", "03 06 02 2B 00 00 00 64"),
    "6.4 input register 9": ("input", 8, 1, "04 00 08 00 01", "04 02 00 0A"),
}
# Whole RTU frames with their checksums, low byte first, as devices' manuals print them.
GOLDEN_RTU = (
    "01 03 00 00 00 0A C5 CD",
    "11 03 00 6B 00 03 76 87",
    "11 01 00 13 00 25 0E 84",
    "11 02 00 C4 00 16 BA A9",
    "11 04 00 08 00 01 B2 98",
    "02 07 41 12",
    "0A 81 02 B0 53",
)


def mbap(transaction: int, unit: int, pdu: bytes) -> bytes:
    return transaction.to_bytes(2, "big") + b"\0\0" + (len(pdu) + 1).to_bytes(2, "big") + bytes([unit]) + pdu


@pytest.mark.parametrize("example", GOLDEN)
def test_each_read_function_is_asked_and_answered_as_the_document_says(example: str) -> None:
    table, address, count, asked, answered = GOLDEN[example]
    pdu, answer = bytes.fromhex(asked), bytes.fromhex(answered)
    made = query(table, address, count, unit=17, payload_bytes=len(answer) - 2)
    assert Mbap().request(made, b"\x15\x01") == bytes.fromhex("15 01 00 00 00 06 11") + pdu
    assert Rtu().request(made, b"\x15\x01") == rtu(17, pdu)
    reply = mbap(0x1501, 17, answer)
    assert Mbap().cut(reply) == ([Answer(17, 0x1501, pdu[0], answer[1:])], b"")
    assert reply[2:].startswith(made.expected)
    assert len(reply) == made.answer_bytes
    assert Rtu().cut(rtu(17, answer)) == ([Answer(17, 0, pdu[0], answer[1:])], b"")


@pytest.mark.parametrize("frame", GOLDEN_RTU)
def test_checksums_are_those_of_the_document(frame: str) -> None:
    whole = bytes.fromhex(frame)
    assert crc(whole[:-2]) == whole[-2:] == checksum(whole[:-2])


@pytest.mark.parametrize("function", [1, 2, 3, 4])
@pytest.mark.parametrize("code", [*range(1, 12), 0, 255])
def test_exceptions_of_every_code_are_answers(function: int, code: int) -> None:
    pdu = bytes([function | 0x80, code])
    assert Mbap().cut(mbap(7, 1, pdu)) == ([Answer(1, 7, function | 0x80, bytes([code]))], b"")
    assert Rtu().cut(rtu(1, pdu)) == ([Answer(1, 0, function | 0x80, bytes([code]))], b"")


def test_only_reads_can_be_asked() -> None:
    for table in ("write", "holding_write", ""):
        with pytest.raises(KeyError):
            query(table, 0, 1, unit=1, payload_bytes=2)


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ("00 01 00 01 00 05 01 03", "expected protocol 0"),
        ("00 01 01 00 00 05 01 03", "expected protocol 0"),
        ("00 01 00 00 00 01 01 03", "expected a length of 2 to 254"),
        ("00 01 00 00 00 00 01 03", "expected a length of 2 to 254"),
        ("00 01 00 00 00 FF 01 03", "expected a length of 2 to 254"),
        ("00 01 00 00 FF FF 01 03", "expected a length of 2 to 254"),
    ],
)
def test_a_header_that_is_none_is_unreadable_and_shown(head: str, expected: str) -> None:
    with pytest.raises(Unreadable, match=expected) as caught:
        Mbap().cut(bytes.fromhex(head))
    assert f"found .. ..{head[5:].lower()}" in str(caught.value), "but for the transaction, another in each answer"


def test_the_longest_frame_of_each_framing_is_an_answer() -> None:
    pdu = bytes([3, PDU_MAX - 2]) + bytes(PDU_MAX - 2)
    assert Mbap().cut(mbap(1, 1, pdu))[0] == [Answer(1, 1, 3, pdu[1:])]
    assert Rtu().cut(rtu(1, pdu))[0] == [Answer(1, 0, 3, pdu[1:])]
    assert len(rtu(1, pdu)) == RTU_MAX


# ---- streams: whatever the pieces, the same answers

pdus = st.one_of(
    st.tuples(st.integers(1, 4), st.binary(max_size=250)).map(lambda t: bytes([t[0], len(t[1])]) + t[1]),
    st.tuples(st.integers(0x81, 0x84), st.integers(0, 255)).map(bytes),
)
frames = st.lists(st.tuples(st.integers(1, 0xFFFF), st.integers(0, 255), pdus), max_size=5)


def fed(framing: Framing, stream: bytes, cuts: list[int]) -> list[Answer]:
    """The answers that come out of a stream that arrives in these pieces; never more than a frame is kept."""
    found, rest = [], b""
    places = sorted({min(c, len(stream)) for c in cuts} | {0, len(stream)})
    for begin, end in pairwise(places):
        answers, rest = framing.cut(rest + stream[begin:end])
        found += answers
        assert len(rest) < RTU_MAX + 4
    return found


@given(frames, st.lists(st.integers(0, 1300), max_size=20))
def test_any_split_of_a_network_stream_gives_the_same_answers(
    sent: list[tuple[int, int, bytes]], cuts: list[int]
) -> None:
    stream = b"".join(mbap(*one) for one in sent)
    expected = [Answer(unit, transaction, pdu[0], pdu[1:]) for transaction, unit, pdu in sent]
    assert fed(Mbap(), stream, cuts) == expected
    assert fed(Mbap(), stream, list(range(len(stream)))) == expected


@given(frames, st.lists(st.integers(0, 1300), max_size=20))
def test_any_split_of_a_lines_stream_gives_the_same_answers(
    sent: list[tuple[int, int, bytes]], cuts: list[int]
) -> None:
    stream = b"".join(rtu(unit, pdu) for _, unit, pdu in sent)
    expected = [Answer(unit, 0, pdu[0], pdu[1:]) for _, unit, pdu in sent]
    assert fed(Rtu(), stream, cuts) == expected


@given(st.binary(max_size=600), st.integers(0, 255), pdus, st.lists(st.integers(0, 900), max_size=20))
def test_noise_before_a_lines_frame_hides_nothing(noise: bytes, unit: int, pdu: bytes, cuts: list[int]) -> None:
    assert fed(Rtu(), noise + rtu(unit, pdu), cuts)[-1:] == [Answer(unit, 0, pdu[0], pdu[1:])]


@given(st.binary(max_size=3000), st.lists(st.integers(0, 3000), max_size=20))
def test_whatever_comes_at_most_a_frame_is_kept(noise: bytes, cuts: list[int]) -> None:
    for answer in fed(Rtu(), noise, cuts):
        assert rtu(answer.unit, bytes([answer.function]) + answer.body) in noise
    with suppress(Unreadable):
        fed(Mbap(), noise, cuts)


@given(st.integers(0, 255), pdus, st.integers(0, 2100), st.integers(1, 255))
def test_a_frame_with_one_byte_changed_is_no_answer_of_a_line(unit: int, pdu: bytes, at: int, by: int) -> None:
    whole = bytearray(rtu(unit, pdu))
    whole[at % len(whole)] ^= by
    assert Answer(unit, 0, pdu[0], pdu[1:]) not in Rtu().cut(bytes(whole))[0]
