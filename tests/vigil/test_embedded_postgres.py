"""The embedded PostgreSQL: private, dies with its parent, starts again after SIGKILL, never twice on one directory."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from telemetry.errors import StateLocked
from tests.fixtures.processes import gone
from tests.fixtures.store import StoreServer, execute
from tests.fixtures.waiting import eventually
from vigil.backup import embedded_running
from vigil.embedded import postgres
from vigil.embedded.postgres import EmbeddedPostgres

WITHIN_S = 20.0


@pytest.fixture
def server(server_dir: Path) -> Iterator[StoreServer]:
    server = StoreServer("plain", server_dir)
    yield server
    server.remove()


def test_it_listens_on_a_private_socket_only(server: StoreServer) -> None:
    server.start()
    assert execute(server.url, "SHOW listen_addresses") == [("",)]
    assert execute(server.url, "SHOW fsync") == [("on",)]
    assert execute(server.url, "SHOW synchronous_commit") == [("on",)]
    socket = server.directory / "pg" / postgres.SOCKET_FILE
    assert stat.S_IMODE(socket.stat().st_mode) == 0o700
    assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700


def test_a_deep_state_directory_works(server_dir: Path) -> None:
    server = StoreServer("plain", _made(server_dir / ("deep" * 30) / "down"))
    try:
        server.start()
        assert execute(server.url, "SELECT 1") == [(1,)]
        socket_dir = EmbeddedPostgres(server.directory / "pg").socket_dir
        assert len(os.fsencode(socket_dir / postgres.SOCKET_FILE)) <= postgres.SOCKET_PATH_MAX
        assert stat.S_IMODE(socket_dir.stat().st_mode) == 0o700
    finally:
        server.remove()
        (socket_dir / postgres.SOCKET_FILE).unlink(missing_ok=True)


def test_one_that_takes_too_long_to_stop_is_ended_hides_no_error_and_keeps_what_was_committed(
    server_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vigil.backup.STOP_WITHIN_S", 0.0)
    server = EmbeddedPostgres(server_dir / "pg")
    create = "CREATE TABLE kept AS SELECT 7 AS n"
    with pytest.raises(psycopg.errors.DuplicateTable), embedded_running(server):
        assert [execute(server.url, create) for _ in range(2)]
    with embedded_running(server):
        assert execute(server.url, "SELECT n FROM kept") == [(7,)]


def test_it_starts_again_after_sigkill_with_what_was_committed(server: StoreServer) -> None:
    server.start()
    execute(server.url, "CREATE TABLE kept AS SELECT 7 AS n")
    server.kill()
    server.start()
    assert execute(server.url, "SELECT n FROM kept") == [(7,)]


def test_a_pid_file_whose_number_is_somebody_elses_now_does_not_stop_it(server: StoreServer) -> None:
    server.start()
    server.kill()
    pid_file = server.directory / "pg" / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]))
    server.start()
    assert execute(server.url, "SELECT 1") == [(1,)]


def test_a_second_server_on_the_same_directory_is_refused(server: StoreServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.start()
    monkeypatch.setattr(postgres, "LEAVE_WITHIN_S", 0.2)
    with pytest.raises(StateLocked, match="in use by PostgreSQL"):
        EmbeddedPostgres(server.directory / "pg").prepare()
    assert execute(server.url, "SELECT 1") == [(1,)]


def test_it_dies_with_its_parent(server_dir: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", _PARENT, str(_made(server_dir / "state"))],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    with child:
        assert child.stdout is not None
        pid, url = child.stdout.readline().decode().split()
        assert not gone(int(pid))
        child.send_signal(signal.SIGKILL)
        child.wait(WITHIN_S)
    eventually(lambda: gone(int(pid)), what=f"the end of process {pid}")
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url)


def test_a_killed_initdb_leaves_nothing_that_looks_like_a_data_directory(server_dir: Path) -> None:
    half = server_dir / "pg.new"
    half.mkdir()
    (half / "PG_VERSION").write_text("18\n")
    server = StoreServer("plain", server_dir)
    try:
        server.start()
        assert not half.exists()
        assert execute(server.url, "SELECT 1") == [(1,)]
    finally:
        server.remove()


def _made(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


_PARENT = """
import pathlib, sys, time
from telemetry.errors import StateLocked
from tests.fixtures.store import StoreServer
server = StoreServer("plain", pathlib.Path(sys.argv[1]))
server.start()
print(server.process.pid, server.url, flush=True)
time.sleep(600)
"""
