"""What a DBA meets: full disks, tables that somebody holds, wrong passwords, foreign manifests, rows that are not the same."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from pydantic import SecretStr
from structlog.testing import capture_logs

from ingest.backup import LOCK_WAIT, backup
from ingest.backup_contents import differences, relations
from ingest.backup_manifest import DUMP, LOG, NAME, Manifest, TableSum, check_files, read_manifest
from ingest.backup_restore import check_backup, restore
from ingest.backup_tools import Running, Tools
from ingest.migrate import migrate
from telemetry.errors import LogUnavailable, StoreError, StoreUnavailable
from telemetry.settings import Settings
from tests.fixtures.disk import fill, small_disk
from tests.fixtures.store import StoreServer, execute, fresh_database
from tests.fixtures.waiting import eventually
from tests.ingest.backups import TOOLS
from tests.ingest.line import producing
from tests.ingest.test_backup import fake, rewritten
from tests.ingest.test_backup_killed import dumping, held, names


class Recorded:
    """What was said to be on the disk, in order, and whether the backup had its name by then."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.synced: list[tuple[str, bool]] = []
        self._fsync = os.fsync

    def fsync(self, number: int) -> None:
        path = str(Path(f"/proc/self/fd/{number}").readlink())
        self.synced.append((path, self.out.exists()))
        self._fsync(number)


async def test_a_folder_has_its_name_when_all_in_it_is_on_the_disk_and_the_name_then_too(
    plain_store: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "backup"
    recorded = Recorded(out)
    async with producing(plain_store):
        monkeypatch.setattr("os.fsync", recorded.fsync)
        manifest = backup(plain_store, out, tools=TOOLS)
        monkeypatch.undo()
    half = f"{out}.partial"
    before = [path for path, named in recorded.synced if not named]
    assert {f"{half}/{name}" for name in (*manifest.files, DUMP, LOG)} <= set(before)
    assert before[-2:] == [f"{half}/{NAME}", half], "the manifest last, and its name"
    assert [path for path, named in recorded.synced if named] == [str(tmp_path)]


def test_a_backup_gives_up_at_a_table_that_somebody_holds(
    plain_store: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert LOCK_WAIT == "60s"
    monkeypatch.setattr("ingest.backup.LOCK_WAIT", "300ms")
    with held(plain_store), pytest.raises(StoreError, match=r"^store\.event: is not to be had in time: somebody holds"):
        backup(plain_store, tmp_path / "backup", tools=TOOLS)
    assert names(tmp_path) == []
    assert not dumping(plain_store)


def test_a_dump_waits_for_a_table_no_longer_than_the_counting_does(
    plain_store: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.backup.LOCK_WAIT", "300ms")
    monkeypatch.setattr("ingest.backup.contents", lambda connection: {})
    with held(plain_store), pytest.raises(StoreError, match=r"pg_dump: ended with 1: (.|\n)*due to statement timeout"):
        backup(plain_store, tmp_path / "backup", tools=TOOLS)


def test_what_a_dump_that_failed_says_is_told_at_once_and_not_when_all_is_counted(
    plain_store: Settings, tmp_path: Path
) -> None:
    """The counting stands before a table that is held for far longer than this test may take."""
    script = tmp_path / "tools" / "pg_dump"
    script.parent.mkdir()
    script.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo "pg_dump (PostgreSQL) 99.1" && exit\necho no room >&2\nexit 3\n'
    )
    script.chmod(0o755)

    class Only(Tools):
        """Not the ones that are here."""

        __slots__ = ()

        def find(self, name: str, major: int) -> tuple[Path, int]:
            return self.directories[0] / name, major

    began = time.monotonic()
    with held(plain_store), pytest.raises(StoreError, match=r"^pg_dump: ended with 3: no room$"):
        backup(plain_store, tmp_path / "backup", tools=Only([script.parent]))
    assert time.monotonic() - began < 30 < float(LOCK_WAIT.removesuffix("s"))
    assert names(tmp_path) == ["tools"]


def test_counting_that_somebody_else_cancels_is_not_taken_for_a_failed_dump(
    plain_store: Settings, tmp_path: Path
) -> None:
    cancel = (
        "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name = 'vigil backup' AND wait_event_type = 'Lock'"
    )
    with held(plain_store), ThreadPoolExecutor(1) as thread:
        making = thread.submit(backup, plain_store, tmp_path / "backup", tools=TOOLS)
        eventually(lambda: execute(plain_store.store, cancel), what="it counts")
        with pytest.raises(StoreUnavailable, match="canceling statement due to user request"):
            making.result(30)
    assert names(tmp_path) == []


def test_a_backup_that_loses_its_snapshot_ends_its_dump(plain_store: Settings, tmp_path: Path) -> None:
    """By hand: the session that counts is ended, pg_dump's is not."""
    counting = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name = 'vigil backup' AND wait_event_type = 'Lock'"
    )
    failed: list[Exception] = []

    def make() -> None:
        try:
            backup(plain_store, tmp_path / "backup", tools=TOOLS)
        except StoreUnavailable as error:
            failed.append(error)

    with held(plain_store):
        making = threading.Thread(target=make)
        making.start()
        eventually(lambda: dumping(plain_store), what="its dump")
        eventually(lambda: execute(plain_store.store, counting), what="it counts")
        making.join(30)
        assert not making.is_alive()
        eventually(lambda: not dumping(plain_store), 5.0, "the end of its dump, while the table is still held")
    assert len(failed) == 1
    assert names(tmp_path) == []


def test_two_backups_at_once_do_not_disturb_each_other(plain_store: Settings, tmp_path: Path) -> None:
    class Another(Tools):
        """Makes a second backup in the middle of the first."""

        __slots__ = ()

        def find(self, name: str, major: int) -> tuple[Path, int]:
            backup(plain_store, tmp_path / "second", tools=TOOLS)
            return super().find(name, major)

    first = backup(plain_store, tmp_path / "first", tools=Another(TOOLS.directories, TOOLS.preexec_fn))
    assert check_backup(tmp_path / "second").tables == first.tables


async def test_a_full_disk_is_told_and_leaves_nothing(plain_store: Settings, tmp_path: Path) -> None:
    async with (
        producing(plain_store),
        small_disk(tmp_path, size="256k", not_tried="a backup on a disk that is full") as small,
    ):
        fill(small / "somebody-else's")
        with pytest.raises(LogUnavailable, match=r"vigil\.\w+\..*: database or disk is full"):
            backup(plain_store, small / "log", tools=TOOLS)
        kafka = plain_store.model_copy(update={"log": "kafka://db:9092"})
        os.truncate(small / "somebody-else's", (small / "somebody-else's").stat().st_size - 40_000)
        with pytest.raises(StoreError, match=r"pg_dump: ended with 1: (.|\n)*No space left on device"):
            backup(kafka, small / "dump", tools=TOOLS)
        assert names(small) == ["somebody-else's"]


def test_what_the_log_does_not_continue_is_said(plain_store: Settings, tmp_path: Path) -> None:
    execute(
        plain_store.store,
        "INSERT INTO store.log_position (service, topic, partition, next) VALUES ('ingest', 'vigil.telemetry', 0, 7)",
    )
    with capture_logs() as logs:
        backup(plain_store, tmp_path / "backup", tools=TOOLS)
    assert [line["what"] for line in logs if line["event"] == "the log does not continue the store"] == [
        "ingest: vigil.telemetry/0: next 7, the log holds nothing"
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"format": 1, ', "Expecting property name"),
        ("[1]", r"expected format 1, found \[1\]"),
        ("\xff", "Unexpected UTF-8|Expecting value"),
        ("", "Expecting value"),
    ],
)
def test_a_file_that_is_no_manifest_is_refused_by_name(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / NAME).write_text(text, encoding="utf-8")
    with pytest.raises(StoreError, match=f"{NAME}: .*({said})"):
        check_backup(tmp_path)


def test_a_manifest_of_another_shape_is_refused_although_its_sum_is_right(
    plain_store: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = backup(plain_store, tmp_path / "backup", tools=TOOLS)
    whole = manifest.model_dump(mode="json")
    monkeypatch.setattr(Manifest, "model_dump", lambda *_, **__: {**whole, "cipher": "none"})
    manifest.write(tmp_path / "backup")
    with pytest.raises(StoreError, match=f"{NAME}: .*\n.*cipher"):
        read_manifest(tmp_path / "backup")


def test_every_fault_of_the_files_is_named_at_once(plain_store: Settings, tmp_path: Path) -> None:
    manifest = backup(plain_store, tmp_path / "backup", tools=TOOLS)
    folder = tmp_path / "backup" / DUMP
    cut, gone, *_ = sorted(folder.iterdir())
    cut.write_bytes(cut.read_bytes()[:-1])
    gone.unlink()
    (folder / "more").mkdir()
    (folder / "more" / "x").write_bytes(b"")
    with pytest.raises(StoreError) as found:
        check_files(tmp_path / "backup", manifest)
    for text in (f"{gone.name}: is missing", "store/more/x: is not of this backup", f"{cut.name}: expected "):
        assert text in str(found.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"store.event": TableSum(rows=0, checksum="1")}, "store.event: expected rows with the checksum 1, found 0"),
        ({"store.made_up": TableSum(rows=0, checksum="0")}, "store.made_up: is missing"),
        ({"store.event": TableSum(rows=1, checksum="0")}, "store.event: expected 1 rows, found 0"),
    ],
)
def test_a_store_that_is_not_what_was_backed_up_is_said_and_is_none(
    plain_store: Settings, tmp_path: Path, changes: dict[str, TableSum], said: str
) -> None:
    found = backup(plain_store, tmp_path / "backup", tools=TOOLS)
    rewritten(tmp_path / "backup", tables={**found.model_dump()["tables"], **changes})
    with fresh_database(plain_store.store, template=None) as url:
        with pytest.raises(StoreError, match=f"is not what was backed up: {said}$"):
            restore(Settings(store=url, state_dir=tmp_path / "new"), tmp_path / "backup", tools=TOOLS)
        assert execute(url, "SELECT count(*) FROM store_meta.migration") == [(0,)]


def test_a_value_that_differs_and_a_row_too_many_are_found(plain_store: Settings, tmp_path: Path) -> None:
    event = (
        "INSERT INTO store.event (equipment, time, scheme, code, state, edge) VALUES ('a', now(), 's', '4', 'on', 'e')"
    )
    execute(plain_store.store, event)
    manifest = backup(plain_store, tmp_path / "backup", tools=TOOLS)
    with psycopg.connect(plain_store.store, autocommit=True) as connection:
        assert differences(manifest, connection, checksums=True) == []
        connection.execute("UPDATE store.event SET code = '5'")
        (fault,) = differences(manifest, connection, checksums=True)
        assert fault.startswith("store.event: expected rows with the checksum ")
        assert differences(manifest, connection, checksums=False) == []
        connection.execute(event.encode())
        assert differences(manifest, connection, checksums=False) == ["store.event: expected 1 rows, found 2"]


def test_on_another_major_version_rows_are_counted_and_their_hashes_not_compared(
    plain_store: Settings, tmp_path: Path
) -> None:
    """Hashes may differ between them. Statistics are there, so that the first charts are planned well."""
    found = backup(plain_store, tmp_path / "backup", tools=TOOLS)
    tables = {**found.model_dump()["tables"], "store.event": TableSum(rows=0, checksum="1")}
    rewritten(tmp_path / "backup", tables=tables, postgres=found.postgres - 1)
    with fresh_database(plain_store.store, template=None) as url:
        restore(Settings(store=url, state_dir=tmp_path / "new"), tmp_path / "backup", tools=TOOLS)
        analysed = (
            "SELECT last_analyze IS NOT NULL FROM pg_stat_user_tables WHERE schemaname = 'store' AND relname = 'event'"
        )
        assert execute(url, analysed) == [(True,)]


def test_what_an_extension_brought_does_not_make_a_database_full(plain_store: Settings) -> None:
    with fresh_database(plain_store.store, template=None) as url, psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE VIEW its AS SELECT 1")
        assert relations(connection) == ["public.its"]
        connection.execute("ALTER EXTENSION plpgsql ADD VIEW its")
        assert relations(connection) == []
        connection.execute("CREATE SEQUENCE ours")
        assert relations(connection) == ["public.ours"]
        connection.execute("ALTER EXTENSION plpgsql DROP VIEW its")


class Spying(Tools):
    """Says what a tool is started with, and looks at the store at that moment."""

    __slots__ = ()

    def start(self, path: Path, arguments: Sequence[str], conninfo: str) -> Running:
        due = (
            "SELECT bool_and(next_start > now() + interval '9 minutes') FROM timescaledb_information.jobs"
            " WHERE proc_name IN ('policy_compression', 'policy_retention')"
        )
        assert execute(conninfo, due) == [(True,)], "jobs that need a chunk for themselves are put off"
        return super().start(path, arguments, conninfo)


def test_a_backup_of_timescaledb_puts_jobs_off_and_counts_what_is_materialised(
    timescale_store: Settings, tmp_path: Path
) -> None:
    url = timescale_store.store
    execute(url, "SELECT store.apply_retention('90 days', '30 days')")
    execute(url, "INSERT INTO store.signal (name, equipment, point, name_hash) VALUES ('a/x', 'a', 'x', 1)")
    execute(
        url,
        "INSERT INTO store.sample SELECT 1, now() - interval '2 days' + n * interval '1 minute', n, 192"
        " FROM generate_series(0, 119) n",
    )
    for view in ("sample_1m", "sample_1h"):
        execute(url, f"CALL refresh_continuous_aggregate('store.{view}', NULL, now() - interval '1 day')")
    manifest = backup(timescale_store, tmp_path / "backup", tools=Spying(TOOLS.directories, TOOLS.preexec_fn))
    assert manifest.tables["store.sample_1m"].rows == 120
    assert manifest.tables["store.sample_1h"].rows in (2, 3)
    soon = (
        "SELECT bool_or(next_start < now() + interval '9 minutes') FROM timescaledb_information.jobs"
        " WHERE proc_name = 'policy_retention'"
    )
    assert execute(url, soon) == [(True,)], "and they are due again as before"


def test_a_tool_is_not_older_than_the_dump(plain_store: Settings, tmp_path: Path) -> None:
    class Newer(Tools):
        """As if only a newer pg_dump were there."""

        __slots__ = ()

        def find(self, name: str, major: int) -> tuple[Path, int]:
            path, _ = super().find(name, major)
            return path, 98

    assert backup(plain_store, tmp_path / "backup", tools=Newer(TOOLS.directories)).dumped_by == 98
    with (
        fresh_database(plain_store.store, template=None) as url,
        pytest.raises(StoreError, match="pg_restore: expected version 98 or newer"),
    ):
        restore(Settings(store=url, state_dir=tmp_path / "new"), tmp_path / "backup", tools=TOOLS)


def test_of_tools_of_one_version_the_folder_that_was_named_first_counts(tmp_path: Path) -> None:
    first, second = (fake(tmp_path / v, "pg_made_up", "16.1") for v in ("named", "other"))
    assert Tools([first, second]).find("pg_made_up", 15) == (first / "pg_made_up", 16)
    (first / "pg_made_up").chmod(0o644)
    assert Tools([first, second]).find("pg_made_up", 15) == (second / "pg_made_up", 16), "one that does not run is none"


def test_the_last_words_of_a_tool_are_told(tmp_path: Path) -> None:
    script = tmp_path / "pg_made_up"
    script.write_text("#!/bin/sh\nseq 100000\necho why it failed >&2\nexit 3\n")
    script.chmod(0o755)
    running = Tools().start(script, [], "host=nowhere")
    with pytest.raises(StoreError, match=r"^pg_made_up: ended with 3: (.|\n)*\n100000\nwhy it failed$") as error:
        running.wait()
    assert len(str(error.value)) < 2_100
    running.end()


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[StoreServer]:
    """A server that asks for a password."""
    server = StoreServer("plain")
    try:
        server.start()
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("ALTER ROLE postgres PASSWORD 'right'")
            ((hba,),) = connection.execute("SHOW hba_file")
            Path(hba).write_text("local all all scram-sha-256\n")
            connection.execute("SELECT pg_reload_conf()")
        eventually(lambda: not answers(server.url), what="it asks for a password")
        yield server
    finally:
        server.remove()


def answers(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True


async def test_a_password_is_handed_to_the_tools_and_a_wrong_one_is_told(guarded: StoreServer, tmp_path: Path) -> None:
    with fresh_database(make_conninfo(guarded.url, password="right"), template=None) as url:
        right = Settings(
            store=make_conninfo(url, password=None), store_password=SecretStr("right"), state_dir=tmp_path / "state"
        )
        wrong = right.model_copy(update={"store_password": SecretStr("wrong")})
        await migrate(right)
        with pytest.raises(StoreUnavailable, match="password authentication failed"):
            backup(wrong, tmp_path / "wrong", tools=TOOLS)
        manifest = backup(right, tmp_path / "backup", tools=TOOLS)
    assert names(tmp_path) == ["backup"]
    with fresh_database(make_conninfo(guarded.url, password="right"), template=None) as url:
        new = right.model_copy(update={"store": make_conninfo(url, password=None)})
        with pytest.raises(StoreUnavailable, match="password authentication failed"):
            restore(new.model_copy(update={"store_password": SecretStr("wrong")}), tmp_path / "backup", tools=TOOLS)
        assert restore(new, tmp_path / "backup", tools=TOOLS) == manifest
