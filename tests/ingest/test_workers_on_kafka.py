"""Several ingest processes share a real Kafka's partitions: they come, go, are killed, freeze in mid-COPY and wake again."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from ingest.audit import audit
from telemetry.log.protocol import TELEMETRY
from telemetry.settings import Settings
from tests.fixtures.places import forget_topic, rows_of
from tests.fixtures.ports import free_port
from tests.fixtures.store import execute
from tests.fixtures.waiting import until
from tests.ingest.line import Edge, batch, producing, until_stored
from vigil.processes import die_with_parent

pytestmark = pytest.mark.timeout(180)

PARTITIONS = 6
COPYING = """
SELECT pid FROM pg_stat_activity
WHERE datname = current_database() AND query LIKE 'COPY store.sample%' AND state = 'active' AND wait_event = 'ClientRead'
"""
"""Sessions in mid-COPY that wait for more from their client."""


class Workers:
    """`vigil ingest` processes of one group."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.folder = folder
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, *names: str) -> None:
        for name in names:
            state = self.folder / name
            state.mkdir()
            environment = {
                **os.environ,
                "VIGIL_STATE_DIR": str(state),
                "VIGIL_LOG": self.settings.log,
                "VIGIL_LOG_PARTITIONS": str(self.settings.log_partitions),
                "VIGIL_STORE": self.settings.store,
                "VIGIL_INGEST_LISTEN": f"127.0.0.1:{free_port()}",
            }
            with self.words(name).open("wb") as out:
                self.processes[name] = subprocess.Popen(
                    [sys.executable, "-m", "vigil", "ingest"],
                    env=environment,
                    stdout=out,
                    stderr=out,
                    preexec_fn=die_with_parent(signal.SIGKILL),
                )

    def words(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def said(self, name: str, what: str) -> int:
        """How often."""
        words = self.words(name).read_text(errors="replace")
        assert self.processes[name].poll() is None, words[-2000:]
        return words.count(what)

    def signal(self, name: str, number: signal.Signals) -> None:
        self.processes[name].send_signal(number)

    def kill(self, name: str) -> None:
        process = self.processes.pop(name)
        process.kill()
        process.wait(10)


@contextmanager
def workers_of(settings: Settings, folder: Path) -> Iterator[Workers]:
    workers = Workers(settings, folder)
    try:
        yield workers
    finally:
        for name in list(workers.processes):
            workers.kill(name)


@pytest.fixture
async def store(on_kafka: Settings) -> Settings:
    await forget_topic(on_kafka, TELEMETRY)
    return on_kafka.model_copy(update={"log_partitions": PARTITIONS})


@pytest.mark.long
async def test_three_workers_that_join_leave_and_are_killed_in_mid_load_lose_and_double_nothing(
    store: Settings, tmp_path: Path
) -> None:
    async with producing(store) as producer:
        edges = [Edge(producer, f"edge-{secrets.token_hex(4)}") for _ in range(8)]
        changes_are_over = asyncio.Event()

        async def publish() -> None:
            while not changes_are_over.is_set():
                for edge in edges:
                    await edge.send_samples(batch([f"{edge.name}/{point}" for point in "xyz"], samples=50))
                await asyncio.sleep(0.02)

        def everybody_is_further(than: dict[str, int]) -> bool:
            return all(accepted > than.get(name, 0) for name, accepted in progress(store).items()) and bool(than)

        async def everybody_gets_further() -> None:
            await until(lambda: progress(store), within_s=60)
            now = progress(store)
            await until(lambda: everybody_is_further(now), within_s=60, what="every edge's records get further")

        with workers_of(store, tmp_path) as workers:
            load = asyncio.create_task(publish())
            workers.start("first")
            await everybody_gets_further()
            workers.start("second", "third")
            await until(lambda: workers.said("third", "assigned"), within_s=60, what="the third has a share")
            await everybody_gets_further()
            workers.kill("second")
            await everybody_gets_further()
            workers.signal("first", signal.SIGTERM)
            await asyncio.to_thread(workers.processes.pop("first").wait, 20)
            await everybody_gets_further()
            changes_are_over.set()
            await load
            for edge in edges:
                await edge.send_ledger()
            for edge in edges:
                await until_stored(store, edge, within_s=60)
    assert {edge.name: rows_of(store, edge.name) for edge in edges} == {e.name: 150 * (e.seq - 1) for e in edges}
    assert (await audit(store)).clean


async def test_a_worker_frozen_in_mid_copy_is_fenced_when_it_wakes_after_its_partitions_moved(
    store: Settings, tmp_path: Path
) -> None:
    async with producing(store) as producer:
        edges = [Edge(producer, f"edge-{secrets.token_hex(4)}") for _ in range(4)]
        for edge in edges:
            signals = [f"{edge.name}/p{n}" for n in range(20)]
            await edge.send(*(edge.samples(batch(signals, samples=1000, step_us=1000)) for _ in range(30)))
            await edge.send_ledger()
        with workers_of(store, tmp_path) as workers:
            workers.start("zombie")
            await asyncio.to_thread(freeze_in_mid_copy, workers, "zombie", store)
            workers.start("heir")
            for edge in edges:
                await until_stored(store, edge, within_s=90)
            assert ("vigil", "frozen-worker-terminated") in execute(store.store, "SELECT scheme, code FROM events")
            waited = workers.said("zombie", '"event": "waiting"')
            workers.signal("zombie", signal.SIGCONT)
            await until(lambda: workers.said("zombie", '"event": "waiting"') > waited, what="the zombie notices")
            for edge in edges:
                await edge.send_samples(batch([f"{edge.name}/p0"], samples=1))
                await edge.send_ledger()
            for edge in edges:
                await until_stored(store, edge, within_s=60)
    assert {rows_of(store, edge.name) for edge in edges} == {600_001}
    assert (await audit(store)).clean


def freeze_in_mid_copy(workers: Workers, name: str, store: Settings) -> None:
    """Stops a worker again and again until it is caught with rows sent, and more to send."""
    with psycopg.connect(store.store, autocommit=True) as connection:

        def frozen() -> bool:
            if connection.execute(COPYING).fetchone() is None:
                return False
            workers.signal(name, signal.SIGSTOP)
            if caught(connection):
                return True
            workers.signal(name, signal.SIGCONT)
            return False

        give_up = time.monotonic() + 60
        while not frozen():  # without a pause: a COPY takes a tenth of a second
            assert time.monotonic() < give_up, f"never caught in mid-COPY: {workers.words(name).read_text()[-1000:]}"


def caught(connection: psycopg.Connection) -> bool:
    """Whether the server has taken all that was sent, and is still in the COPY."""
    looks = [connection.execute(COPYING).fetchone() for _ in range(200)]
    return all(look is not None for look in looks[-50:])


def progress(store: Settings) -> dict[str, int]:
    """How many records of each edge are stored."""
    statement = (
        "SELECT edge, coalesce(sum(upper(r) - lower(r)), 0)::bigint FROM store.progress, unnest(accepted) r"
        " WHERE service = 'ingest' GROUP BY 1"
    )
    try:
        return dict(execute(store.store, statement))
    except psycopg.errors.UndefinedTable:
        return {}
