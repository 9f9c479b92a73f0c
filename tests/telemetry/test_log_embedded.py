"""What only the embedded log promises: its cap, trimming, wiped files, full disks, files that several processes share."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from telemetry.errors import ConfigError, LogDiscontinuity, LogFull, LogUnavailable
from telemetry.log import open_log
from telemetry.log.embedded import FINDINGS_SHARE, EmbeddedLog, EmbeddedProducer
from telemetry.log.protocol import FINDINGS, TELEMETRY, Bounds, OutRecord, Partition
from telemetry.log.record_headers import pack_headers, unpack_headers
from telemetry.log.topic_file import Retention, open_topic
from telemetry.settings import Settings
from tests.telemetry.log_rig import Owner, read_count, read_until, record, start_process

PLACE = Partition(TELEMETRY, 0)
BLOCK = bytes(50_000)


@pytest.fixture
def log(tmp_path: Path) -> EmbeddedLog:
    return EmbeddedLog(tmp_path / "log", 4_000_000)


@pytest.fixture
async def producer(log: EmbeddedLog) -> AsyncIterator[EmbeddedProducer]:
    producer = await log.producer()
    yield producer
    await producer.close()


async def fill(producer: EmbeddedProducer, topic: str = TELEMETRY) -> int:
    """Sends until the log refuses. Returns how many it took."""
    for number in range(1000):
        try:
            await producer.send(topic, [record("k", BLOCK)])
        except LogFull:
            return number
    raise AssertionError("the log never refused")


async def test_at_its_cap_the_log_refuses_names_who_is_behind_and_recovers_when_that_reader_moves_on(
    log: EmbeddedLog, producer: EmbeddedProducer
) -> None:
    reader = await log.reader("ingest", [TELEMETRY], Owner())
    taken = await fill(producer)
    size = sum(path.stat().st_size for path in log.directory.glob("*.sqlite"))
    assert 0.7 * log.max_bytes < size <= log.max_bytes
    with pytest.raises(LogFull, match=rf"vigil.telemetry: \d+ of 3500000 bytes are in use.*ingest/0 at 0 of {taken}"):
        await producer.send(TELEMETRY, [record("k", BLOCK)])
    await producer.send(TELEMETRY, [record("k", "small")])
    assert len(await read_count(reader, taken + 1)) == taken + 1, "nothing that was taken is lost"
    await reader.commit({PLACE: taken + 1})
    assert await fill(producer) >= taken // 2
    await reader.close()


async def test_a_full_telemetry_topic_leaves_room_for_findings(log: EmbeddedLog, producer: EmbeddedProducer) -> None:
    await log.reader("ingest", [TELEMETRY], Owner())
    await fill(producer)
    assert await fill(producer, FINDINGS) >= int(log.max_bytes * FINDINGS_SHARE / len(BLOCK)) - 3


async def test_of_several_sends_that_share_a_commit_only_those_are_refused_that_do_not_fit(
    log: EmbeddedLog, producer: EmbeddedProducer
) -> None:
    await fill(producer)
    outcomes = await asyncio.gather(
        *(producer.send(TELEMETRY, [record("k", value)]) for value in (BLOCK, b"small", BLOCK, b"small")),
        return_exceptions=True,
    )
    assert [type(o) for o in outcomes] == [LogFull, type(None), LogFull, type(None)]


async def test_trimming_leaves_what_the_slowest_registered_reader_has_not_committed(
    log: EmbeddedLog, producer: EmbeddedProducer
) -> None:
    fast = await log.reader("fast", [TELEMETRY], Owner())
    slow = await log.reader("slow", [TELEMETRY], Owner())
    await producer.send(TELEMETRY, [record("k", n) for n in range(100)])
    await fast.commit({PLACE: 100})
    await slow.commit({PLACE: 40})
    file = log.open(TELEMETRY, durable=True)
    now_us = time.time_ns() // 1000
    assert file.trim(Retention(1 << 30, 1 << 30, 60_000_000), now_us) == 0, "neither old nor much"
    assert file.trim(Retention(1 << 30, 1 << 30, 60_000_000), now_us + 61_000_000) == 39
    assert await slow.bounds(PLACE) == Bounds(39, 100), "the last record that the slowest has passed stays"
    assert await slow.read_at(PLACE, 39) is not None
    await slow.commit({PLACE: 90})
    assert file.trim(Retention(1 << 30, 0, 1 << 60), now_us) == 50
    file.close()
    await log.forget("slow", [TELEMETRY])
    file = log.open(TELEMETRY, durable=True)
    assert file.trim(Retention(1 << 30, 0, 1 << 60), now_us) == 10
    file.close()
    await fast.close()
    await slow.close()


async def test_without_a_registered_reader_nothing_is_trimmed(log: EmbeddedLog, producer: EmbeddedProducer) -> None:
    taken = await fill(producer)
    reader = await log.reader("late", [TELEMETRY], Owner())
    assert len(await read_count(reader, taken)) == taken
    await reader.close()


async def test_a_log_wiped_under_its_reader_is_noticed(log: EmbeddedLog, producer: EmbeddedProducer) -> None:
    reader = await log.reader("g", [TELEMETRY], Owner())
    await producer.send(TELEMETRY, [record("k", n) for n in range(5)])
    await read_count(reader, 5)
    for path in log.directory.glob("*.sqlite*"):
        path.unlink()
    with pytest.raises(LogDiscontinuity, match="was removed under its reader"):
        await read_until(reader, bool, seconds=5)
    with pytest.raises(LogDiscontinuity, match="was removed under its reader"):
        await reader.bounds(PLACE)
    await reader.close()


async def test_a_producer_goes_on_in_a_new_log_after_a_wipe_and_readers_are_told_by_their_offset(
    log: EmbeddedLog, producer: EmbeddedProducer
) -> None:
    await producer.send(TELEMETRY, [record("k", n) for n in range(5)])
    for path in log.directory.glob("*.sqlite*"):
        path.unlink()
    await producer.send(TELEMETRY, [record("k", "new")])
    reader = await log.reader("g", [TELEMETRY], Owner({PLACE: 5}))
    with pytest.raises(LogDiscontinuity, match="wanted offset 5, the log holds 0 to 1"):
        await read_count(reader, 1)
    await reader.close()
    reader = await log.reader("h", [TELEMETRY], Owner())
    assert [r.value for r in await read_count(reader, 1)] == [b"new"]
    await reader.close()


async def test_two_logs_of_one_topic_are_named_and_neither_is_chosen(log: EmbeddedLog) -> None:
    await log.ensure_topics([TELEMETRY])
    (path,) = log.directory.glob("*.sqlite")
    (log.directory / f"{TELEMETRY}.{'0' * 16}.sqlite").write_bytes(path.read_bytes())
    with pytest.raises(LogUnavailable, match="more than one log"):
        await log.ensure_topics([TELEMETRY])


async def test_a_file_that_is_no_database_is_named(log: EmbeddedLog, producer: EmbeddedProducer) -> None:
    log.directory.mkdir()
    path = log.directory / f"{TELEMETRY}.{'0' * 16}.sqlite"
    path.write_bytes(b"not a database at all" * 1000)
    with pytest.raises(LogUnavailable, match=path.name):
        await producer.send(TELEMETRY, [record("k", 1)])


async def test_the_number_of_partitions_is_what_was_recorded_when_the_topic_was_made(log: EmbeddedLog) -> None:
    await log.ensure_topics([TELEMETRY])
    wider = EmbeddedLog(log.directory, log.max_bytes, partitions=8)
    owner = Owner()
    reader = await wider.reader("g", [TELEMETRY], owner)
    await read_until(reader, lambda _: bool(owner.held))
    assert owner.held == {PLACE}
    await reader.close()


def test_many_processes_make_one_topic_once(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path, log_partitions=3)
    processes = [start_process(settings, "produce", TELEMETRY, f"p{n}", 5, 10) for n in range(4)]
    for process in processes:
        process.communicate(timeout=30)
        assert process.returncode == 0
    assert len(list((tmp_path / "log").glob("*.sqlite"))) == 1
    file = open_topic(tmp_path / "log", TELEMETRY, partitions=1, durable=False)
    assert sum(file.bounds(n).end for n in range(3)) == 20
    file.close()


def test_what_a_killed_maker_left_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / f"{TELEMETRY}.half-made").write_bytes(b"half")
    (tmp_path / f"{TELEMETRY}.half-made-wal").write_bytes(b"half")
    file = open_topic(tmp_path, TELEMETRY, partitions=1, durable=True)
    assert file.bounds(0) == Bounds(0, 0)
    file.close()
    assert not list(tmp_path.glob("*half-made*"))


async def test_a_full_disk_is_said_loses_nothing_and_is_recovered_from(tmp_path: Path) -> None:
    """In a process of its own, whose files may not grow beyond 1 MB until the limit is lifted."""
    script = f"""
import asyncio, resource
from pathlib import Path
from telemetry.errors import LogError
from telemetry.log.embedded import EmbeddedLog
from telemetry.log.protocol import OutRecord

async def main():
    log = EmbeddedLog(Path({str(tmp_path)!r}), 1 << 30)
    producer = await log.producer()
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
    number = 0
    while True:
        try:
            await producer.send({TELEMETRY!r}, [OutRecord(b"k", str(number).encode().ljust(30_000), {{}})])
        except LogError as error:
            print(type(error).__name__, error, flush=True)
            break
        number += 1
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await producer.send({TELEMETRY!r}, [OutRecord(b"k", b"after", {{}})])
    print(number, flush=True)

asyncio.run(main())
"""
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    said, taken = done.stdout.splitlines()
    assert said.startswith(("LogFull", "LogUnavailable"))
    assert str(tmp_path) in said
    reader = await EmbeddedLog(tmp_path, 1 << 30).reader("g", [TELEMETRY], Owner())
    values = [r.value.strip() for r in await read_until(reader, lambda rs: bool(rs) and rs[-1].value == b"after")]
    assert values == [str(n).encode() for n in range(int(taken))] + [b"after"]
    await reader.close()


async def test_sqlite_saying_that_the_disk_is_full_is_log_full(log: EmbeddedLog, producer: EmbeddedProducer) -> None:
    file = log.open(TELEMETRY, durable=True)
    file._db.execute("PRAGMA max_page_count = 20")
    file.append([record("k", b"fits")], log.retention(TELEMETRY))
    with pytest.raises(LogFull, match="no space left on the disk"):
        file.append([record("k", BLOCK)] * 20, log.retention(TELEMETRY))
    end = file.bounds(0).end
    file._db.execute("PRAGMA max_page_count = 100000")
    file.append([record("k", BLOCK)], log.retention(TELEMETRY))
    assert file.bounds(0).end == end + 1
    file.close()


async def test_a_writer_that_never_lets_go_is_given_up(
    log: EmbeddedLog, producer: EmbeddedProducer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("telemetry.log.topic_file.BUSY_S", 0.1)
    await log.ensure_topics([TELEMETRY])
    (path,) = log.directory.glob("*.sqlite")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(LogUnavailable, match="locked"):
        await producer.send(TELEMETRY, [record("k", 1)])
    other.execute("ROLLBACK")
    other.close()
    await producer.send(TELEMETRY, [record("k", 2)])


async def test_a_send_after_an_error_of_its_own_making_is_not_lost_in_the_thread(
    log: EmbeddedLog, producer: EmbeddedProducer
) -> None:
    with pytest.raises(TypeError):
        await producer.send(TELEMETRY, [OutRecord("text", b"", {})])  # type: ignore[arg-type]
    await producer.send(TELEMETRY, [record("k", 2)])


def test_headers_survive_packing() -> None:
    headers = {"a": b"", "": b"x", "größe": bytes(range(256)) * 300}
    assert unpack_headers(pack_headers(headers)) == headers


@pytest.mark.parametrize(
    "url",
    ["", "embedded", "embedded:x", "kafka:", "kafka://", "kafka://host", "kafka://host:port", "http://host:1",
     "kafka://a:1/path", "kafka://a:1?mechanism=PLAIN", "kafkas://a:1?mechanism=MD5", "kafka://user:secret@a:1"],
)  # fmt: skip
def test_a_url_that_names_no_log_is_said_so_without_its_password(url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="VIGIL_LOG: expected") as caught:
        open_log(Settings(log=url, state_dir=tmp_path))
    assert "secret" not in str(caught.value)


def test_a_user_without_a_password_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="VIGIL_LOG_USER"):
        open_log(Settings(log="kafka://a:1", log_user="vigil", state_dir=tmp_path))
    with pytest.raises(ConfigError, match="PASSWORD_FILE: expected a readable file"):
        open_log(Settings(log="kafka://a:1", log_user="u", log_password_file=tmp_path / "no", state_dir=tmp_path))


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_an_open_log_leaves_no_file_descriptor_behind(log: EmbeddedLog) -> None:
    before = open_files()
    for _ in range(3):
        producer = await log.producer()
        reader = await log.reader("g", [TELEMETRY], Owner())
        await producer.send(TELEMETRY, [record("k", 1)])
        await read_count(reader, 1)
        await reader.close()
        await producer.close()
    assert open_files() <= before
    assert not list(log.directory.glob("*-wal"))
