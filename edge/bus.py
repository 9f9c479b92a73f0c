"""One Modbus endpoint: one connection, shared by its units as one queue with fair turns (a turn is one request).

Built on pymodbus' asynchronous client, with a decoder that keeps an answer's bytes as they came. Only the four read
functions are imported, and what is about to leave is checked to be one of them.

Invariants: an answer is used only if its unit, function, transaction and length are those of the request; after
anything unreadable the connection is closed, so that no late byte can be taken for a later answer; every wait has a
deadline.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Final

from pymodbus.client import AsyncModbusTcpClient
from pymodbus.exceptions import ConnectionException, ModbusException
from pymodbus.framer import FramerType
from pymodbus.pdu import DecodePDU, ModbusPDU
from pymodbus.pdu.bit_message import ReadCoilsRequest, ReadDiscreteInputsRequest
from pymodbus.pdu.register_message import ReadHoldingRegistersRequest, ReadInputRegistersRequest

from edge import metrics
from edge.plan import Request
from telemetry.plant import Address, Endpoint
from telemetry.quality import BAD_COMMS, BAD_CONFIG, BAD_DEVICE

READS: Final[dict[str, type[ModbusPDU]]] = {
    "coil": ReadCoilsRequest,
    "discrete": ReadDiscreteInputsRequest,
    "holding": ReadHoldingRegistersRequest,
    "input": ReadInputRegistersRequest,
}
READ_FUNCTIONS: Final = frozenset({1, 2, 3, 4})
RECONNECT_S: Final = 0.5
RECONNECT_MAX_S: Final = 10.0
BUFFER_BYTES: Final = 1 << 17
"""Far above any frame: what is too long is then seen and refused, where pymodbus would drop it unseen."""
SILENT_IN_A_ROW: Final = 3
"""After so many time-outs in a row with no answer between, over all units, the connection itself is doubted."""

# Modbus Application Protocol 1.1b3, section 7: exception code → (its meaning, quality of the points asked for).
EXCEPTIONS: Final[dict[int, tuple[str, int]]] = {
    1: ("illegal function", BAD_CONFIG),
    2: ("illegal data address", BAD_CONFIG),
    3: ("illegal data value", BAD_CONFIG),
    4: ("server device failure", BAD_DEVICE),
    5: ("acknowledge", BAD_DEVICE),
    6: ("server device busy", BAD_DEVICE),
    8: ("memory parity error", BAD_DEVICE),
    10: ("gateway path unavailable", BAD_COMMS),
    11: ("gateway target failed to respond", BAD_COMMS),
}


class ReadFailed(Exception):
    """A request without usable data. `outcome` is a fixed word for metrics; `answered`: the device itself answered."""

    def __init__(self, outcome: str, why: str, *, quality: int = BAD_COMMS, answered: bool = False) -> None:
        self.outcome, self.why, self.quality, self.answered = outcome, why, quality, answered
        super().__init__(why)


class Answer(ModbusPDU):
    """An answer with its bytes as they came, after the function code."""

    def __init__(self, function_code: int, payload: bytes) -> None:
        super().__init__()
        self.function_code = function_code
        self.payload = payload


class _Decoder(DecodePDU):
    """Keeps bytes instead of making Python numbers; judges nothing, so that no answer can break the connection's loop."""

    def decode(self, frame: bytes) -> ModbusPDU | None:
        return Answer(frame[0], frame[1:])


def read_request(request: Request, unit: int) -> ModbusPDU:
    """The PDU that asks for `request`."""
    return READS[request.table](address=request.address, count=request.count, dev_id=unit)


@dataclass(slots=True)
class Bus:
    """The connection to one endpoint."""

    address: Address
    endpoint: Endpoint
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _client: AsyncModbusTcpClient | None = None
    _asking: bool = False
    _received: bytes = b""
    _silent: int = 0
    _retry_s: float = 0.0
    _wait_s: float = 0.0
    _why: str = ""
    _free_s: float = 0.0

    async def ask(self, pdu: ModbusPDU, payload_bytes: int, timeout_s: float) -> bytes:
        """The data bytes of the answer to a request, in its turn. Raises ReadFailed."""
        async with self._turn:
            try:
                client = await self._connected(timeout_s)
                payload = await self._ask(client, pdu, payload_bytes, timeout_s)
            except ReadFailed as failure:
                metrics.REQUESTS.labels(failure.outcome).inc()
                raise
            self._silent = 0
            metrics.REQUESTS.labels("ok").inc()
            return payload

    def close(self) -> None:
        """Closes the connection; the next request opens it again."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    async def _ask(self, client: AsyncModbusTcpClient, pdu: ModbusPDU, payload_bytes: int, timeout_s: float) -> bytes:
        await self._pause()
        client.ctx.comm_params.timeout_connect = timeout_s
        self._received, self._asking = b"", True
        try:
            answer = await client.execute(False, pdu)
        except ConnectionException as error:
            self.close()
            raise ReadFailed("reset", f"connection lost: {self._why or error}") from error
        except ModbusException as error:
            raise self._unanswered(timeout_s) from error
        finally:
            self._asking = False
            self._free_s = asyncio.get_running_loop().time() + (self.endpoint.pause_between_requests_s or 0.0)
        try:
            return _checked(pdu, answer, payload_bytes, transactions=self.address.scheme == "modbus+tcp")
        except ReadFailed as failure:
            if failure.answered:
                self._silent = 0
            else:
                self.close()
            raise

    def _unanswered(self, timeout_s: float) -> ReadFailed:
        """Nothing usable came. Decides whether the connection can be kept."""
        if self._received:
            self.close()
            shown = self._received[:16].hex(" ")
            return ReadFailed("unusable", f"unusable answer: {len(self._received)} bytes, {shown}…")
        self._silent += 1
        if self._silent >= SILENT_IN_A_ROW or self.address.scheme != "modbus+tcp":
            self._silent = 0
            self.close()
        return ReadFailed("timeout", f"no answer within {timeout_s:g} s")

    async def _pause(self) -> None:
        if self.endpoint.pause_between_requests_s:
            await asyncio.sleep(max(self._free_s - asyncio.get_running_loop().time(), 0.0))

    async def _connected(self, timeout_s: float) -> AsyncModbusTcpClient:
        if self._client is not None and self._client.connected:
            return self._client
        now = asyncio.get_running_loop().time()
        if now < self._retry_s:
            raise ReadFailed("refused", f"not connected: {self._why}")
        self.close()
        client = self._make(timeout_s)
        if not await client.connect():
            self._wait_s = min(self._wait_s * 2 or RECONNECT_S, RECONNECT_MAX_S)
            self._retry_s = asyncio.get_running_loop().time() + self._wait_s
            self._why = f"{self.address.endpoint} refused or did not answer within {timeout_s:g} s"
            raise ReadFailed("refused", f"not connected: {self._why}")
        self._client, self._wait_s, self._retry_s, self._why = client, 0.0, 0.0, ""
        if self.endpoint.pause_after_connect_s:
            await asyncio.sleep(self.endpoint.pause_after_connect_s)
        return client

    def _make(self, timeout_s: float) -> AsyncModbusTcpClient:
        logging.getLogger("pymodbus").setLevel(logging.CRITICAL + 1)  # Failures are told by us, once each.
        client = AsyncModbusTcpClient(
            self.address.host,
            port=self.address.port,
            framer=FramerType.SOCKET if self.address.scheme == "modbus+tcp" else FramerType.RTU,
            timeout=timeout_s,
            retries=0,
            reconnect_delay=0,
            trace_packet=self._packet,
            trace_connect=self._connection,
        )
        client.set_max_no_responses(1 << 62)
        client.ctx.framer.decoder = _Decoder(False)
        client.ctx.max_buffer_size = BUFFER_BYTES
        return client

    def _packet(self, sending: bool, data: bytes) -> bytes:
        if not sending:
            self._received = data
        elif data[7 if self.address.scheme == "modbus+tcp" else 1] not in READ_FUNCTIONS:
            raise ValueError("nothing writes to equipment: expected a read function")
        return data

    def _connection(self, connected: bool) -> None:
        """Called by pymodbus. A request in flight on a connection that is lost fails now, not at its time-out."""
        if connected or not self._asking or self._client is None:
            return
        self._why = "closed by the device"
        waiting = self._client.ctx.response_future
        if not waiting.done():
            waiting.set_exception(ConnectionException(self._why))


def _checked(request: ModbusPDU, answer: ModbusPDU, payload_bytes: int, *, transactions: bool) -> bytes:
    """The data of an answer that is the request's own. Raises ReadFailed."""
    if answer.dev_id != request.dev_id:
        raise ReadFailed("unit", f"answer of unit {answer.dev_id}, expected {request.dev_id}")
    if transactions and answer.transaction_id != request.transaction_id:
        raise ReadFailed("transaction", f"answer to transaction {answer.transaction_id}, not to this one")
    payload = answer.payload if isinstance(answer, Answer) else b""
    if answer.function_code == request.function_code | 0x80 and payload:
        meaning, quality = EXCEPTIONS.get(payload[0], ("unknown exception", BAD_DEVICE))
        # A gateway that reports its unit silent is no answer of the unit, but the connection is sound.
        raise ReadFailed(
            "exception", f"exception {payload[0]}, {meaning}", quality=quality, answered=quality != BAD_COMMS
        )
    if answer.function_code != request.function_code:
        raise ReadFailed("function", f"answer of function {answer.function_code}, expected {request.function_code}")
    if len(payload) != 1 + payload_bytes or payload[0] != payload_bytes:
        raise ReadFailed("length", f"answer with {max(len(payload) - 1, 0)} bytes of data, expected {payload_bytes}")
    return payload[1:]
