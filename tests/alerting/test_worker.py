"""Findings on a real log become alarms in a real database: each once, whatever happens on the way."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from telemetry.settings import Settings
from telemetry.wire import encode_findings
from tests.alerting.line import (
    T0,
    S,
    acknowledge,
    alarm,
    alerting,
    finding,
    history,
    outcome,
    producing,
    raw,
    rows,
)
from tests.fixtures.waiting import until


async def processed(settings: Settings, offset: int) -> None:
    """Returns when alerting's offset in the database is `offset`."""

    async def there() -> bool:
        got = await rows(settings, "SELECT next FROM store.log_position WHERE service = 'alert'")
        return bool(got and got[0]["next"] >= offset)

    await until(there)


async def test_each_finding_counts_once_however_often_and_in_whatever_order_it_comes(plain_store: Settings) -> None:
    first, early, late = finding(), finding(onset_us=T0 + S), finding(onset_us=T0 + 2 * S, late=True)
    async with producing(plain_store) as analytics, alerting(plain_store):
        again = analytics.record([first])
        await analytics.send(again, again)  # a producer that retried
        await analytics.publish(finding(onset_us=T0 + S, raised=False))  # before its raise
        await analytics.publish(first, finding(raised=False), first, early, late)  # together; raise, clear, raise
        await analytics.publish(first, finding(raised=False))  # replayed by a restarted analytics
        await processed(plain_store, 5)
        assert await history(plain_store, first.id) == [
            ("raise", "normal", "unacknowledged", "analytics"),
            ("clear", "unacknowledged", "returned_unacknowledged", "analytics"),
        ]
        overtaken = await alarm(plain_store, early.id, "returned_unacknowledged")
        assert overtaken["raised_at"] < overtaken["cleared_at"]
        assert [step[0] for step in await history(plain_store, early.id)] == ["raise", "clear"]
        assert (await alarm(plain_store, late.id))["late"] is True
    accepted = await rows(plain_store, "SELECT accepted::text FROM store.progress WHERE service = 'alert'")
    assert accepted == [{"accepted": "{[0,4)}"}]


async def test_a_bad_record_goes_to_the_dead_letters_and_the_next_is_an_alarm(plain_store: Settings) -> None:
    good, bad = finding(), finding("lift-2")
    object.__setattr__(bad, "detector", "a\nb")
    mixed = encode_findings([bad, finding("lift-3")]).value
    async with producing(plain_store) as analytics, alerting(plain_store):
        odd = {"schema": b"9.0", "note": b"\x00\xff"}
        await analytics.send(raw(b"{", 0), raw(b"[]", 1, odd), raw(b"[]", 2, {"crc": b"00000001"}), raw(mixed, 3))
        analytics.seq = 4
        await analytics.publish(good)
        await alarm(plain_store, good.id)
        await alarm(plain_store, finding("lift-3").id)
    dead = await rows(
        plain_store, 'SELECT reason, "offset", value, seq, service FROM store.dead_letter ORDER BY "offset"'
    )
    assert [(d["reason"], d["offset"], d["seq"]) for d in dead] == [
        ("json", 0, 0),
        ("schema-version", 1, None),
        ("crc", 2, 2),
        ("finding", 3, 3),
    ]
    assert dead[0]["value"] == b"{"
    events = await rows(
        plain_store, "SELECT code, attributes->>'reason' AS reason FROM public.events ORDER BY event_id"
    )
    assert [e["reason"] for e in events if e["code"] == "finding-refused"] == [d["reason"] for d in dead]


async def test_a_clear_that_overtakes_its_raise_is_remembered_until_that_comes(plain_store: Settings) -> None:
    async with producing(plain_store) as analytics, alerting(plain_store):
        await analytics.publish(finding(raised=False))
        await processed(plain_store, 1)
        await analytics.publish(finding())
        await alarm(plain_store, finding().id, "returned_unacknowledged")


async def test_a_bad_record_that_comes_twice_is_set_aside_once(plain_store: Settings) -> None:
    async with producing(plain_store) as analytics, alerting(plain_store):
        await analytics.send(raw(b"{", 0), raw(b"{", 0))
        await processed(plain_store, 2)
        await analytics.send(raw(b"{", 0))
        await processed(plain_store, 3)
    assert await rows(plain_store, 'SELECT "offset" FROM store.dead_letter') == [{"offset": 0}]


async def test_what_the_database_refuses_is_set_aside_by_itself(plain_store: Settings) -> None:
    """A rule of the database that alerting does not know stands for all that may come."""
    await rows(plain_store, "ALTER TABLE alarm.alarm ADD CONSTRAINT short CHECK (length(evidence->>'said') < 9)")
    await rows(
        plain_store,
        "CREATE FUNCTION alarm.refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'not this one' USING ERRCODE = '22000'; END $$",
    )
    await rows(
        plain_store,
        "CREATE TRIGGER refuse BEFORE INSERT ON alarm.alarm FOR EACH ROW WHEN (new.equipment = 'lift-2')"
        " EXECUTE FUNCTION alarm.refuse()",
    )
    one, two, three = (finding(f"lift-{n}") for n in (1, 2, 3))
    async with producing(plain_store) as analytics:
        await analytics.send(*(analytics.record([f]) for f in (one, two, three)))
        async with alerting(plain_store):
            await alarm(plain_store, one.id)
            await alarm(plain_store, three.id)
            await processed(plain_store, 3)
    dead = await rows(plain_store, "SELECT reason, detail FROM store.dead_letter")
    assert [d["reason"] for d in dead] == ["database"]
    assert "not this one" in dead[0]["detail"]
    assert not await rows(plain_store, "SELECT 1 FROM alarm.alarm WHERE alarm_id = %s", two.id)


async def test_a_worker_whose_offset_was_moved_begins_again_from_the_database(plain_store: Settings) -> None:
    first, second = finding(), finding("lift-2")
    async with producing(plain_store) as analytics, alerting(plain_store):
        await analytics.publish(first)
        await processed(plain_store, 1)
        # another worker took the partition over, and was itself set back by an operator
        await rows(
            plain_store,
            "UPDATE store.log_position SET next = 0, last_edge = NULL, last_epoch = NULL, last_seq = NULL, last_crc = NULL",
        )
        await analytics.publish(second)
        await alarm(plain_store, second.id)
        await processed(plain_store, 2)
    assert len(await history(plain_store, first.id)) == 1
    assert len(await history(plain_store, second.id)) == 1


async def test_a_log_that_was_replaced_is_named_and_people_can_still_acknowledge(plain_store: Settings) -> None:
    first = finding()
    async with producing(plain_store) as analytics, alerting(plain_store):
        await analytics.publish(first)
        await processed(plain_store, 1)
    shutil.rmtree(plain_store.state_dir / "log")
    async with producing(plain_store, epoch=99) as analytics:
        other = finding("lift-9")
        await analytics.publish(other)
        async with alerting(plain_store) as health:

            async def named() -> str | None:
                return health.waiting_for.get("place on the log")

            said = await until(named)
            assert "vigil.findings/0 offset 0" in said
            assert "expected edge analyze epoch 0000000000001234 seq 0" in said
            assert "found edge analyze epoch 0000000000000063 seq 0" in said
            await acknowledge(plain_store, first.id, "k1")
            assert await outcome(plain_store, "k1") == "done"
            event = await rows(plain_store, "SELECT attributes FROM public.events WHERE code = 'log-discontinuity'")
            assert said in event[0]["attributes"]["why"]
            # the operator decides to go on with the new log
            await rows(
                plain_store,
                "UPDATE store.log_position SET next = 0, last_edge = NULL, last_epoch = NULL, last_seq = NULL,"
                " last_crc = NULL WHERE service = 'alert'",
            )
            await alarm(plain_store, other.id)
            assert not health.waiting_for
    events = await rows(
        plain_store, "SELECT state FROM public.events WHERE code = 'log-discontinuity' ORDER BY event_id"
    )
    assert [e["state"] for e in events] == ["on", "off"]


async def registered(settings: Settings, equipment: str) -> None:
    await rows(
        settings,
        "INSERT INTO register.equipment (id, class, class_name_zh, class_name_en, profile, profile_version, edge, name_zh,"
        " name_en, address) VALUES (%s, 'elevator', '电梯', 'Elevator', 'lift-monitor', 1, 'edge-1', '一号梯', 'Lift one',"
        " '1 Main Street')",
        equipment,
    )


async def organised(settings: Settings) -> None:
    await rows(
        settings, "INSERT INTO register.area (id, level, name_zh, name_en) VALUES ('xz', 'street', '莘庄', 'Xinzhuang')"
    )
    await rows(
        settings,
        "INSERT INTO register.organisation (id, name_zh, name_en, phone)"
        " VALUES ('old', '旧', 'Old', '1'), ('new', '新', 'New', '2'), ('care', '维保', 'Care', '3')",
    )


async def linked(settings: Settings, role: str, organisation: str, since: str, until: str | None) -> None:
    """lift-1 and an organisation."""
    await rows(
        settings,
        "INSERT INTO register.equipment_party SELECT e.equipment_id, o.organisation_id, %s, %s, %s::timestamptz"
        " FROM register.equipment e, register.organisation o WHERE e.id = 'lift-1' AND o.id = %s",
        role,
        since,
        until,
        organisation,
    )


async def test_an_alarm_keeps_who_owned_the_unit_when_it_was_raised(plain_store: Settings) -> None:
    """T0 is 2026-09-21."""
    await organised(plain_store)
    await registered(plain_store, "lift-1")
    await linked(plain_store, "owner", "old", "2026-01-01", "2026-09-22")
    await linked(plain_store, "owner", "new", "2026-09-22", None)
    await linked(plain_store, "maintainer", "care", "2026-10-01", None)
    await linked(plain_store, "user", "old", "2026-01-01", "2026-02-01")
    await linked(plain_store, "user", "new", "2026-10-01", None)
    await rows(
        plain_store,
        "INSERT INTO register.equipment_area SELECT e.equipment_id, a.area_id, '2026-01-01'"
        " FROM register.equipment e, register.area a",
    )
    before, after = finding(), finding(onset_us=T0 + 2 * 86_400 * S)
    async with producing(plain_store) as analytics, alerting(plain_store):
        await analytics.publish(before, after)
        row = await alarm(plain_store, before.id)
        assert (row["owner"], row["area"], row["class"], row["equipment_en"]) == ("old", "xz", "elevator", "Lift one")
        assert row["maintainer"] == "care", "the first maintainer known counts for what came before"
        assert row["user"] is None, "a gap between two links stays a gap"
        assert (await alarm(plain_store, after.id))["owner"] == "new"


async def test_an_alarm_older_than_the_registry_learns_whose_it_is_once(plain_store: Settings) -> None:
    found = finding()

    async def owned() -> Any:
        return (await alarm(plain_store, found.id))["owner"]

    async with producing(plain_store) as analytics, alerting(plain_store):
        await analytics.publish(found)
        assert await owned() is None
        await organised(plain_store)
        await registered(plain_store, "lift-1")
        await linked(plain_store, "owner", "old", "2026-11-01", None)
        assert await until(owned) == "old"
        row = await alarm(plain_store, found.id)
        assert row["class"] == "elevator"
        await rows(plain_store, "UPDATE register.equipment_party SET valid_to = now()")
        await linked(plain_store, "owner", "new", "2026-11-02", None)
        await analytics.publish(finding("lift-7"))
        await alarm(plain_store, finding("lift-7").id)
        assert await owned() == "old"


async def test_an_equipment_of_another_plant_file_has_its_profiles_texts(plain_store: Settings) -> None:
    await registered(plain_store, "lift-1")
    found = finding("lift-1", "", "code:gbt24476-2017/90")
    async with producing(plain_store) as analytics, alerting(plain_store):
        await analytics.publish(found)
        row = await alarm(plain_store, found.id)
    assert "90" in row["text_zh"]
    assert "Unknown" not in row["text_en"]
    assert row["class"] == "elevator"


@pytest.mark.parametrize("gone", ["early_clear", "history"])
async def test_a_role_that_may_not_write_is_said_in_the_health(plain_store: Settings, gone: str) -> None:
    await rows(plain_store, f"REVOKE INSERT ON alarm.{gone} FROM vigil_alert")
    first = finding(raised=gone == "history")
    async with producing(plain_store) as analytics, alerting(plain_store) as health:
        await analytics.publish(first)

        async def said() -> str | None:
            return health.waiting_for.get("findings")

        assert f"permission denied for table {gone}" in await until(said)
        assert not await rows(
            plain_store, "SELECT 1 FROM store.progress WHERE service = 'alert' AND NOT isempty(accepted)"
        )
