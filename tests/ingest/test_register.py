"""The register follows what edges say: dated links, one owner an equipment, nothing deleted, every change in the audit."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

from telemetry.settings import Settings
from tests.fixtures.store import execute
from tests.ingest.line import Edge, batch, ingesting, producing, until_stored

T1, T2, T3 = (int(datetime(2026, 3, day, tzinfo=UTC).timestamp()) * 1_000_000 for day in (1, 2, 3))


def point(**changes: Any) -> dict[str, Any]:
    about = {"kind": "measurement", "unit": "°C", "group": "main", "name": {"zh": "温度", "en": "Temperature"}, "enum": {},
             "low": -40.0, "high": None, "limits": []}  # fmt: skip
    return {**about, **changes}


def equipment(name: str, **changes: Any) -> dict[str, Any]:
    about = {
        "id": name,
        "class": "boiler",
        "class_name": {"zh": "锅炉", "en": "Boiler"},
        "profile": "sola-boiler",
        "profile_version": 1,
        "name": {"zh": name, "en": name},
        "area": "xinzhuang",
        "parties": {"owner": "acme", "user": "acme", "maintainer": "care"},
        "registration": None,
        "location": "1 Road",
        "position": [31.1, 121.3],
        "model": "",
        "status": "in_use",
        "points": {"temperature": point()},
    }
    return {**about, **changes}


def plant(*equipments: dict[str, Any]) -> dict[str, Any]:
    def organisation(name: str, kind: str) -> dict[str, Any]:
        text = {"zh": name, "en": name}
        return {"id": name, "kinds": [kind], "name": text, "phone": "1", "credit_code": "", "address": ""}

    return {
        "site": {"id": "minhang", "name": {"zh": "闵行", "en": "Minhang"}, "timezone": "UTC", "level": "district"},
        "areas": [
            {"id": "xinzhuang", "level": "street", "name": {"zh": "莘庄", "en": "Xinzhuang"}, "parent": "minhang"}
        ],
        "organisations": [
            organisation("acme", "use_unit"),
            organisation("care", "maintainer"),
            organisation("fix", "maintainer"),
        ],
        "equipment": list(equipments),
    }


async def registered(store: Settings, *steps: tuple[dict[str, Any], int]) -> None:
    async with producing(store) as producer, ingesting(store):
        edge = Edge(producer)
        for what, moment in steps:
            await edge.send_registry(what, time_us=moment)
        await until_stored(store, edge)


async def test_a_registry_fills_the_register(store: Settings) -> None:
    await registered(store, (plant(equipment("boiler-1")), T1))
    rows = execute(store.store, "SELECT id, area, owner, maintainer_phone, status, latitude, retired_at FROM equipment")
    assert rows == [("boiler-1", "xinzhuang", "acme", "1", "in_use", 31.1, None)]
    assert execute(store.store, "SELECT id, parent, level FROM areas ORDER BY id") == [
        ("minhang", None, "district"),
        ("xinzhuang", "minhang", "street"),
    ]
    rows = execute(store.store, "SELECT equipment, point, unit, low, high, registered FROM signals")
    assert rows == [("boiler-1", "temperature", "°C", -40.0, None, True)]


async def test_a_change_of_maintainer_closes_the_old_link_and_opens_the_new_one(store: Settings) -> None:
    changed = equipment("boiler-1", parties={"owner": "acme", "user": "acme", "maintainer": "fix"})
    await registered(store, (plant(equipment("boiler-1")), T1), (plant(changed), T2))
    rows = execute(
        store.store,
        "SELECT o.id, extract(epoch FROM valid_from)::bigint, extract(epoch FROM valid_to)::bigint"
        " FROM register.equipment_party JOIN register.organisation o USING (organisation_id)"
        " WHERE role = 'maintainer' ORDER BY valid_from",
    )
    assert rows == [("care", T1 // 10**6, T2 // 10**6), ("fix", T2 // 10**6, None)]
    assert execute(store.store, "SELECT maintainer FROM equipment") == [("fix",)]
    audit = execute(
        store.store, "SELECT actor, before, after FROM register.audit WHERE subject LIKE '%/maintainer' ORDER BY 1"
    )
    assert ("edge:edge-1", "care", "fix") in audit


async def test_the_same_registry_again_changes_nothing(store: Settings) -> None:
    await registered(store, (plant(equipment("boiler-1")), T1))
    before = execute(store.store, "SELECT count(*) FROM register.audit")
    await registered(store, (plant(equipment("boiler-1")), T2))
    assert execute(store.store, "SELECT count(*) FROM register.audit") == before
    assert execute(store.store, "SELECT count(*) FROM register.equipment_party") == [(3,)]


async def test_an_older_registry_does_not_undo_a_newer_one(store: Settings) -> None:
    renamed = equipment("boiler-1", location="2 Road")
    await registered(store, (plant(renamed), T2), (plant(equipment("boiler-1")), T1))
    assert execute(store.store, "SELECT address FROM equipment") == [("2 Road",)]


async def test_what_is_gone_is_retired_and_what_returns_is_not(store: Settings) -> None:
    both = plant(equipment("boiler-1", points={"temperature": point(), "pressure": point()}), equipment("boiler-2"))
    await registered(store, (both, T1), (plant(equipment("boiler-1")), T2))
    retired = "SELECT id FROM equipment WHERE retired_at IS NOT NULL ORDER BY 1"
    signals = "SELECT equipment, point FROM signals WHERE retired_at IS NOT NULL ORDER BY 1, 2"
    assert execute(store.store, retired) == [("boiler-2",)]
    assert execute(store.store, signals) == [("boiler-1", "pressure"), ("boiler-2", "temperature")]
    await registered(store, (both, T3))
    assert execute(store.store, retired) == []
    assert execute(store.store, signals) == []


async def test_equipment_that_a_second_edge_claims_stays_with_the_first(store: Settings) -> None:
    async with producing(store) as producer, ingesting(store):
        first, second = Edge(producer, "edge-1"), Edge(producer, "edge-2")
        await first.send_registry(plant(equipment("boiler-1")), time_us=T1)
        await until_stored(store, first)
        await second.send_registry(
            plant(equipment("boiler-1", location="elsewhere"), equipment("boiler-9")), time_us=T2
        )
        await until_stored(store, second)
    rows = execute(store.store, "SELECT id, edge, address FROM equipment ORDER BY id")
    assert rows == [("boiler-1", "edge-1", "1 Road"), ("boiler-9", "edge-2", "1 Road")]
    events = execute(store.store, "SELECT equipment, scheme, code, attributes FROM events")
    assert events == [("boiler-1", "vigil", "equipment-claimed", {"owner": "edge-1", "claimant": "edge-2"})]


async def test_a_second_edge_may_take_over_what_the_first_gave_up(store: Settings) -> None:
    async with producing(store) as producer, ingesting(store):
        first, second = Edge(producer, "edge-1"), Edge(producer, "edge-2")
        await first.send_registry(plant(equipment("boiler-1"), equipment("boiler-2")), time_us=T1)
        await first.send_registry(plant(equipment("boiler-2")), time_us=T2)
        await until_stored(store, first)
        await second.send_registry(plant(equipment("boiler-1")), time_us=T3)
        await until_stored(store, second)
    assert execute(store.store, "SELECT edge, retired_at FROM equipment WHERE id = 'boiler-1'") == [("edge-2", None)]
    assert execute(store.store, "SELECT count(*) FROM events") == [(0,)]


async def test_samples_that_no_registry_named_are_stored_and_flagged(store: Settings) -> None:
    async with producing(store) as producer, ingesting(store):
        edge = Edge(producer)
        await edge.send_samples(batch(["boiler-1/temperature"]))
        await until_stored(store, edge)
        assert execute(store.store, "SELECT registered FROM signals") == [(False,)]
        await edge.send_registry(copy.deepcopy(plant(equipment("boiler-1"))), time_us=T1)
        await until_stored(store, edge)
    assert execute(store.store, "SELECT registered, unit FROM signals") == [(True, "°C")]
    assert execute(store.store, "SELECT count(*) FROM samples") == [(10,)]


async def test_a_registry_that_says_the_same_again_takes_no_numbers_of_signals(store: Settings) -> None:
    """An edge says it at each start; the numbers are of 31 bits, and one that is taken never comes back."""
    points = {"p0": point(), "p1": point(unit="bar"), "p2": point(low=None)}
    numbers = "SELECT point, signal_id, unit FROM store.signal ORDER BY signal_id"
    async with producing(store) as producer, ingesting(store):
        edge = Edge(producer)
        for time_us in (T1, T2, T2):
            await edge.send_registry(plant(equipment("b-1", points=points)), time_us=time_us)
        await until_stored(store, edge)
        assert execute(store.store, numbers) == [("p0", 1, "°C"), ("p1", 2, "bar"), ("p2", 3, "°C")]
        await edge.send_registry(plant(equipment("b-1", points=points | {"p1": point(unit="kPa")})), time_us=T3)
        await until_stored(store, edge)
        await edge.send_samples(batch(["b-1/new"]))
        await until_stored(store, edge)
    assert [row[::2] for row in execute(store.store, numbers)][:3] == [("p0", "°C"), ("p1", "kPa"), ("p2", "°C")]
    assert execute(store.store, "SELECT signal_id FROM store.signal WHERE point = 'new'") == [(5,)], "4: what changed"
