"""Every record is in the store exactly once, whatever is sent twice, killed or frozen."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ingest.metrics import RESTARTS
from telemetry.settings import Settings
from tests.fixtures.store import StoreServer, execute, fresh_database
from tests.fixtures.waiting import until
from tests.ingest.line import Edge, batch, count, ingesting, producing, until_stored
from vigil.processes import die_with_parent

TOTAL = "vigil_ingest_restarts_total"


@contextmanager
def held_worker(settings: Settings, state: Path, point: str) -> Iterator[subprocess.Popen[bytes]]:
    with (state / "worker.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.ingest.held_worker", settings.store, str(state), point],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            preexec_fn=die_with_parent(signal.SIGKILL),
            cwd=Path(__file__).parents[2],
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        process.stdout.close()


async def until_held(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    async with asyncio.timeout(30):
        assert await asyncio.to_thread(process.stdout.readline) == b"held\n"


def other_log(settings: Settings, state: Path) -> Path:
    """A copy of the log, as another member of the group would read it while the first one is frozen.

    By another process: closing a SQLite file that this one has open would let go of the producer's locks.
    """
    state.mkdir()
    subprocess.run(["cp", "-r", str(settings.state_dir / "log"), str(state / "log")], check=True)
    for lock in (state / "log").glob("group.*/*"):
        lock.unlink()
    return state


async def test_a_record_that_the_log_has_twice_is_stored_once(store: Settings) -> None:
    async with producing(store) as producer, ingesting(store):
        edge = Edge(producer)
        await edge.send_samples(batch(["a/x", "a/y"]), batch(["b/x"]))
        await producer.send("vigil.telemetry", edge.sent)
        await edge.send_samples(batch(["b/x"], samples=1))
        await until_stored(store, edge)
        assert count(store) == 31
        rows = execute(store.store, "SELECT samples, missing::text FROM ingest_progress")
        assert rows == [(31, "{}")]


async def test_flush_after_flush_goes_in_without_beginning_again(plain_store: Settings) -> None:
    """An offset that the worker expects wrongly costs a session each time: nothing is lost by it, all speed is."""

    def begun_again() -> float:
        return sum(sample.value for metric in RESTARTS.collect() for sample in metric.samples if sample.name == TOTAL)

    before = begun_again()
    async with producing(plain_store) as producer, ingesting(plain_store):
        edge = Edge(producer)
        for _ in range(4):
            await edge.send_samples(batch(["a/x"]))
            await until_stored(plain_store, edge)
    assert count(plain_store) == 40
    assert begun_again() == before


async def test_back_fill_may_be_overtaken_and_still_comes_in(store: Settings) -> None:
    async with producing(store) as producer, ingesting(store):
        edge = Edge(producer)
        late, live = edge.samples(batch(["a/x"])), edge.samples(batch(["a/x"], samples=3))
        await edge.send(live)
        await until(lambda: count(store) == 3)
        assert execute(store.store, "SELECT missing::text FROM ingest_progress") == [("{[0,1)}",)]
        await edge.send(late)
        await until_stored(store, edge)
        assert count(store) == 13


@pytest.mark.parametrize("point", ["rows", "commit", "end"])
async def test_killed_anywhere_in_its_transaction_nothing_is_lost_or_doubled(store: Settings, point: str) -> None:
    async with producing(store) as producer:
        edge = Edge(producer)
        await edge.send_samples(batch(["a/x"], samples=100))
        with held_worker(store, store.state_dir, point) as process:
            await until_held(process)
            process.kill()
            process.wait(10)
        assert count(store) == 0
        async with ingesting(store):
            await until_stored(store, edge)
            assert count(store) == 100


async def test_a_zombie_that_wakes_up_after_its_partition_moved_commits_nothing(
    store: Settings, tmp_path: Path
) -> None:
    async with producing(store) as producer:
        edge = Edge(producer)
        await edge.send_samples(batch(["a/x"], samples=100))
        successor = Settings(store=store.store, state_dir=other_log(store, tmp_path / "successor"))
        with held_worker(store, store.state_dir, "start") as zombie:
            await until_held(zombie)
            async with ingesting(successor):
                await until_stored(store, edge)
            assert zombie.stdin is not None
            zombie.stdin.write(b"\n")
            zombie.stdin.flush()
            written = store.state_dir / "worker.log"
            await until(lambda: "began again from the database" in written.read_text(), what="the zombie noticed")
            await edge.send_samples(batch(["a/x"], samples=1))
            await until_stored(store, edge)
        assert count(store) == 101


async def test_a_worker_frozen_in_mid_transaction_is_terminated_by_its_successor(
    store: Settings, tmp_path: Path
) -> None:
    async with producing(store) as producer:
        edge = Edge(producer)
        await edge.send_samples(batch(["a/x"], samples=100))
        successor = Settings(store=store.store, state_dir=other_log(store, tmp_path / "successor"))
        with held_worker(store, store.state_dir, "commit") as frozen:
            await until_held(frozen)
            os.kill(frozen.pid, signal.SIGSTOP)
            async with ingesting(successor):
                await until_stored(store, edge)
            os.kill(frozen.pid, signal.SIGCONT)
            events = execute(store.store, "SELECT scheme, code FROM events")
            assert ("vigil", "frozen-worker-terminated") in events
        assert count(store) == 100


async def test_a_login_that_is_only_a_member_of_vigil_ingest_may_terminate_another(
    plain_server: StoreServer, tmp_path: Path
) -> None:
    with fresh_database(plain_server.url) as url:
        for name in ("ingest_a", "ingest_b"):
            execute(url, f"DROP ROLE IF EXISTS {name}")
            execute(url, f"CREATE ROLE {name} LOGIN IN ROLE vigil_ingest")
        first = Settings(store=url.replace("postgres@", "ingest_a@"), state_dir=tmp_path / "a")
        async with producing(first) as producer:
            edge = Edge(producer)
            await edge.send_samples(batch(["a/x"], samples=100))
            state = other_log(first, tmp_path / "b")
            with held_worker(first, first.state_dir, "commit") as frozen:
                await until_held(frozen)
                os.kill(frozen.pid, signal.SIGSTOP)
                async with ingesting(Settings(store=url.replace("postgres@", "ingest_b@"), state_dir=state)):
                    await until_stored(Settings(store=url), edge)
            assert count(Settings(store=url)) == 100


async def test_a_database_that_is_killed_and_comes_back_loses_and_doubles_nothing(
    server_dir: Path, tmp_path: Path
) -> None:
    server = StoreServer("plain", server_dir)
    settings = Settings(store=server.url, state_dir=tmp_path / "state")
    try:
        async with producing(settings) as producer, ingesting(settings) as health:
            await until(lambda: "store" in health.waiting_for, what="waiting for the database")
            await asyncio.to_thread(server.start)
            edge = Edge(producer)
            await edge.send_samples(batch(["a/x"], samples=10))
            await until(lambda: not health.waiting_for, what="ready")
            for _ in range(3):
                await edge.send_samples(*(batch(["a/x"], samples=10) for _ in range(20)))
                server.kill()
                await edge.send_samples(batch(["a/x"], samples=10))
                await until(lambda: "store" in health.waiting_for, what="the loss noticed")
                server.start()
            await until_stored(settings, edge)
            assert count(settings) == 640
    finally:
        server.remove()
