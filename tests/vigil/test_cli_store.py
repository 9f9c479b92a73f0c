"""The commands that ask the store: JSON on stdout, messages on stderr, and a status that a script can rely on."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from telemetry.batch import from_rows
from telemetry.settings import Settings
from telemetry.store import URL_FILE
from tests.fixtures.store import StoreServer, execute, fresh_database
from tests.ingest.line import Edge, batch, ingesting, now_us, producing, until_stored

SUMS = {"journaled", "stored", "dropped", "dead", "in_flight", "lost", "doubled", "edges", "equipment"}


async def vigil(store: str, folder: Path, *arguments: str) -> tuple[int, str, str]:
    """Status, stdout and stderr of a command on a store."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "vigil", *arguments),
        env={**os.environ, "VIGIL_STORE": store, "VIGIL_STATE_DIR": str(folder)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_an_audit_is_clean_with_0_and_tells_a_lost_row_with_1(plain_store: Settings, tmp_path: Path) -> None:
    async with producing(plain_store) as producer, ingesting(plain_store):
        edge = Edge(producer)
        await edge.send_samples(batch(["a/x"], samples=7))
        await edge.send_ledger()
        await until_stored(plain_store, edge)
    status, out, _ = await vigil(plain_store.store, tmp_path, "audit", "--json")
    report: dict[str, Any] = json.loads(out)
    assert status == 0
    assert set(report) == SUMS
    assert (report["journaled"], report["stored"], report["lost"], report["doubled"]) == (7, 7, 0, 0)
    assert {"edge", "epoch"} <= set(report["edges"][0])
    assert {"equipment", "hour", "journaled", "counted"} <= set(report["equipment"][0])
    execute(plain_store.store, "DELETE FROM store.sample WHERE ctid = (SELECT max(ctid) FROM store.sample)")
    status, out, err = await vigil(plain_store.store, tmp_path, "audit", "--json")
    assert (status, json.loads(out)["lost"], err) == (1, 1, "")


async def test_dead_letters_are_listed_as_json_and_a_replay_that_is_refused_fails(
    plain_store: Settings, tmp_path: Path
) -> None:
    async with producing(plain_store) as producer, ingesting(plain_store):
        edge = Edge(producer)
        await edge.send_samples(from_rows([("a/x", now_us() + 900_000_000, 1.0, 192)]))
        await until_stored(plain_store, edge)
    status, out, err = await vigil(plain_store.store, tmp_path, "deadletter", "list", "--json")
    [letter] = json.loads(out)
    assert (status, err, letter["reason"], letter["edge"], letter["seq"]) == (0, "", "future", "edge-1", 0)
    assert "expected at most" in letter["detail"]
    status, out, err = await vigil(plain_store.store, tmp_path, "deadletter", "replay", "--all")
    assert (status, out) == (1, "")
    assert "0 replayed, 0 samples stored, 1 refused" in err
    status, _, err = await vigil(plain_store.store, tmp_path, "deadletter", "replay", "999")
    assert status == 1
    assert "999: no such letter" in err


@pytest.mark.parametrize(
    "command", [("audit",), ("deadletter", "list"), ("deadletter", "replay", "--all")], ids=" ".join
)
async def test_a_database_that_ingest_has_not_migrated_is_said_so(
    plain_server: StoreServer, tmp_path: Path, command: tuple[str, ...]
) -> None:
    with fresh_database(plain_server.url, template=None) as url:
        status, out, err = await vigil(url, tmp_path, *command)
    assert (status, out) == (1, "")
    assert "Traceback" not in err
    assert "expected version" in err
    assert "found 0" in err


@pytest.mark.parametrize("command", [("audit",), ("deadletter", "list")], ids=" ".join)
async def test_of_an_installation_that_is_stopped_it_is_said_how_it_is_started(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    """What tells of its server is still there, and so may be the socket of one that was killed."""
    (tmp_path / URL_FILE).write_text(f"postgresql://postgres@/postgres?host={quote(str(tmp_path), safe='')}")
    expected = (
        f"vigil: embedded store: nothing runs in {tmp_path}, or not yet: start it with `vigil up`, or name another"
    )
    for left in (False, True):
        if left:
            with socket.socket(socket.AF_UNIX) as killed:
                killed.bind(str(tmp_path / ".s.PGSQL.5432"))
        status, out, err = await vigil("embedded:", tmp_path, *command)
        assert (status, out) == (1, "")
        assert err.startswith(expected)
        assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    "store",
    [
        "postgresql://vigil:hun%ter2@127.0.0.1:1/v",
        "postgresql://vigil:hun@ter2@127.0.0.1:1/v",
        "postgresql://localhost:hun/ter2@127.0.0.1:1/v",
        "postgresql://vigil:hunter2@127.0.0.1:1/v?hunter=2",
        "host=127.0.0.1 port=1 password=the hunter2 dbname=v",
        "host=127.0.0.1 port=1 password=the hunter2=x dbname=v",
    ],
)
@pytest.mark.parametrize("command", [("audit",), ("ingest",), ("backup", "--out", "backup")], ids=" ".join)
async def test_an_address_that_does_not_read_is_a_fault_of_its_setting_and_no_part_of_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str, command: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VIGIL_INGEST_LISTEN", "127.0.0.1:0")
    status, out, err = await vigil(store, tmp_path, *command)
    assert status == 2
    assert "VIGIL_STORE: expected embedded: or postgresql://user@host:port/database" in err
    assert not any(part in out + err for part in ("hun", "ter2", "Traceback"))


@pytest.mark.parametrize("command", [("audit",), ("deadletter", "list"), ("backup", "--out", "backup")], ids=" ".join)
async def test_of_a_store_that_does_not_answer_the_setting_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    for store in ("postgresql://vigil:hunter2@127.0.0.1:1/v", "host=127.0.0.1 port=1 password=hunter2 dbname=v"):
        status, _, err = await vigil(store, tmp_path, *command)
        assert status == 1
        assert "vigil: the store that VIGIL_STORE names: connection failed: " in err
        assert "hunter2" not in err


async def test_what_a_server_that_runs_has_to_say_is_said(plain_server: StoreServer, tmp_path: Path) -> None:
    (tmp_path / URL_FILE).write_text(plain_server.url.replace("/postgres?", "/no-such-database?"))
    status, _, err = await vigil("embedded:", tmp_path, "audit")
    assert status == 1
    assert 'database "no-such-database" does not exist' in err
