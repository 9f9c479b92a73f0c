"""A device in memory that refuses what it does not have, asked by the real driver without a wire."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import cast

from edge.asking import Asker, Failure, exception_failure
from edge.bus import Bus
from edge.driver import Outcome
from edge.frames import Query
from edge.modbus import ModbusDevice, make_device
from telemetry.plant import Endpoint
from telemetry.profile import Profile
from tests.edge.build import NOW_US, make_equipment

SILENCE = Failure("timeout", "no answer within 1 s")


@dataclass
class FakeClock:
    """Stands still unless it is moved."""

    s: float = 1000.0
    speed: float = 1.0

    def now_us(self) -> int:
        return NOW_US + int(self.s * 1e6)

    def monotonic_s(self) -> float:
        return self.s

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("nobody waits here")


@dataclass
class _Framing:
    transactions: bool = True


@dataclass
class _Main:
    framing: _Framing = field(default_factory=_Framing)


@dataclass
class Memory:
    """The device, in place of an edge.bus.Bus: registers hold their addresses; some are missing."""

    missing: set[int] = field(default_factory=set)
    most: int = 125
    """Longer requests are refused (exception 3)."""
    most_answered: int = 125
    """Longer requests are not answered."""
    silent: bool = False
    asked: list[tuple[int, int]] = field(default_factory=list)
    """(address, count) of each request."""
    shared: bool = False
    main: _Main = field(default_factory=_Main)
    _queue: deque[tuple[Asker, Query]] = field(default_factory=deque)

    def ask(self, asker: Asker, query: Query, timeout_s: float, *, probe: bool) -> None:
        self._queue.append((asker, query))

    def leave(self, asker: Asker) -> None:
        self._queue = deque(entry for entry in self._queue if entry[0] is not asker)

    def work(self, steps: int = 100_000) -> None:
        """Answers what is asked, as far as so many requests."""
        while self._queue and steps:
            steps -= 1
            asker, query = self._queue.popleft()
            # MBAP without its transaction: protocol, length, unit, then function, address, count.
            address, count = int.from_bytes(query.mbap[6:8], "big"), int.from_bytes(query.mbap[8:10], "big")
            self.asked.append((address, count))
            asker.sent()
            if self.silent or count > self.most_answered:
                asker.failed(SILENCE, NOW_US)
            elif count > self.most:
                asker.failed(exception_failure(3), NOW_US)
            elif self.missing & set(range(address, address + count)):
                asker.failed(exception_failure(2), NOW_US)
            else:
                body = b"".join((a % 65536).to_bytes(2, "big") for a in range(address, address + count))
                asker.answered(body, NOW_US, 0.001)

    def accuse(self, unit: int, outcome: str = "") -> None: ...

    def may_probe(self) -> bool:
        return True

    def overdue(self, unit: int) -> None: ...

    def note(self, unit: int, took_s: float) -> None: ...


@dataclass
class Reader:
    """An equipment and its device in memory."""

    memory: Memory
    device: ModbusDevice
    clock: FakeClock
    state: dict[str, str]

    def cycle(self, group: int = 0, *, probe: bool = False) -> Outcome:
        """A cycle. `memory.asked` has its requests alone."""
        over: list[Outcome] = []
        self.memory.asked.clear()
        assert self.device.begin(group, over.append, probe=probe)
        self.memory.work()
        [outcome] = over
        return outcome

    def settle(self, most: int) -> int:
        """Cycles until one teaches nothing; how many taught something. Never more than `most`."""
        for taught in range(most + 1):
            if not self.cycle().received.state:
                return taught
        raise AssertionError(f"still learning after {most} cycles")


def reader_of(profile: Profile, memory: Memory, *, state: dict[str, str] | None = None, **endpoint: int) -> Reader:
    """Reads a profile from a device in memory."""
    clock, kept = FakeClock(), {} if state is None else state
    equipment = make_equipment("e", profile, "modbus+tcp://127.0.0.1:502/1")
    device = make_device(equipment, cast(Bus, memory), clock, Endpoint.model_validate(endpoint), state=kept)
    return Reader(memory, device, clock, kept)
