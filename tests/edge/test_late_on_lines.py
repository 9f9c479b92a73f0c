"""Without transaction numbers: an answer to an earlier request is not given to a later one, as far as lines let that be known.

Every request reads another address, and registers hold their addresses, so what is given to the wrong request shows. On a
clock that jumps: the times are those of the policy alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.bus import Bus, make_bus, spare
from edge.lane import Watch
from telemetry.plant import Endpoint, parse_address
from telemetry.profile import ModbusDefaults
from tests.edge.asking import Told, query_of
from tests.edge.serial_line import REQUEST_BYTES, Ask, answer, checksum
from tests.edge.swift_time import LoopClock, run_swiftly

TIMEOUT_S = 0.8
LIMIT_S = 600.0

Says = Sequence[tuple[float, bytes]]
"""What is said to a request: bytes, each so long after it."""
Behaviour = Callable[[int, Ask], Says | None]
"""Of the n-th request, from 0; None: the connection is lost, and with it nothing of what is still to be said."""


@dataclass
class SerialServer:
    """A line behind TCP. It passes on what the line says to whoever is connected, also to a request of an earlier one."""

    behaviour: Behaviour
    asked: list[Ask] = field(default_factory=list)
    port: int = 0
    _writer: asyncio.StreamWriter | None = None
    _later: list[asyncio.Task[None]] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        try:
            while True:
                frame = await reader.readexactly(REQUEST_BYTES)
                assert frame[6:] == checksum(frame[:6])
                words = [int.from_bytes(frame[i : i + 2], "big") for i in (2, 4)]
                one = Ask(frame[0], frame[1], words[0], words[1], asyncio.get_running_loop().time())
                self.asked.append(one)
                said = self.behaviour(len(self.asked) - 1, one)
                if said is None:
                    said = [(0.5, answer(one))]
                    writer.transport.abort()
                self._later += [asyncio.create_task(self._say(*each)) for each in said]
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _say(self, after_s: float, data: bytes) -> None:
        if after_s:
            await asyncio.sleep(after_s)
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(data)

    def cut_off(self) -> None:
        """The connection is lost; what the line says later goes to the next one."""
        if self._writer is not None:
            self._writer.transport.abort()

    async def close(self) -> None:
        for task in self._later:
            task.cancel()
        await asyncio.gather(*self._later, return_exceptions=True)


@asynccontextmanager
async def line(behaviour: Behaviour) -> AsyncIterator[tuple[SerialServer, Bus]]:
    """A serial server, and the bus to it as the edge makes it."""
    made = SerialServer(behaviour)
    listening = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = listening.sockets[0].getsockname()[1]
    address = parse_address(f"modbus+rtuovertcp://127.0.0.1:{made.port}/1")
    bus = make_bus(address, Endpoint(), LoopClock(), Watch(), file="test")
    spare(bus, ModbusDefaults())
    try:
        yield made, bus
    finally:
        bus.close()
        await made.close()
        listening.close()
        await listening.wait_closed()


def payload(address: int, count: int = 2) -> bytes:
    return b"".join((address + i).to_bytes(2, "big") for i in range(count))


class Chain(Told):
    """Asks for its next address in the moment in which it is told of the one before, as a cycle does."""

    def __init__(self, bus: Bus, addresses: Sequence[int], *, unit: int = 1) -> None:
        super().__init__()
        self.bus, self.unit, self.left, self.got = bus, unit, list(addresses), list[tuple[int, bytes | None]]()
        self.ask()

    def ask(self) -> None:
        self.bus.main.ask(self, query_of(unit=self.unit, address=self.left[0]), TIMEOUT_S)

    def _over(self, word: str) -> None:
        self.got.append((self.left.pop(0), self.payload))
        self.payload = None
        if self.left:
            self.ask()
        else:
            super()._over(word)


def read(behaviour: Behaviour, addresses: Sequence[int]) -> list[tuple[int, bytes | None]]:
    """What came of reads of one unit, one right after the other."""

    async def main() -> list[tuple[int, bytes | None]]:
        async with line(behaviour) as (_, bus):
            chain = Chain(bus, addresses)
            async with asyncio.timeout(LIMIT_S):
                await chain.over.wait()
            return chain.got

    return run_swiftly(main)


@pytest.mark.parametrize("gap_s", [0.0, 0.000_5, 0.001])
@pytest.mark.parametrize("cut", [0, 1, 4, 8])
def test_an_answer_that_comes_twice_in_two_pieces_is_not_taken_for_the_next_request(gap_s: float, cut: int) -> None:
    """The second one before a line's silence is over, which is when the next request leaves; cut anywhere."""

    def twice(number: int, ask: Ask) -> Says:
        said = answer(ask)
        return [(0.0, said + said[:cut]), (gap_s, said[cut:])] if number == 0 else [(0.01, said)]

    assert read(twice, [10, 50]) == [(10, payload(10)), (50, payload(50))]


def test_what_a_line_still_says_after_its_connection_was_lost_is_not_taken_for_the_next_request() -> None:
    def lost(number: int, ask: Ask) -> Says | None:
        return None if number == 0 else [(0.6, answer(ask))]

    assert read(lost, [10, 50]) == [(10, None), (50, payload(50))]


def test_a_unit_that_was_waited_for_only_shortly_is_left_alone_as_long_as_any_other() -> None:
    """A probe may be given up after a moment: its answer can come as late as that of every other request."""

    async def main() -> None:
        def late(number: int, ask: Ask) -> Says:
            return [(1.1 if number == 1 else 0.5, answer(ask))]

        async with line(late) as (server, bus):
            first, probe, other, after = Told(), Told(), Told(), Told()
            for told, address, timeout_s in ((first, 10, TIMEOUT_S), (probe, 20, 0.06), (after, 30, TIMEOUT_S)):
                bus.main.ask(told, query_of(address=address), timeout_s)
                if told is after:
                    bus.main.ask(other, query_of(unit=2, address=40), TIMEOUT_S)
                async with asyncio.timeout(LIMIT_S):
                    await told.over.wait()
            assert first.payload == payload(10)
            assert probe.failure is not None
            assert after.payload == payload(30)
            assert other.payload == payload(40), "others are read meanwhile"
            assert [ask.address for ask in server.asked] == [10, 20, 40, 30]

    run_swiftly(main)


@dataclass(frozen=True)
class Step:
    """A request, and what the line makes of it."""

    unit: int
    count: int
    timeout_s: float
    after_s: float
    """How long after it its answer comes; −1: never."""
    copies: int
    cut: int
    """Where the answer and its copies, end to end, are cut into two pieces; the second comes a little later."""
    noise: bytes
    lost_after_s: float
    """When the connection is lost; 0: not."""


steps = st.builds(
    Step,
    unit=st.integers(1, 3),
    count=st.sampled_from([2, 2, 2, 1]),
    timeout_s=st.sampled_from([0.06, 0.3, TIMEOUT_S, TIMEOUT_S]),
    after_s=st.sampled_from([0.0, 0.0, 0.01, 0.29, 0.5, 0.79, 0.9, 1.2, 1.5, 1.59, -1.0]),
    copies=st.sampled_from([1, 1, 1, 2, 3]),
    cut=st.integers(0, 27),
    noise=st.sampled_from([b"", b"", b"\xff", b"\x01\x03\x04", b"\x01\x83"]),
    lost_after_s=st.sampled_from([0.0, 0.0, 0.0, 0.0, 0.005, 0.4]),
)


async def whole(script: list[Step]) -> None:
    """Asks everything, each unit's requests one after another, and looks at what was given to whom."""
    servers: list[SerialServer] = []

    def drawn(number: int, ask: Ask) -> Says:
        step = script[(ask.address - 10) // 10]
        if step.lost_after_s:
            asyncio.get_running_loop().call_later(step.lost_after_s, servers[0].cut_off)
        if step.after_s < 0:
            return []
        said = step.noise + answer(ask) * step.copies
        return [(step.after_s, said[: step.cut]), (step.after_s + 0.001, said[step.cut :])]

    async with line(drawn) as (server, bus):
        servers.append(server)
        bus.main._longest_s = TIMEOUT_S
        told = [Told() for _ in script]

        async def ask_all(unit: int) -> None:
            for number, step in enumerate(script):
                if step.unit == unit:
                    asked = query_of(unit=unit, address=10 + 10 * number, n=step.count)
                    bus.main.ask(told[number], asked, step.timeout_s)
                    await told[number].over.wait()

        async with asyncio.timeout(LIMIT_S):
            await asyncio.gather(*(ask_all(unit) for unit in (1, 2, 3)))
    for number, (one, step) in enumerate(zip(told, script, strict=True)):
        assert one.endings == 1
        if one.payload is not None:
            assert one.payload == payload(10 + 10 * number, step.count), f"request {number} was given another's answer"
        elif not any(other.lost_after_s for other in script) and not step.noise:
            assert step.after_s < 0 or step.after_s + 0.001 >= step.timeout_s, f"request {number} has no answer"


@settings(max_examples=150, deadline=None)
@given(st.lists(steps, min_size=2, max_size=10))
def test_answers_late_by_less_than_two_time_outs_doubled_cut_and_in_noise_are_given_to_their_own_request_or_nobody(
    script: list[Step],
) -> None:
    run_swiftly(lambda: whole(script))
