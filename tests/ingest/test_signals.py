"""Names and their numbers: one of each for good, equipment found by them, and memory bounded whatever is sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import psycopg
import pytest

from ingest import signals
from ingest.signals import UNKNOWN, Dictionary, SignalTable
from telemetry.settings import Settings
from telemetry.store import INGEST, connect
from tests.fixtures.store import execute

Connection = psycopg.AsyncConnection[Any]
Names = tuple[str, ...]


@pytest.fixture
async def side(plain_store: Settings) -> AsyncIterator[Connection]:
    async with await connect(plain_store, INGEST, autocommit=True) as found:
        yield found


async def resolved(table: SignalTable, side: Connection, *dictionaries: Names) -> list[Dictionary]:
    found = await table.resolve(side, dictionaries)
    return [found[id(names)] for names in dictionaries]


def equipment(dictionary: Dictionary) -> list[str]:
    return [dictionary.equipments[place] for place in dictionary.equipment.tolist()]


def stored(settings: Settings) -> dict[str, int]:
    return dict(execute(settings.store, "SELECT name, signal_id FROM store.signal"))


async def test_each_name_has_the_number_of_the_store_and_its_equipment(plain_store: Settings, side: Connection) -> None:
    table = SignalTable()
    await table.load(side)
    first, second = await resolved(table, side, ("b/x", "a/y"), ("a/x", "b/x"))
    known = stored(plain_store)
    assert first.signal_id.tolist() == [known["b/x"], known["a/y"]]
    assert second.signal_id.tolist() == [known["a/x"], known["b/x"]]
    assert (equipment(first), equipment(second)) == (["b", "a"], ["a", "b"])
    assert first.equipments is second.equipments


async def test_a_name_that_is_no_signals_is_unknown_its_equipment_is_what_it_says_and_the_store_never_sees_it(
    plain_store: Settings, side: Connection
) -> None:
    table = SignalTable()
    (found,) = await resolved(table, side, ("", "a/x", "Nonsense/x", "nowhere", "a/x/y", "锅炉/压力"))
    assert found.signal_id.tolist() == [UNKNOWN, stored(plain_store)["a/x"], UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN]
    assert equipment(found) == ["", "a", "Nonsense", "nowhere", "a", "锅炉"]
    assert list(stored(plain_store)) == ["a/x"]


async def test_equipment_that_comes_later_changes_nothing_of_what_was_resolved(side: Connection) -> None:
    table = SignalTable()
    early: Names = ("a/x", "?/x", "b/x")
    (before,) = await resolved(table, side, early)
    many: Names = tuple(f"e{n}/x" for n in range(1_000))
    (later,) = await resolved(table, side, many)
    (again,) = await resolved(table, side, early)
    assert again is before
    assert equipment(before) == ["a", "?", "b"]
    assert equipment(later) == [f"e{n}" for n in range(1_000)]


async def test_what_another_session_numbered_meanwhile_is_taken_over(plain_store: Settings, side: Connection) -> None:
    one, other = SignalTable(), SignalTable()
    await one.load(side)
    await other.load(side)
    (first,) = await resolved(one, side, ("a/x", "b/x"))
    (second,) = await resolved(other, side, ("b/x", "a/x", "c/x"))
    assert second.signal_id.tolist()[:2] == first.signal_id.tolist()[::-1]
    assert len(stored(plain_store)) == 3


async def test_who_has_read_nothing_yet_takes_no_number_for_a_name_that_has_one(
    plain_store: Settings, side: Connection
) -> None:
    """A replay of dead letters, say: its names are nearly all known, and a number that is taken never comes back."""
    await resolved(SignalTable(), side, ("a/x", "b/x", "c/x"))
    await resolved(SignalTable(), side, ("b/x", "a/x"))
    await resolved(SignalTable(), side, ("c/x", "d/x", "a/x"))
    assert stored(plain_store) == {"a/x": 1, "b/x": 2, "c/x": 3, "d/x": 4}


async def test_the_remembered_dictionaries_are_bounded_in_bytes(
    side: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signals, "REMEMBERED_BYTES", 20_000)
    table = SignalTable()
    often: Names = ("often/x",)
    (first,) = await resolved(table, side, often)
    for n in range(20):
        await resolved(table, side, (f"{n} " + "long" * 1_000,))  # one name each
        assert (await resolved(table, side, often))[0] is first
        assert sum(len(name) for names in table._dictionaries for name in names) <= 20_000
    assert await resolved(table, side, *((f"a/x{n}",) for n in range(300)))
    assert 0 <= table._remembered <= 20_000


async def test_equipment_of_names_that_are_no_signals_is_forgotten_beyond_a_bound(
    side: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signals, "STRANGE_BYTES", 5_000)
    table = SignalTable()
    kept: Names = ("a/x", "?1/x", "b/x")
    (before,) = await resolved(table, side, kept)
    for n in range(100):
        names: Names = (f"Strange {n:05d}" + "!" * 500, "c/x", "a/x")
        (found,) = await resolved(table, side, names)
        assert equipment(found) == [names[0], "c", "a"]
        assert len(found.equipments) < 20
    (after,) = await resolved(table, side, kept)
    assert equipment(before) == equipment(after) == ["a", "?1", "b"]
    assert after.signal_id.tolist() == before.signal_id.tolist()


async def test_two_that_resolve_at_once_take_turns(side: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next flush's names, and those of one that is halved; more than is remembered."""
    monkeypatch.setattr(signals, "REMEMBERED_BYTES", 100)
    table = SignalTable()
    known: Names = ("a/x",)
    await resolved(table, side, known)

    async def resolve(which: int) -> Sequence[Dictionary]:
        return await resolved(table, side, known, *((f"e{n}/x{which}",) for n in range(3)), ("shared/x",))

    for found in await asyncio.gather(resolve(1), resolve(2), resolve(1)):
        assert [equipment(dictionary) for dictionary in found] == [["a"], ["e0"], ["e1"], ["e2"], ["shared"]]
    assert table._remembered == sum(signals._size(names) for names in table._dictionaries)
