"""Connections to the store that are half-open: nothing comes back, and nobody is told."""

from __future__ import annotations

import random
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from psycopg.conninfo import conninfo_to_dict

from telemetry.settings import Settings
from tests.alerting.line import acknowledge, alarm, alerting, finding, producing
from tests.chaos.relay import Relay
from tests.fixtures.store import execute
from tests.fixtures.waiting import until

WITHIN_S = 60.0


async def test_alerting_whose_connections_went_half_open_answers_commands_and_raises_alarms_again(
    plain_store: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for deadline in ("commands.ANSWER_S", "upkeep.ANSWER_S", "worker.FLUSH_S"):
        monkeypatch.setattr(f"alerting.{deadline}", 2.0)
    folder = Path(parse_qs(urlsplit(plain_store.store).query)["host"][0])
    database = conninfo_to_dict(plain_store.store)["dbname"]
    with Relay() as relay:
        way = relay.add("store", folder / ".s.PGSQL.5432")
        through = plain_store.model_copy(update={"store": f"postgresql://postgres@127.0.0.1:{way.port}/{database}"})
        async with producing(plain_store) as analytics, alerting(through) as health:
            first, second = finding(), finding("lift-2")
            await analytics.publish(first)
            await alarm(plain_store, first.id)
            relay.do(lambda: way.begin("black-hole", random.Random(1)))
            await acknowledge(plain_store, first.id, "k1")
            await analytics.publish(second)
            await until(lambda: answered(plain_store, "k1"), WITHIN_S, "the command is carried out")
            await until(lambda: raised(plain_store, second.id), WITHIN_S, "the second alarm")
            await until(lambda: not health.waiting_for, WITHIN_S, "it is not ready again")


def answered(store: Settings, command: str) -> bool:
    statement = "SELECT outcome FROM alarm.command WHERE command_id = %s AND outcome = 'done'"
    return bool(execute(store.store, statement, (command,)))


def raised(store: Settings, alarm_id: str) -> bool:
    return bool(execute(store.store, "SELECT state FROM alarm.alarm WHERE alarm_id = %s", (alarm_id,)))
