"""Modbus on the wire: requests as bytes, bytes as answers. Pure; two framings behind one seam.

Only the four read functions can be asked: `query` knows no other. Requests are made by pymodbus, once for each request of
a plan; answers are cut out of the stream here, because what comes back is judged before anything is made of it, and
one answer may cost a few µs, not thirty (docs/adr/0011).

Invariant: what is returned as an answer was whole, and by its own length and checksum sound; anything else raises, or
waits for more bytes, of which there can never be more than a frame holds.

Sources: MODBUS Messaging on TCP/IP 1.0b (MBAP), MODBUS over Serial Line 1.02 (RTU), Application Protocol 1.1b3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from pymodbus.framer import FramerRTU
from pymodbus.pdu import ModbusPDU
from pymodbus.pdu.bit_message import ReadCoilsRequest, ReadDiscreteInputsRequest
from pymodbus.pdu.register_message import ReadHoldingRegistersRequest, ReadInputRegistersRequest

READS: Final[dict[str, type[ModbusPDU]]] = {
    "coil": ReadCoilsRequest,
    "discrete": ReadDiscreteInputsRequest,
    "holding": ReadHoldingRegistersRequest,
    "input": ReadInputRegistersRequest,
}
READ_FUNCTIONS: Final = frozenset({1, 2, 3, 4})
MBAP_BYTES: Final = 7
PDU_MAX: Final = 253
RTU_MIN: Final = 5
RTU_MAX: Final = 256
EXCEPTION: Final = 0x80


class Unreadable(Exception):
    """Bytes that are no Modbus. The text says what was expected and what was found."""


class Answer(NamedTuple):
    """An answer as it came."""

    unit: int
    transaction: int
    """0 where the framing has none."""
    function: int
    body: bytes
    """What follows the function code."""


@dataclass(frozen=True, slots=True)
class Query:
    """A request, ready to be sent under any transaction number."""

    unit: int
    function: int
    payload_bytes: int
    """Bytes of data that its answer holds."""
    mbap: bytes
    """All but the transaction number."""
    rtu: bytes
    expected: bytes
    """How a sound answer in MBAP begins, after the transaction number: protocol, length, unit, function, bytes."""
    answer_bytes: int
    """Length of that answer."""


def query(table: str, address: int, count: int, *, unit: int, payload_bytes: int) -> Query:
    """The request that reads `count` registers or bits of a table."""
    asked = READS[table](address=address, count=count, dev_id=unit)
    pdu = bytes([asked.function_code]) + asked.encode()
    head = (len(pdu) + 1).to_bytes(2, "big")
    begins = bytes([unit, pdu[0], payload_bytes])
    return Query(
        unit=unit,
        function=pdu[0],
        payload_bytes=payload_bytes,
        mbap=b"\0\0" + head + bytes([unit]) + pdu,
        rtu=_rtu(unit, pdu),
        expected=b"\0\0" + (len(begins) + payload_bytes).to_bytes(2, "big") + begins,
        answer_bytes=MBAP_BYTES + 2 + payload_bytes,
    )


def _rtu(unit: int, pdu: bytes) -> bytes:
    frame = bytes([unit]) + pdu
    return frame + crc(frame)


def crc(frame: bytes) -> bytes:
    """The checksum of an RTU frame, as it is sent."""
    if len(FramerRTU.crc16_table) < 256:  # pymodbus fills it when a framer is made
        FramerRTU.crc16_table = FramerRTU.generate_crc16_table()
    return FramerRTU.compute_CRC(frame).to_bytes(2, "big")


class Framing(Protocol):
    """How requests and answers lie in a stream of bytes."""

    transactions: bool
    """Whether an answer says which request it answers."""

    def request(self, asked: Query, transaction: bytes) -> bytes:
        """The bytes of a request."""
        ...

    def cut(self, received: bytes) -> tuple[list[Answer], bytes]:
        """The answers at the beginning of what was received, and the rest. Raises Unreadable."""
        ...

    def shown(self, received: bytes) -> str:
        """The beginning of what was received, for people; the same for the same answer to every request."""
        ...


class Mbap:
    """MODBUS Messaging on TCP/IP, on TLS too."""

    transactions = True

    def request(self, asked: Query, transaction: bytes) -> bytes:
        """See Framing."""
        return transaction + asked.mbap

    def cut(self, received: bytes) -> tuple[list[Answer], bytes]:
        """See Framing."""
        answers: list[Answer] = []
        at = 0
        while len(received) - at > MBAP_BYTES:
            if received[at + 2] or received[at + 3]:
                raise Unreadable(f"unusable answer: expected protocol 0, found {self.shown(received[at:])}")
            length = received[at + 4] << 8 | received[at + 5]
            if not 2 <= length <= PDU_MAX + 1:
                expected = f"a length of 2 to {PDU_MAX + 1}"
                raise Unreadable(f"unusable answer: expected {expected}, found {self.shown(received[at:])}")
            end = at + 6 + length
            if end > len(received):
                break
            transaction = received[at] << 8 | received[at + 1]
            answers.append(Answer(received[at + 6], transaction, received[at + 7], received[at + 8 : end]))
            at = end
        return answers, received[at:]

    def shown(self, received: bytes) -> str:
        """See Framing. The transaction, another in each answer, is left out."""
        return f".. .. {received[2:16].hex(' ')}…"


class Rtu:
    """MODBUS over serial line, RTU mode; on a serial line or through a serial server.

    A line has noise: a frame whose checksum is right is taken wherever it begins, and what can begin none is dropped.
    """

    transactions = False

    def request(self, asked: Query, transaction: bytes) -> bytes:
        """See Framing."""
        return asked.rtu

    def cut(self, received: bytes) -> tuple[list[Answer], bytes]:
        """See Framing. Noise is no error here: it is dropped."""
        answers: list[Answer] = []
        at = first = 0
        while at <= len(received) - RTU_MIN:
            end = at + _rtu_length(received, at)
            if at < end <= len(received) and crc(received[at : end - 2]) == received[end - 2 : end]:
                answers.append(Answer(received[at], 0, received[at + 1], received[at + 2 : end - 2]))
                at = first = end
            else:
                at += 1
        while first < len(received) and not _may_begin(received, first):
            first += 1
        return answers, received[first:]

    def shown(self, received: bytes) -> str:
        """See Framing."""
        return received[:16].hex(" ") + "…"


def _rtu_length(received: bytes, at: int) -> int:
    """Bytes of the frame that begins at `at`; 0 where none can."""
    function = received[at + 1]
    if function in READ_FUNCTIONS:
        length = 5 + received[at + 2]
        return length if length <= RTU_MAX else 0
    return 5 if function & EXCEPTION and function & ~EXCEPTION in READ_FUNCTIONS else 0


def _may_begin(received: bytes, at: int) -> bool:
    """Whether the bytes from `at` on may be the beginning of a frame that is not whole yet."""
    left = len(received) - at
    if left < 3:
        return left < 2 or received[at + 1] & ~EXCEPTION in READ_FUNCTIONS
    return left < _rtu_length(received, at)
