"""A lane against devices that do whatever comes: each request is told exactly once, and never another's answer."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.frames import Mbap
from edge.lane import Lane, Watch
from edge.reach import NetworkReach
from tests.edge.asking import Told, query_of
from tests.edge.device import Ask, Close, Device, Reset, data, frame
from tests.edge.swift_time import LoopClock, run_swiftly

KINDS = (
    "answer", "answer", "answer", "answer", "twice", "silence", "garbage", "half", "other unit", "other transaction",
    "transaction 0", "exception", "short", "close", "reset",
)  # fmt: skip
LIMIT_S = 600.0


@dataclass(frozen=True)
class Step:
    """A request, and what the device makes of it."""

    unit: int
    after_s: float
    """After the request before it."""
    timeout_s: float
    kind: str
    delay_s: float
    leaves: bool
    """Whether whoever asks goes away at once."""


steps = st.builds(
    Step,
    unit=st.integers(1, 3),
    after_s=st.sampled_from([0.0, 0.0, 0.05, 0.4, 2.0]),
    timeout_s=st.sampled_from([0.1, 0.5, 1.0]),
    kind=st.sampled_from(KINDS),
    delay_s=st.sampled_from([0.0, 0.01, 0.09, 0.3, 0.8, 1.5]),
    leaves=st.sampled_from([False, False, False, False, True]),
)


@dataclass
class Random:
    """Behaves as the step says whose address is asked for; a request that is asked again is answered as at first."""

    script: list[Step]
    later: list[asyncio.Task[None]] = field(default_factory=list)
    mute: set[int] = field(default_factory=set)
    """Connections on which nothing more is said."""

    async def __call__(self, ask: Ask, writer: asyncio.StreamWriter) -> None:
        step = self.script[ask.address]
        if ask.connection in self.mute:
            return
        if step.kind == "half":  # TCP loses nothing in between: whoever stops in mid-frame says nothing more
            self.mute.add(ask.connection)
        if step.kind == "close":
            raise Close
        if step.kind == "reset":
            raise Reset
        self.later.append(asyncio.create_task(self._say(step, ask, writer)))

    async def _say(self, step: Step, ask: Ask, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.0 if step.kind == "half" else step.delay_s)
        if (ask.connection not in self.mute or step.kind == "half") and not writer.is_closing():
            writer.write(spoken(step.kind, ask))


def spoken(kind: str, ask: Ask) -> bytes:
    """The bytes of an answer of a kind. The data of wrong ones is wrong as well: it must not be used."""
    wrong = data(ask, shift=5000)
    return {
        "answer": frame(ask, data(ask)),
        "twice": frame(ask, data(ask)) * 2,
        "silence": b"",
        "garbage": b"\xde\xad\xbe\xef" * 5,
        "half": frame(ask, data(ask))[:9],
        "other unit": frame(ask, wrong, unit=ask.unit + 1),
        "other transaction": frame(ask, wrong, transaction=ask.transaction + 100),
        "transaction 0": frame(ask, wrong, transaction=0),
        "exception": frame(ask, b"\x83\x02"),
        "short": frame(ask, data(ask)[:4]),
    }[kind]


async def run(script: list[Step], patience_s: float | None, pause_s: float) -> None:
    """Asks everything, and looks at what everybody was told."""
    behaviour, told = Random(script), [Told() for _ in script]
    left: dict[int, list[str]] = {}
    async with Device(behaviour) as device:
        lane = Lane(
            NetworkReach((("127.0.0.1", device.port),)),
            Mbap(),
            LoopClock(),
            Watch(),
            pause_s=pause_s,
            settle_s=pause_s,
            patience_s=lambda: patience_s,
        )
        for address, step in enumerate(script):
            await asyncio.sleep(step.after_s)
            lane.ask(told[address], query_of(unit=step.unit, address=address), step.timeout_s)
            if step.leaves:
                lane.leave(told[address])
                left[address] = list(told[address].words)
        async with asyncio.timeout(LIMIT_S):
            for one, step in zip(told, script, strict=True):
                if not step.leaves:
                    await one.over.wait()
        await asyncio.sleep(10)
        assert not lane.waits
        assert not lane._waiting
        assert not lane.watch.busy
        assert lane.watch._timer is None
        lane.close()
        for task in behaviour.later:
            task.cancel()
        await asyncio.gather(*behaviour.later, return_exceptions=True)
    for address, (one, step) in enumerate(zip(told, script, strict=True)):
        if step.leaves:
            assert one.words == left[address], "nothing after it left"
            continue
        assert one.endings == 1, "told exactly once"
        assert one.words[-1] in ("answered", "failed"), "and nothing after it"
        if one.payload is not None:
            assert step.kind in ("answer", "twice")
            assert one.payload == address.to_bytes(2, "big") + (address + 1).to_bytes(2, "big")
        if one.failure is not None:
            assert one.failure.answered == (one.failure.outcome == "exception")
            assert one.failure.why


@settings(max_examples=80, deadline=None)
@given(
    st.lists(steps, min_size=1, max_size=14), st.sampled_from([None, 0.06, 0.2]), st.sampled_from([0.0, 0.0, 0.02, 0.3])
)
def test_whatever_a_device_does_each_request_is_told_exactly_once_and_never_anothers_answer(
    script: list[Step], patience_s: float | None, pause_s: float
) -> None:
    run_swiftly(lambda: run(script, patience_s, pause_s))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 3), min_size=1, max_size=30), st.sampled_from([None, 0.06]))
def test_a_device_that_answers_all_is_asked_each_thing_once_in_the_order_of_asking(
    units: list[int], patience_s: float | None
) -> None:
    async def ask_all() -> None:
        async with Device() as device:
            lane = Lane(
                NetworkReach((("127.0.0.1", device.port),)), Mbap(), LoopClock(), Watch(), patience_s=lambda: patience_s
            )
            told = [Told() for _ in units]
            for address, (one, unit) in enumerate(zip(told, units, strict=True)):
                lane.ask(one, query_of(unit=unit, address=address), 1.0)
            for one in told:
                await one.over.wait()
            lane.close()
            assert [(a.unit, a.address) for a in device.asked] == [(u, n) for n, u in enumerate(units)]
            assert all(one.payload is not None for one in told)

    run_swiftly(ask_all)
