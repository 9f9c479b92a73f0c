"""A plant file that changes while the edge runs: the real service, real devices, and what comes out on the log."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from structlog.testing import capture_logs

from edge import metrics
from telemetry.messages import Event
from telemetry.profile import Profile
from telemetry.settings import Settings
from tests.edge.build import TEXT, make_profile, write_plant
from tests.edge.device import Ask, Device, data, frame, silent
from tests.edge.running import Running, Seen, read_log, start
from tests.fixtures.waiting import until

POLL_S = 0.1


def profile_of(*addresses: int, **more: Any) -> Profile:
    points = {f"p{a}": {"modbus": {"address": a}} for a in addresses}
    return make_profile(points, poll_s=POLL_S, timeout_s=0.5, **more)


class Counted:
    """A device whose register 0 counts its answers: what it said can be held against what was journaled."""

    def __init__(self) -> None:
        self.said: list[int] = []

    async def __call__(self, ask: Ask, writer: asyncio.StreamWriter) -> None:
        self.said.append(len(self.said) + 1)
        pdu = data(ask)
        writer.write(frame(ask, pdu[:2] + len(self.said).to_bytes(2, "big") + pdu[4:]))


Plant = list[dict[str, Any]]


def entry(name: str, device: Device, unit: int = 1, **more: Any) -> dict[str, Any]:
    return {"id": name, "profile": "test", "address": f"{device.url}/{unit}", **more}


@asynccontextmanager
async def edge_on(folder: Path, profile: Profile, plant: Plant, **more: Any) -> AsyncIterator[Running]:
    """A running edge that has read something of each of its equipments."""
    file = write_plant(folder, profile, plant, **more)
    running = start(Settings(state_dir=folder / "state", plant=file, profiles_dir=folder))
    try:
        yield running
    finally:
        await running.end()


async def reloaded(change: Callable[[], object], *, outcome: str = "done") -> None:
    """Changes files, has them read, and waits until they were."""
    counter = metrics.RELOADS.labels(outcome)
    before = counter._value.get()
    change()
    os.kill(os.getpid(), signal.SIGHUP)
    await until(lambda: counter._value.get() > before, what=f"the files are {outcome}")


async def said_of(change: Callable[[], object]) -> tuple[list[str], list[str], list[str]]:
    """What an operator reads of a change: equipment that is new, that was begun anew, that is gone."""
    with capture_logs() as said:
        await reloaded(change)
        await until(lambda: any(line["event"] == "plant file read again" for line in said))
    [line] = [line for line in said if line["event"] == "plant file read again"]
    return line["new"], line["changed"], line["gone"]


def events(seen: Seen, code: str) -> list[Event]:
    return [event for event in seen.events if event.code == code]


async def test_a_changed_file_restarts_only_what_it_changes(tmp_path: Path) -> None:
    """The other keeps its connection and its grid; the changed one is read by what the file now says."""
    async with Device() as same, Device() as changed:
        plant = [entry("same", same), entry("changed", changed)]
        async with edge_on(tmp_path, profile_of(0, 1), plant):
            await until(lambda: len(same.asked) >= 5 and len(changed.asked) >= 5)
            plant[1]["poll_s"] = 0.05
            assert await said_of(lambda: write_plant(tmp_path, profile_of(0, 1), plant)) == ([], ["changed"], [])
            since = len(same.asked), len(changed.asked)
            await until(lambda: len(same.asked) >= since[0] + 20)
            gaps = [b.at_s - a.at_s for a, b in pairwise(same.asked)]
            assert same.connections == 1
            assert max(gaps) < 2 * POLL_S, "no cycle was lost"
            assert len(changed.asked) - since[1] >= 1.6 * (len(same.asked) - since[0])


async def test_equipment_that_is_new_is_read_one_that_is_gone_is_not_and_the_registry_says_so(tmp_path: Path) -> None:
    async with Device() as stays, Device() as goes, Device() as comes:
        plant = [entry("stays", stays), entry("goes", goes)]
        async with edge_on(tmp_path, profile_of(0), plant):
            await until(lambda: stays.asked and goes.asked)
            plant[1] = entry("comes", comes)
            assert await said_of(lambda: write_plant(tmp_path, profile_of(0), plant)) == (["comes"], [], ["goes"])
            gone = len(goes.asked)
            await until(lambda: len(comes.asked) >= 10)
            assert len(goes.asked) <= gone + 1, "one that was under way"
            await until_seen(tmp_path, lambda seen: seen.heartbeats[-1].equipments == ("stays", "comes"))
        seen = await read_log_of(tmp_path)
        assert [[e["id"] for e in r.plant["equipment"]] for r in seen.registries] == [
            ["stays", "goes"],
            ["stays", "comes"],
        ]
        seen.assert_no_holes()
        seen.assert_ledger_is_the_rows()


def settings_of(folder: Path) -> Settings:
    return Settings(state_dir=folder / "state", plant=folder / "plant.yaml", profiles_dir=folder)


async def read_log_of(folder: Path) -> Seen:
    return await read_log(settings_of(folder))


async def until_seen(folder: Path, condition: Callable[[Seen], bool]) -> None:
    """Until the log says so."""

    async def said() -> bool:
        return condition(await read_log_of(folder))

    await until(said)


BROKEN: dict[str, tuple[str, tuple[str, ...]]] = {
    # what is wrong → (what the file says instead, what is said of it)
    "every fault is told": (
        "site: {id: site, name: x}\nequipment:\n- {id: a, profile: nope, address: 'http://x'}\n"
        "- {id: a, profile: test, address: modbus+tcp://h/1, colour: red}\n",
        ("address", "colour"),
    ),
    "a file that is no YAML": ("equipment: [", ()),
    "a file that is no text": ("\0\udcff\udcfe", ()),
    "an empty file": ("", ()),
    "a plant without anything of this edge": (
        "site: {id: site, name: {zh: x, en: x}}\n"
        "equipment:\n- {id: a, profile: test, address: modbus+tcp://h/1, edge: another}\n",
        ("edge",),
    ),
}


@pytest.mark.parametrize("rule", BROKEN)
async def test_a_file_with_a_fault_is_refused_with_every_fault_and_the_old_one_stays(tmp_path: Path, rule: str) -> None:
    text, said = BROKEN[rule]
    async with Device() as device:
        plant = [entry("e", device)]
        async with edge_on(tmp_path, profile_of(0), plant) as running:
            await until(lambda: len(device.asked) >= 3)
            file = tmp_path / "plant.yaml"
            await reloaded(lambda: file.write_text(text, encoding="utf-8", errors="surrogateescape"), outcome="refused")
            since = len(device.asked)
            await until(lambda: len(device.asked) >= since + 5)
            assert not running.task.done()
            assert device.connections == 1
            await until_seen(tmp_path, lambda seen: bool(events(seen, "plant-refused")))
            await reloaded(lambda: write_plant(tmp_path, profile_of(0), plant))
            await until_seen(tmp_path, lambda seen: len(events(seen, "plant-refused")) == 2)
            assert device.connections == 1, "it is the same as before"
        told = events(await read_log_of(tmp_path), "plant-refused")
        assert [event.on for event in told] == [True, False]
        faults = told[0].attributes["faults"]
        assert told[0].attributes["file"] == str(file)
        assert faults
        assert told[0].attributes["count"] >= len(said)
        for word in said:
            assert any(word in fault for fault in faults), f"{word} in {faults}"


async def test_a_plan_that_no_request_can_read_is_refused_whole(tmp_path: Path) -> None:
    """What runs is not touched by a file of which any part cannot be: not even what it adds."""
    async with Device() as device, Device() as other:
        wide = make_profile({"p0": {"modbus": {"address": 0, "type": "u64"}}}, poll_s=POLL_S)
        async with edge_on(tmp_path, wide, [entry("e", device)]):
            await until(lambda: device.asked)
            plant, endpoints = [entry("new", other), entry("e", device)], {device.url: {"max_registers": 2}}
            await reloaded(lambda: write_plant(tmp_path, wide, plant, endpoints=endpoints), outcome="refused")
            since = len(device.asked)
            await until(lambda: len(device.asked) >= since + 5)
            assert not other.asked
        assert [e.on for e in events(await read_log_of(tmp_path), "plant-refused")] == [True]


async def test_no_sample_is_lost_while_files_change_ten_times(tmp_path: Path) -> None:
    """Each answer that a device gave is on the log once: those of the unchanged, whatever happens beside it."""
    counted, behaviour = Counted(), Device()
    behaviour.behaviour = counted
    async with behaviour as same, Device() as other:
        plant = [entry("same", same), entry("other", other)]
        async with edge_on(tmp_path, profile_of(0, 1), plant):
            await until(lambda: len(counted.said) >= 3)
            for turn in range(10):
                plant[1:] = [entry(f"other-{turn}", other, unit=turn % 3 + 1)] if turn % 2 else []
                await reloaded(lambda: write_plant(tmp_path, profile_of(0, 1), plant))
                since = len(counted.said)
                await until(lambda since=since: len(counted.said) >= since + 2)
        said = len(counted.said)
        seen = await read_log_of(tmp_path)
        seen.assert_no_holes()
        seen.assert_ledger_is_the_rows()
        journaled = Counter(seen.of("same/p0"))
        assert set(journaled.values()) == {1}
        missing = set(map(float, counted.said)) - set(journaled)
        assert missing <= {float(said)}, "but one that came while it stopped"
        assert same.connections == 1


async def test_a_silent_device_that_is_taken_out_is_forgotten_and_new_when_it_comes_back(tmp_path: Path) -> None:
    async with Device() as well, Device(silent) as bad:
        plant = [entry("well", well), entry("bad", bad)]
        async with edge_on(tmp_path, profile_of(0), plant):
            await until_seen(tmp_path, lambda seen: "bad" in seen.heartbeats[-1].unreachable)
            await reloaded(lambda: write_plant(tmp_path, profile_of(0), plant[:1]))
            await until_seen(tmp_path, lambda seen: seen.heartbeats[-1].unreachable == {})
            asked = len(bad.asked)
            well_asked = len(well.asked)
            await until(lambda: len(well.asked) >= well_asked + 20)
            assert len(bad.asked) == asked
            await reloaded(lambda: write_plant(tmp_path, profile_of(0), plant))
            await until_seen(tmp_path, lambda seen: "bad" in seen.heartbeats[-1].unreachable)
            assert len(bad.asked) - asked >= 3, "asked at its times until the breaker opens anew"


async def test_codes_that_were_active_stay_so_over_a_change_and_are_not_begun_again(tmp_path: Path) -> None:
    schemes = {"local": {"name": TEXT, "codes": {"7": {"name": TEXT}}}}
    more: dict[str, Any] = {"schemes": schemes, "code_points": [{"point": "p7", "scheme": "local"}]}
    async with Device() as device:
        plant = [entry("e", device)]
        async with edge_on(tmp_path, profile_of(7, **more), plant):
            await until(lambda: len(device.asked) >= 5)
            plant[0]["poll_s"] = 0.07
            await reloaded(lambda: write_plant(tmp_path, profile_of(7, **more), plant))
            since = len(device.asked)
            await until(lambda: len(device.asked) >= since + 5)
        seen = await read_log_of(tmp_path)
        assert [(e.code, e.on) for e in seen.events] == [("7", True)]


async def test_a_file_that_changes_is_found_without_being_told(tmp_path: Path) -> None:
    async with Device() as device, Device() as other:
        plant = [entry("e", device)]
        async with edge_on(tmp_path, profile_of(0), plant):
            await until(lambda: device.asked)
            plant.append(entry("new", other))
            write_plant(tmp_path, profile_of(0), plant)
            await until(lambda: other.asked, within_s=10)


async def test_a_profile_of_the_users_own_that_changes_is_read_again(tmp_path: Path) -> None:
    async with Device() as device, edge_on(tmp_path, profile_of(3), [entry("e", device)]):
        await until(lambda: device.asked)
        text = (tmp_path / "test.yaml").read_text(encoding="utf-8")
        changed = yaml.safe_load(text)
        changed["points"]["p9"] = {"name": TEXT, "modbus": {"address": 9}}
        await reloaded(lambda: (tmp_path / "test.yaml").write_text(yaml.safe_dump(changed), encoding="utf-8"))
        await until(lambda: device.asked[-1].count == 7)
        await until_seen(tmp_path, lambda seen: seen.of("e/p9")[-1:] == [9.0])


async def test_an_endpoint_that_changes_gets_a_connection_of_its_own_kind(tmp_path: Path) -> None:
    async with Device() as device, Device() as other:
        plant = [entry("e", device), entry("f", other)]
        async with edge_on(tmp_path, profile_of(0, 9), plant):
            await until(lambda: device.asked and other.asked)
            endpoints = {device.url: {"max_gap": 2}}
            await reloaded(lambda: write_plant(tmp_path, profile_of(0, 9), plant, endpoints=endpoints))
            since = len(device.asked)
            await until(lambda: len(device.asked) >= since + 4)
            assert {a.count for a in device.asked[since + 2 :]} == {1}, "the gap is read across no more"
            assert (device.connections, other.connections) == (2, 1)
