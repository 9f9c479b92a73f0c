"""People are told at least once, in order, again until somebody acknowledges, and nobody waits for somebody else's."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
import structlog
from psycopg import sql
from pydantic import SecretStr

from telemetry.settings import Settings
from telemetry.store import OWNER, connect
from tests.alerting.line import T0, S, acknowledge, alarm, alerting, finding, outcome, producing, rows
from tests.fixtures.receiver import Received, Receiver
from tests.fixtures.waiting import until


@pytest.fixture
def told(plain_store: Settings, receiver: Receiver) -> Settings:
    """A store and a webhook; an unacknowledged alarm is told again after 0.3 s."""
    return plain_store.model_copy(
        update={"webhook_url": receiver.url, "webhook_secret": SecretStr("k"), "webhook_repeat_s": 0.3}
    )


async def notices(settings: Settings, alarm_id: str) -> list[tuple[str, str | None]]:
    got = await rows(
        settings, "SELECT transition, outcome FROM alarm.notice WHERE alarm_id = %s ORDER BY notice_id", alarm_id
    )
    return [(r["transition"], r["outcome"]) for r in got]


async def test_an_alarm_is_told_again_until_somebody_acknowledges(told: Settings, receiver: Receiver) -> None:
    found = finding()

    async def thrice() -> bool:
        return len(receiver.transitions(found.id)) >= 3

    async with producing(told) as analytics, alerting(told):
        await analytics.publish(found)
        await until(thrice)
        await acknowledge(told, found.id, "k1", by="Wang")
        assert await outcome(told, "k1") == "done"
        await analytics.publish(finding(raised=False))

        async def closed() -> bool:
            return receiver.transitions(found.id)[-1] == "clear"

        await until(closed)

        async def settled() -> bool:
            return all(result in ("sent", "withdrawn") for _, result in await notices(told, found.id))

        await until(settled)
        heard = receiver.transitions(found.id)
    repeats = heard[1:-2]
    assert heard == ["raise", *repeats, "acknowledge", "clear"]
    assert set(repeats) == {"repeat"}
    assert len({r.headers["Idempotency-Key"] for r in receiver.received}) == len(receiver.received)
    acknowledged = receiver.received[-2].content
    assert (acknowledged["by"], acknowledged["note"], acknowledged["alarm"]["state"]) == (
        "Wang",
        "on my way",
        "acknowledged",
    )


async def test_the_next_telling_is_no_sooner_than_was_asked_for(told: Settings, receiver: Receiver) -> None:
    found = finding()
    patient = told.model_copy(update={"webhook_repeat_s": 300.0})
    async with producing(patient) as analytics, alerting(patient):
        await analytics.publish(found)

        async def sent() -> bool:
            return ("raise", "sent") in await notices(patient, found.id)

        await until(sent)
    assert await notices(patient, found.id) == [("raise", "sent"), ("repeat", None)]
    due = await rows(
        patient, "SELECT due_at > now() + interval '200 s' AS later FROM alarm.notice WHERE outcome IS NULL"
    )
    assert due == [{"later": True}]


async def test_a_receiver_that_is_down_loses_nothing_and_hears_it_in_order(told: Settings, receiver: Receiver) -> None:
    receiver.stop()
    found = [finding(f"lift-{n}") for n in range(3)]
    async with producing(told) as analytics, alerting(told):
        await analytics.publish(*found, finding("lift-0", raised=False))

        async def tried() -> bool:
            got = await rows(
                told, "SELECT 1 FROM alarm.notice WHERE attempts > 0 AND last_error LIKE 'unreachable: %%'"
            )
            return len(got) >= 3

        await until(tried)
        receiver.start()

        async def all_heard() -> bool:
            return all(receiver.transitions(f.id) for f in found) and "clear" in receiver.transitions(found[0].id)

        await until(all_heard)

        async def over() -> bool:
            events = await rows(
                told, "SELECT state FROM public.events WHERE code = 'webhook-failing' ORDER BY event_id"
            )
            return [e["state"] for e in events] == ["on", "off"]

        await until(over)
    assert receiver.transitions(found[0].id)[0] == "raise"
    assert receiver.transitions(found[0].id)[-1] == "clear"


async def test_when_the_receiver_is_back_what_waited_for_it_is_told_at_once_and_nothing_else_is_hurried(
    told: Settings, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RETRY_FIRST_S", "RETRY_MOST_S"):
        monkeypatch.setattr(f"alerting.delivery.{name}", 1000.0)
    patient = told.model_copy(update={"webhook_repeat_s": 1000.0})
    failing, waiting, last = finding("lift-bad"), [finding(f"lift-{n}") for n in range(3)], finding("lift-9")
    receiver.answer = lambda request: 500 if request.content["equipment"]["id"] == "lift-bad" else 204
    async with producing(patient) as analytics, alerting(patient):
        await analytics.publish(failing)
        await put_off(patient, "failed", 1)
        receiver.stop()
        await analytics.publish(*waiting)
        await put_off(patient, "unreachable", 3)
        receiver.start()
        await analytics.publish(last)

        async def all_sent() -> bool:
            ends = [await notices(patient, f.id) for f in (*waiting, last)]
            return all(("raise", "sent") in end for end in ends)

        await until(all_sent, within_s=10)
    assert [receiver.transitions(f.id) for f in (*waiting, last)] == [["raise"]] * 4, "no repeat was hurried either"
    assert receiver.transitions(failing.id) == ["raise"], "a receiver that answered was there"


async def put_off(settings: Settings, error: str, count: int) -> None:
    """Returns when so many notices wait for their next attempt because of this error."""

    async def waits() -> bool:
        query = "SELECT due_at > now() + interval '400 s' AS far FROM alarm.notice WHERE starts_with(last_error, %s)"
        return [row["far"] for row in await rows(settings, query, error)] == [True] * count

    await until(waits)


async def test_once_acknowledged_an_alarm_has_no_repeat_to_come(told: Settings, receiver: Receiver) -> None:
    """Acknowledged before its first telling ended, or while it waited for its second."""
    patient = told.model_copy(update={"webhook_repeat_s": 1000.0})
    quick, slow = finding("lift-quick"), finding("lift-slow")
    acknowledged = threading.Event()

    def answer(request: Received) -> int:
        if request.content["equipment"]["id"] == "lift-quick":
            acknowledged.wait(20)
        return 204

    receiver.answer = answer
    async with producing(patient) as analytics, alerting(patient):
        await analytics.publish(quick, slow)

        async def told_once() -> bool:
            return await notices(patient, slow.id) == [("raise", "sent"), ("repeat", None)]

        await until(told_once)
        for one in (quick, slow):
            await acknowledge(patient, one.id, one.id)
            assert await outcome(patient, one.id) == "done"
        acknowledged.set()

        async def both_told() -> bool:
            ends = [await notices(patient, one.id) for one in (quick, slow)]
            return all(("acknowledge", "sent") in end for end in ends)

        await until(both_told)
    assert await notices(patient, quick.id) == [("raise", "sent"), ("acknowledge", "sent")]
    assert await notices(patient, slow.id) == [("raise", "sent"), ("repeat", "withdrawn"), ("acknowledge", "sent")]


async def test_a_notice_that_the_receiver_chokes_on_holds_nobody_up(told: Settings, receiver: Receiver) -> None:
    poison, hanging, good = finding("lift-bad"), finding("lift-hang"), [finding(f"lift-{n}") for n in range(12)]

    def answer(request: Received) -> int | None:
        return {"lift-bad": 500, "lift-hang": None}.get(request.content["equipment"]["id"], 204)

    receiver.answer = answer
    async with producing(told) as analytics, alerting(told):
        await analytics.publish(poison, hanging, *good)

        async def heard() -> bool:
            return all(receiver.transitions(f.id) for f in good)

        await until(heard, within_s=5)
    assert dict(await notices(told, poison.id)) == {"raise": None}, "still to be told"


async def test_a_notice_that_is_refused_for_good_is_given_up_said_and_its_alarm_told_again(
    told: Settings, receiver: Receiver
) -> None:
    receiver.answer = lambda _: 422
    found = finding()
    async with producing(told) as analytics:
        async with alerting(told):
            await analytics.publish(found)

            async def tried() -> bool:
                return bool(receiver.received)

            await until(tried)
        await rows(told, "UPDATE alarm.notice SET attempts = 4, due_at = now()")
        async with alerting(told):

            async def given_up() -> bool:
                return (await notices(told, found.id))[:2] == [("raise", "refused"), ("repeat", None)]

            await until(given_up)
    events = await rows(told, "SELECT attributes FROM public.events WHERE code = 'notice-refused'")
    assert [(e["attributes"]["alarm"], e["attributes"]["why"]) for e in events] == [(found.id, "answered 422")]


async def test_a_late_alarm_that_is_over_is_never_told_and_one_that_lasts_is(
    told: Settings, receiver: Receiver
) -> None:
    over, lasts = finding("lift-1", late=True), finding("lift-2", late=True)
    async with producing(told) as analytics, alerting(told):
        await analytics.publish(over, finding("lift-1", raised=False, late=True), lasts)
        await alarm(told, over.id, "returned_unacknowledged")
        await alarm(told, lasts.id)
        assert await notices(told, over.id) == [("raise", "withdrawn")]
        due = await rows(told, "SELECT due_at > now() AS later FROM alarm.notice WHERE alarm_id = %s", lasts.id)
        assert due == [{"later": True}]
        await rows(told, "UPDATE alarm.notice SET due_at = now() WHERE alarm_id = %s", lasts.id)

        async def heard() -> bool:
            return bool(receiver.transitions(lasts.id))

        await until(heard)
    assert receiver.transitions(over.id) == []


async def test_a_webhook_that_is_set_up_later_hears_of_alarms_that_wait(told: Settings, receiver: Receiver) -> None:
    deaf = told.model_copy(update={"webhook_url": None})
    waits, over = finding(), finding("lift-2")
    async with producing(deaf) as analytics, alerting(deaf):
        await analytics.publish(waits, over, finding("lift-2", raised=False))
        await alarm(deaf, over.id, "returned_unacknowledged")
    async with alerting(told):

        async def heard() -> bool:
            return bool(receiver.transitions(waits.id))

        await until(heard)
    assert receiver.transitions(waits.id)[0] == "raise"
    assert receiver.transitions(over.id) == []


async def test_neither_secret_nor_token_is_ever_logged_and_a_failure_once(
    told: Settings, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = io.StringIO()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(said))
    monkeypatch.setattr("alerting.delivery.RETRY_FIRST_S", 0.02)
    try:
        receiver.answer = lambda _: 500
        async with producing(told) as analytics, alerting(told):
            await analytics.publish(finding())

            async def tried() -> bool:
                return len(receiver.received) >= 4

            await until(tried)
    finally:
        structlog.reset_defaults()
    text = said.getvalue()
    assert text.count("webhook failed") == 1
    assert "answered 500" in text
    assert "s3cret" not in text
    assert "webhook_secret" not in text


SERVICE = """
import asyncio, sys
from telemetry.service import Health
from telemetry.settings import Settings
from alerting.service import run
settings = Settings.model_validate_json(sys.stdin.readline())
asyncio.run(run(settings, asyncio.Event(), Health("alert")))
"""


def started(settings: Settings, directory: Path) -> subprocess.Popen[bytes]:
    """The service as a process of its own."""
    with (directory / "alert.log").open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVICE],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=out,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
    assert process.stdin is not None
    process.stdin.write(orjson.dumps({**settings.model_dump(mode="json"), "webhook_secret": "k"}) + b"\n")
    process.stdin.close()
    return process


@pytest.mark.parametrize(
    "tables",
    [
        ("alarm.notice", "store.log_position"),
        pytest.param(
            ("store.progress", "alarm.alarm", "alarm.history", "alarm.notice", "store.log_position"),
            marks=pytest.mark.long,
        ),
    ],
    ids=["two steps", "every step"],
)
async def test_killed_at_any_step_it_goes_on_where_the_database_is(
    told: Settings, receiver: Receiver, tmp_path: Path, tables: Sequence[str]
) -> None:
    """SIGKILL while it waits for a lock in mid-transaction at each of its tables in turn, and while it posts."""
    told = told.model_copy(update={"webhook_repeat_s": 1000.0})
    found: list[Any] = []
    async with producing(told) as analytics:
        for n, table in enumerate(tables):
            found.append(finding(f"lift-{n}", onset_us=T0 + n * S))
            await analytics.publish(found[-1])
            await _killed_while_waiting_for(told, table, tmp_path)
        receiver.answer = lambda _: None
        process = started(told, tmp_path)

        async def posting() -> bool:
            return bool(receiver.received)

        await until(posting, within_s=20)
        process.send_signal(signal.SIGKILL)
        process.wait(5)
        receiver.answer = lambda _: 204
        await rows(told, "UPDATE alarm.notice SET due_at = now() WHERE outcome IS NULL")  # rather than wait for leases
        async with alerting(told):

            async def all_told() -> bool:
                done = await rows(told, "SELECT 1 FROM alarm.notice WHERE outcome = 'sent'")
                return len(done) >= len(found)

            await until(all_told, within_s=20)
    for one in found:
        got = await rows(told, "SELECT transition FROM alarm.history WHERE alarm_id = %s", one.id)
        assert [r["transition"] for r in got] == ["raise"]
        assert {r.headers["Idempotency-Key"] for r in receiver.received if r.content["alarm"]["id"] == one.id} >= {
            str(r["notice_id"])
            for r in await rows(
                told, "SELECT notice_id FROM alarm.notice WHERE alarm_id = %s AND outcome = 'sent'", one.id
            )
        }
        assert [t for t, _ in await notices(told, one.id)][:1] == ["raise"]
    assert await rows(told, "SELECT next FROM store.log_position WHERE service = 'alert'") == [{"next": len(found)}]


async def _killed_while_waiting_for(settings: Settings, table: str, directory: Path) -> None:
    """Starts the service, holds `table` until it waits for it in a transaction, and kills it there."""
    holder = await connect(settings, OWNER)
    try:
        name = sql.SQL(".").join(map(sql.Identifier, table.split(".")))
        await holder.execute(sql.SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(name))
        process = started(settings, directory)
        try:

            async def waits() -> bool:
                got = await rows(
                    settings,
                    "SELECT 1 FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT l.granted"
                    " AND a.application_name = 'vigil_alert' AND l.relation = %s::regclass",
                    table,
                )
                return bool(got)

            await until(waits, within_s=20)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait(5)
    finally:
        await holder.close()
