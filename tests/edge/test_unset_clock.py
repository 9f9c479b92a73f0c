"""The whole edge on a gateway that boots in 1970: what it reads reaches the log, and nothing there says 1970."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge import service
from edge.stamps import BUILT_US, SET_US, Stamps, floor_of, machine_stamps
from telemetry.clock import Clock, SystemClock
from telemetry.quality import GOOD, UNCERTAIN_CLOCK
from tests.edge.device import Ask, Device, data, frame
from tests.edge.running import plant_of, read_log, start
from tests.fixtures.waiting import until

YEARS_US = 50 * 365 * 86_400 * 1_000_000


@dataclass
class NeverSet:
    """A machine's clock that starts in 1970, until it is set."""

    behind_us: int
    speed: float = 1.0

    def monotonic_s(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def now_us(self) -> int:
        return time.time_ns() // 1000 - self.behind_us


def unset(monkeypatch: pytest.MonkeyPatch) -> NeverSet:
    clock = NeverSet(time.time_ns() // 1000 - 10_000_000)

    def stamps(_: Clock, *, floor_us: int, hold_s: float) -> Stamps:
        return machine_stamps(clock, floor_us=floor_us, hold_s=hold_s)

    monkeypatch.setattr(service, "machine_stamps", stamps)
    return clock


async def test_what_it_reads_is_corrected_when_the_clock_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, asked = unset(monkeypatch), 0

    async def behave(ask: Ask, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        writer.write(frame(ask, data(ask)))

    began_us = time.time_ns() // 1000
    async with Device(behave) as device:
        settings = plant_of(tmp_path, f"{device.url}/1")
        edge = start(settings)
        await until(lambda: asked > 5)
        set_us = time.time_ns() // 1000
        clock.behind_us = 0
        async with asyncio.timeout(20):
            while not (seen := await read_log(settings)).heartbeats or max(seen.samples().time_us) <= set_us:
                pass
        await edge.end()
    seen = await read_log(settings)
    times = seen.samples().time_us
    assert min(times) >= began_us
    assert sum(times < set_us) >= 5, "what was read before the clock was set is there, at its true time"
    assert max(times) <= time.time_ns() // 1000
    assert set(seen.samples().quality.tolist()) == {GOOD}
    assert min(b.time_us for b in seen.heartbeats) >= set_us
    assert min(r.time_us for r in seen.registries) >= set_us
    assert all(began_us <= e.time_us for e in seen.events)
    seen.assert_no_holes()
    seen.assert_ledger_is_the_rows()


async def test_an_alarm_does_not_wait_for_a_clock_that_nobody_sets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unset(monkeypatch)

    async def behave(ask: Ask, writer: asyncio.StreamWriter) -> None:
        writer.write(frame(ask, data(ask)))

    async with Device(behave) as device:
        settings = plant_of(tmp_path, f"{device.url}/1").model_copy(update={"unset_clock_hold_s": 0.3})
        floor_us = floor_of(tmp_path / "plant.yaml")
        edge = start(settings)
        async with asyncio.timeout(20):
            while not (seen := await read_log(settings)).heartbeats or not seen.events or not len(seen.samples()):
                pass
        await edge.end()
    seen = await read_log(settings)
    assert min(seen.samples().time_us) >= floor_us
    assert set(seen.samples().quality.tolist()) == {UNCERTAIN_CLOCK}
    assert {e.attributes["clock"] for e in seen.events} == {"estimated"}
    said = [b.time_us for b in seen.heartbeats]
    assert min(said) >= floor_us
    assert said == sorted(said)
    assert min(e.time_us for e in seen.events) >= floor_us
    seen.assert_no_holes()
    seen.assert_ledger_is_the_rows()


def test_no_floor_is_older_than_the_code_and_the_newest_file_counts(tmp_path: Path) -> None:
    assert floor_of(tmp_path / "absent") == BUILT_US > SET_US
    (tmp_path / "plant.yaml").write_text("x")
    assert floor_of(tmp_path / "absent", tmp_path / "plant.yaml") >= BUILT_US


def test_this_machines_stamps_are_wall_time_and_count_from_its_boot() -> None:
    stamps = machine_stamps(SystemClock())
    assert abs(stamps.now_us() - time.time_ns() // 1000) < 1_000_000
    assert 0 < stamps.since_boot_us() < YEARS_US
    assert len(stamps.boot) >= 32
    assert stamps.boot == machine_stamps(SystemClock()).boot
    offset = stamps.offset()
    assert offset is not None
    assert offset.exact
    assert abs((stamps.on_log(stamps.since_boot_us()) or 0) - stamps.now_us()) < 1_000_000
    assert stamps.on_log(SET_US) == SET_US
