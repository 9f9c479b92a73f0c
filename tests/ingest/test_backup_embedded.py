"""`vigil backup` and `vigil restore` of an installation on one machine: embedded PostgreSQL and embedded log."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from ingest.backup_manifest import Manifest, read_manifest
from ingest.migrate import migrate
from telemetry.settings import Settings
from tests.fixtures.store import execute
from tests.fixtures.waiting import until
from tests.ingest.line import Edge, batch, count, ingesting, producing, until_stored
from vigil.backup import RESTORING, embedded_running
from vigil.embedded.postgres import EmbeddedPostgres
from vigil.up import locked


def vigil(state: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command, as its user runs it."""
    return subprocess.run(
        [sys.executable, "-m", "vigil", *arguments, "--state", str(state)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def backed_up_while_it_runs(state: Path, server: EmbeddedPostgres) -> None:
    """Through the server that `vigil up` runs, which is left running; nothing is restored over it."""
    (state / "store.url").write_text(server.url, encoding="utf-8")
    done = vigil(state, "backup", "--out", str(state.parent / "while-it-runs"))
    assert done.returncode == 0, done.stderr
    assert execute(server.url, "SELECT count(*) FROM store.sample") == [(20,)]
    refused = vigil(state, "restore", str(state.parent / "while-it-runs"))
    assert refused.returncode == 1
    assert "in use by process" in refused.stderr


async def lived(state: Path) -> tuple[Edge, Manifest]:
    """An installation with two records in its store and a third on its log, stopped and backed up."""
    server = EmbeddedPostgres(state / "pg")
    with locked(state), embedded_running(server):
        settings = Settings(store=server.url, state_dir=state)
        await migrate(settings)
        async with producing(settings) as producer:
            edge = Edge(producer)
            async with ingesting(settings):
                await edge.send_samples(batch(["a/x"]), batch(["a/y"]))
                await until_stored(settings, edge)
            await edge.send_samples(batch(["a/x"]))
        backed_up_while_it_runs(state, server)
    done = vigil(state, "backup", "--out", str(state.parent / "backup"))
    assert done.returncode == 0, done.stderr
    assert "20 samples" in done.stderr
    assert "ingest: vigil.telemetry/0: next offset 2" in done.stderr
    return edge, read_manifest(state.parent / "backup")


async def kill_in_the_middle(state: Path, backup: Path) -> None:
    """SIGKILL to a restore whose database server is up."""
    command = [sys.executable, "-m", "vigil", "restore", str(backup), "--state", str(state)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: ASYNC220
    try:
        await until(lambda: (state / RESTORING / "postmaster.pid").exists(), what="a restore in its middle")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(20)


async def test_an_installation_comes_back_on_another_disk_also_after_a_killed_restore(server_dir: Path) -> None:
    edge, manifest = await lived(server_dir / "old")
    assert read_manifest(server_dir / "while-it-runs").tables == manifest.tables
    assert [part.end for part in manifest.log if part.topic == "vigil.telemetry"] == [3]
    new = server_dir / "new"
    checked = vigil(new, "restore", "--check", str(server_dir / "backup"))
    assert (checked.returncode, checked.stderr.splitlines()[0]) == (0, "whole")
    assert not new.exists()
    await kill_in_the_middle(new, server_dir / "backup")
    assert not (new / "pg").exists()
    done = vigil(new, "restore", str(server_dir / "backup"))
    assert done.returncode == 0, done.stderr
    assert not (new / RESTORING).exists()
    assert "the embedded log was restored, too" in done.stderr
    server = EmbeddedPostgres(new / "pg")
    with embedded_running(server):
        settings = Settings(store=server.url, state_dir=new)
        assert count(settings) == 20
        async with ingesting(settings):
            await until_stored(settings, edge)
        assert count(settings) == 30
    again = vigil(new, "restore", str(server_dir / "backup"))
    assert again.returncode == 1
    assert "a store is there already" in again.stderr


def test_where_no_store_is_nothing_is_backed_up(tmp_path: Path) -> None:
    done = vigil(tmp_path / "state", "backup", "--out", str(tmp_path / "backup"))
    assert done.returncode == 1
    assert "no store is there" in done.stderr
    assert not (tmp_path / "backup").exists()
