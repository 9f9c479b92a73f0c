"""TimescaleDB's jobs that need a chunk for themselves stay put off for as long as a backup lives, and no longer."""

from __future__ import annotations

from datetime import datetime

import pytest
from structlog.testing import capture_logs

from ingest.backup_jobs import put_off
from telemetry.settings import Settings
from tests.fixtures.store import execute
from tests.fixtures.waiting import eventually

KINDS = "('policy_compression', 'policy_retention')"
FIRST = f"SELECT min(next_start), max(next_start) FROM timescaledb_information.jobs WHERE proc_name IN {KINDS}"  # noqa: S608
BACKUPS = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'vigil backup'"


@pytest.fixture
def url(timescale_store: Settings) -> str:
    """A store whose jobs are due in the year 2100."""
    execute(timescale_store.store, "SELECT store.apply_retention('90 days', '30 days')")
    later = "SELECT alter_job(job_id, next_start => '2100-01-01') FROM timescaledb_information.jobs WHERE proc_name IN "
    execute(timescale_store.store, later + KINDS)
    return timescale_store.store


def due(url: str) -> tuple[datetime, datetime]:
    ((first, last),) = execute(url, FIRST)
    return first, last


def test_they_are_put_off_again_and_again(url: str) -> None:
    with put_off(url, every_s=0.05):
        _, last = due(url)
        eventually(lambda: due(url)[0] > last, what="every one of them later than all were")
    assert {at.year for at in due(url)} == {2100}


def test_a_backup_that_lost_its_session_goes_on_and_says_that_they_are_no_longer_put_off(url: str) -> None:
    """They are due again after PUT_OFF_S, since nobody sets them back."""
    with capture_logs() as logs:
        with put_off(url, every_s=0.05):
            ((pid,),) = execute(url, BACKUPS)
            execute(url, "SELECT pg_terminate_backend(%s)", (pid,))
            eventually(lambda: logs, what="it is said")
        assert [line["event"] for line in logs] == ["jobs of TimescaleDB are no longer put off"]
    assert {at.year for at in due(url)} != {2100}


def test_they_are_due_as_before_when_the_backup_fails(url: str) -> None:
    def failing() -> None:
        with put_off(url):
            assert {at.year for at in due(url)} != {2100}
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert {at.year for at in due(url)} == {2100}
