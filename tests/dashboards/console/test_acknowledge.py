"""Acknowledging: a command row, its outcome as the answer, the same key the same answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import httpx
import psycopg
import pytest

from dashboards.console.routes import alarms
from tests.dashboards.console.conftest import Alerting, RunningConsole

_numbers = count()


@pytest.fixture
def alarm(console: RunningConsole) -> str:
    """A new alarm that nobody has acknowledged."""
    alarm_id = f"fresh-{next(_numbers)}"
    with console.database() as seed:
        seed.alarm(alarm_id, "lift-0005", "", "comms-loss", priority="high")
    return alarm_id


def _acknowledge(api: httpx.Client, alarm: str, key: str, by: str = "王师傅", note: str = "已到场") -> httpx.Response:
    return api.post(
        f"/api/v1/alarms/{alarm}/acknowledge", json={"by": by, "note": note}, headers={"Idempotency-Key": key}
    )


def test_an_acknowledge_that_alerting_handles_is_done(api: httpx.Client, alarm: str, alerting: Alerting) -> None:
    answer = _acknowledge(api, alarm, f"key-{alarm}")
    assert answer.status_code == 200, answer.text
    assert answer.json()["outcome"] == "done"
    assert answer.json()["alarm"]["state"] == "acknowledged"
    assert answer.json()["alarm"]["acknowledged_by"] == "王师傅"
    assert answer.json()["alarm"]["acknowledge_note"] == "已到场"


def test_the_same_key_gets_the_same_answer_and_is_handled_once(
    api: httpx.Client, alarm: str, alerting: Alerting
) -> None:
    first, second = (_acknowledge(api, alarm, f"key-{alarm}") for _ in range(2))
    assert first.status_code == second.status_code == 200
    assert first.json() == second.json()
    history = api.get(f"/api/v1/alarms/{alarm}").json()["history"]
    assert [h["transition"] for h in history] == ["raise", "acknowledge"]


def test_a_second_person_is_told_that_somebody_was_first(api: httpx.Client, alarm: str, alerting: Alerting) -> None:
    _acknowledge(api, alarm, f"first-{alarm}")
    answer = _acknowledge(api, alarm, f"second-{alarm}", by="李师傅")
    assert answer.status_code == 409
    assert answer.json()["code"] == "already-acknowledged"
    assert answer.json()["alarm"]["acknowledged_by"] == "王师傅"
    assert _acknowledge(api, alarm, f"second-{alarm}", by="李师傅").status_code == 409


def test_two_at_once_make_one_done_and_one_already(console: RunningConsole, alarm: str, alerting: Alerting) -> None:
    statuses: list[int] = []

    def ask(name: str) -> None:
        with console.client() as client:
            statuses.append(_acknowledge(client, alarm, f"{name}-{alarm}", by=name).status_code)

    threads = [threading.Thread(target=ask, args=(name,)) for name in ("anna", "bert")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200, 409]


def test_an_unknown_alarm_is_not_found_and_leaves_no_command(console: RunningConsole, api: httpx.Client) -> None:
    assert _acknowledge(api, "no-such-alarm", "key-unknown").status_code == 404
    with console.database() as seed:
        row = seed.connection.execute("SELECT count(*) FROM alarm.command WHERE alarm_id = 'no-such-alarm'").fetchone()
    assert row == (0,)


def test_without_alerting_it_is_accepted_in_time_and_done_when_alerting_comes(
    console: RunningConsole, api: httpx.Client, alarm: str, tmp_path: Path
) -> None:
    started = time.monotonic()
    answer = _acknowledge(api, alarm, f"key-{alarm}")
    assert answer.status_code == 202
    assert answer.json()["outcome"] == "accepted"
    assert answer.json()["alarm"]["state"] == "unacknowledged"
    assert time.monotonic() - started < alarms.WAIT_S + 1
    with Alerting(console.store_url, tmp_path):
        assert _acknowledge(api, alarm, f"key-{alarm}").status_code == 200


def test_a_key_that_stood_for_something_else_is_refused(api: httpx.Client, alarm: str, alerting: Alerting) -> None:
    _acknowledge(api, alarm, f"key-{alarm}")
    answer = _acknowledge(api, alarm, f"key-{alarm}", note="another note")
    assert answer.status_code == 422
    assert answer.json()["code"] == "key-reused"


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        ({"by": "x"}, {}),
        ({"by": "x"}, {"Idempotency-Key": "short"}),
        ({"by": "   "}, {"Idempotency-Key": "long-enough"}),
        ({"by": "x" * 81}, {"Idempotency-Key": "long-enough"}),
        ({"by": "x\x00"}, {"Idempotency-Key": "long-enough"}),
        ({"by": "x", "note": "\x00"}, {"Idempotency-Key": "long-enough"}),
        ({"note": "nobody"}, {"Idempotency-Key": "long-enough"}),
    ],
)
def test_an_acknowledge_says_who_and_has_a_key(
    api: httpx.Client, alarm: str, body: dict[str, str], headers: dict[str, str]
) -> None:
    answer = api.post(f"/api/v1/alarms/{alarm}/acknowledge", json=body, headers=headers)
    assert answer.status_code == 422
    assert answer.json()["faults"]


@pytest.fixture
def console_login(console: RunningConsole) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """A session with the console's own rights."""
    with psycopg.connect(console.store_url, autocommit=True) as connection:
        connection.execute("SET ROLE vigil_console")
        yield connection


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE alarm.alarm SET state = 'normal'",
        "UPDATE alarm.command SET outcome = 'done'",
        "DELETE FROM alarm.command",
        "INSERT INTO alarm.history (alarm_id, at, transition, from_state, to_state, actor)"
        " VALUES ('a1', now(), 'x', 'x', 'x', 'x')",
        "INSERT INTO store.sample (signal_id, time, value, quality) VALUES (1, now(), 1, 192)",
        "UPDATE register.equipment SET address = ''",
    ],
)
def test_the_consoles_role_may_change_no_alarm_and_no_reading(
    console_login: psycopg.Connection[tuple[object, ...]], statement: str
) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        console_login.execute(statement.encode())
