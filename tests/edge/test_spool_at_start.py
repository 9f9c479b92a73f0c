"""A spool that the disk does not let open: the edge says which file, waits, and begins when it can."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.service import spool_path
from edge.stamps import machine_stamps
from telemetry.clock import SystemClock
from telemetry.messages import Kind
from telemetry.settings import Settings
from tests.edge.running import plant_of, read_log, start
from tests.edge.spools import batch_of, journal, open_at
from tests.edge.test_spool_salvage import root_of, spoil
from tests.fixtures.disk import fill, small_disk
from tests.fixtures.waiting import until

NOBODY = "modbus+tcp://127.0.0.1:1/1"


@pytest.mark.parametrize("told_to_stop", [False, True])
async def test_a_spool_that_cannot_be_opened_is_named_and_waited_for(tmp_path: Path, told_to_stop: bool) -> None:
    settings = plant_of(tmp_path, NOBODY)
    in_its_way = spool_path(settings)
    in_its_way.mkdir(parents=True)
    edge = start(settings)
    await until(lambda: "spool" in edge.health.waiting_for)
    assert str(in_its_way) in edge.health.waiting_for["spool"]
    assert "cannot be opened" in edge.health.waiting_for["spool"]
    if told_to_stop:
        assert await edge.end() < 3.0
        return
    in_its_way.rmdir()
    await until(lambda: "spool" not in edge.health.waiting_for)
    await edge.end()
    assert (await read_log(settings)).kinds[(await read_log(settings)).order[0]] is Kind.REGISTRY


async def test_a_disk_that_is_full_at_start_is_waited_for(tmp_path: Path) -> None:
    async with small_disk(tmp_path, size="1m", not_tried="a full disk at the edge's start") as small:
        settings = plant_of(tmp_path, NOBODY).model_copy(update={"state_dir": small})
        (small / "log").symlink_to(tmp_path, target_is_directory=True)
        fill(small / "ballast")
        edge = start(settings)
        await until(lambda: "spool" in edge.health.waiting_for)
        assert "disk is full" in edge.health.waiting_for["spool"]
        assert str(spool_path(settings)) in edge.health.waiting_for["spool"]
        (small / "ballast").unlink()
        await until(lambda: "spool" not in edge.health.waiting_for)
        await edge.end()
        assert spool_path(settings).exists()


async def test_a_damaged_spool_is_salvaged_at_the_start_and_what_waited_in_it_is_sent(tmp_path: Path) -> None:
    """Its samples are of an edge that ended while the log was away."""
    settings = plant_of(tmp_path, NOBODY)
    path = spool_path(settings)
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    waiting = open_at(path, 7, stamps=machine_stamps(SystemClock()))
    journal(waiting, batch_of("e", 40))
    waiting.close()
    spoil(path, root_of(path, "aside"), size=8)
    edge = start(settings)
    await until_said(settings, "spool-lost")
    await edge.end()
    seen = await read_log(settings)
    [lost] = [event for event in seen.events if event.code == "spool-lost"]
    assert lost.attributes["salvaged"] == 1
    assert lost.attributes["whole"] is True
    assert (settings.state_dir / str(lost.attributes["moved_to"])).exists()
    assert next(place for place in seen.order if place[0] == 7) == (7, 0)


async def until_said(settings: Settings, code: str) -> None:
    async def said() -> bool:
        return any(event.code == code for event in (await read_log(settings)).events)

    await until(said)
