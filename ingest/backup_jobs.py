"""TimescaleDB's jobs that need a chunk for themselves, put off while a backup reads.

pg_dump holds every table for as long as it runs (ACCESS SHARE). A columnstore or retention job that comes meanwhile waits
for its chunk, and whoever reads or writes that chunk queues up behind it (tried with 2.28.3: boards stood still until the
dump was done). So these jobs are put off, again and again, while the backup lives.

Invariant: whatever becomes of the backup, the jobs are due again after PUT_OFF_S at the latest.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, LiteralString

import psycopg
import structlog

log = structlog.get_logger()

Connection = psycopg.Connection[Any]

PUT_OFF_S: Final = 600.0
EVERY_S: Final = 60.0
END_WITHIN_S: Final = 30.0


@contextmanager
def put_off(conninfo: str, *, every_s: float = EVERY_S) -> Iterator[None]:
    """While the body runs the jobs do not start; then they are due when they were, or at once if that is past."""
    with psycopg.connect(conninfo, autocommit=True, application_name="vigil backup") as connection:
        before: list[tuple[int, Any]] = connection.execute(_DUE).fetchall()
        done = threading.Event()
        jobs = [number for number, _ in before]
        _again(connection, jobs)
        keeping = threading.Thread(
            target=_keep, args=(connection, jobs, done, every_s), name="backup-jobs", daemon=True
        )
        keeping.start()
        try:
            yield
        finally:
            done.set()
            keeping.join(END_WITHIN_S)
            if not keeping.is_alive() and not connection.closed:
                for number, due in before:
                    connection.execute(_RESTORE, {"job": number, "due": due})


def _keep(connection: Connection, jobs: list[int], done: threading.Event, every_s: float) -> None:
    while not done.wait(every_s):
        try:
            _again(connection, jobs)
        except psycopg.Error as error:
            log.warning("jobs of TimescaleDB are no longer put off", why=str(error).strip())
            return


def _again(connection: Connection, jobs: list[int]) -> None:
    for number in jobs:
        connection.execute(_PUT_OFF, {"job": number, "seconds": PUT_OFF_S})


_DUE: Final[LiteralString] = """
SELECT job_id, CASE WHEN next_start > '-infinity' THEN next_start END FROM timescaledb_information.jobs
WHERE proc_name IN ('policy_compression', 'policy_retention') ORDER BY 1
"""
_PUT_OFF: Final[LiteralString] = """
SELECT alter_job(%(job)s, next_start => clock_timestamp() + make_interval(secs => %(seconds)s))
"""
_RESTORE: Final[LiteralString] = """
SELECT alter_job(%(job)s, next_start => greatest(%(due)s::timestamptz, clock_timestamp()))
"""
