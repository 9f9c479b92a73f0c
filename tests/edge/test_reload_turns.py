"""When the files are looked at, and what is done in which order, without files."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from edge.fleet import Fleet
from edge.journal import Journal
from edge.reload import Reload, Signature
from edge.stamps import machine_stamps
from telemetry.clock import SystemClock
from telemetry.settings import Settings
from tests.fixtures.waiting import until


@dataclass
class Told:
    """In place of fleet and journal: what they were told, in order."""

    order: list[str] = field(default_factory=list)
    equipment: tuple[Any, ...] = ()

    def prepare(self, plant: object, equipment: object) -> str:
        self.order.append("prepare")
        return "next"

    def begun_anew(self, to: object) -> set[str]:
        return set()

    async def leave(self, to: object) -> None:
        self.order.append("leave")

    async def switch(self, to: object) -> None:
        self.order.append("switch")

    async def flush(self) -> None:
        self.order.append("flush")


def reload_of(told: Told) -> Reload:
    plant = cast(Any, SimpleNamespace(of_edge=lambda edge: ()))
    settings = Settings(state_dir=Path("/nowhere"), plant=Path("/nowhere/plant.yaml"))
    stamps = machine_stamps(SystemClock())
    return Reload(settings, cast(Fleet, told), cast(Journal, told), lambda: plant, stamps, look_s=0.01)


async def test_what_was_read_by_the_old_file_is_journaled_before_anything_changes() -> None:
    told = Told()
    await reload_of(told).again()
    assert told.order == ["prepare", "leave", "flush", "switch"]


async def test_a_file_that_is_being_written_is_left_alone_until_it_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    told, looks, seen = Told(), list[int](), [1, 1, 2, 3, 4, 4]

    def signature(self: Reload) -> Signature:
        looks.append(len(told.order))
        return (("plant.yaml", seen[min(len(looks), len(seen)) - 1], 0),)

    monkeypatch.setattr(Reload, "_signature", signature)
    running = asyncio.create_task(reload_of(told).run())
    await until(lambda: len(looks) >= 3 * len(seen))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert looks[: len(seen)] == [0] * len(seen), "nothing was done while it changed"
    assert told.order == ["prepare", "leave", "flush", "switch"], "once for all of it"
