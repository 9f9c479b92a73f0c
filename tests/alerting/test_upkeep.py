"""What is looked after now and then: so much of it in a round, and nobody waits for ever behind others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
import pytest

from alerting.upkeep import ORPHANS, Upkeep
from telemetry.clock import SystemClock
from telemetry.settings import Settings
from telemetry.store import ALERT, connect
from tests.fixtures.store import execute

MANY = 2 * ORPHANS + 1
ALARM = """
INSERT INTO alarm.alarm (alarm_id, equipment, point, detector, state, priority, text_zh, text_en, onset, raised_at)
SELECT to_char(n, 'FM00000'), CASE WHEN n = ANY(%s) THEN 'owned' ELSE 'nobodys' END, 'x', 'd', 'unacknowledged', 'high',
    '', '', now(), now()
FROM generate_series(1, %s) n
"""
EQUIPMENT = """
INSERT INTO register.equipment (id, class, class_name_zh, class_name_en, profile, profile_version, edge, name_zh, name_en)
VALUES (%s, 'elevator', '', '', 'lift-monitor', 1, 'edge-1', '', '') RETURNING equipment_id
"""


def alarms(store: Settings, owned: Sequence[int]) -> None:
    """MANY alarms, those of `owned` of a unit whose owner is known."""
    ((number,),) = execute(store.store, EQUIPMENT, ("owned",))
    execute(store.store, EQUIPMENT, ("nobodys",))
    execute(store.store, "INSERT INTO register.organisation (id, name_zh, name_en) VALUES ('o', '', '')")
    execute(
        store.store,
        "INSERT INTO register.equipment_party SELECT %s, organisation_id, 'owner', '2026-01-01' FROM register.organisation",
        (number,),
    )
    execute(store.store, ALARM, (list(owned), MANY))


def nothing() -> None:
    pass


async def unused() -> psycopg.AsyncConnection[Any]:
    raise AssertionError("expected to be given a connection")


@pytest.fixture
def upkeep() -> Upkeep:
    return Upkeep(SystemClock(), unused, (), nothing, nothing)


async def adopted_after_a_round(store: Settings, upkeep: Upkeep) -> int:
    """How many alarms have found their owner by then."""
    async with await connect(store, ALERT, autocommit=True) as connection:
        await upkeep.once(connection)
    ((found,),) = execute(store.store, "SELECT count(*) FROM alarm.alarm WHERE owner_id IS NOT NULL")
    return int(found)


async def test_alarms_that_nobody_will_have_hold_up_nobody_behind_them(plain_store: Settings, upkeep: Upkeep) -> None:
    alarms(plain_store, [MANY])
    assert [await adopted_after_a_round(plain_store, upkeep) for _ in range(3)] == [0, 0, 1]


async def test_a_round_takes_so_many_orphans_and_after_the_last_it_begins_at_the_first_again(
    plain_store: Settings, upkeep: Upkeep
) -> None:
    alarms(plain_store, range(1, MANY + 1))
    assert [await adopted_after_a_round(plain_store, upkeep) for _ in range(3)] == [ORPHANS, 2 * ORPHANS, MANY]
    execute(plain_store.store, "UPDATE alarm.alarm SET owner_id = NULL WHERE alarm_id = '00001'")
    assert await adopted_after_a_round(plain_store, upkeep) == MANY
