"""Members of a Kafka group: who dies and comes back has its own place, who leaves gives it up, no two have the same."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from telemetry.lock_file import try_lock
from telemetry.log import open_log
from telemetry.log.kafka import KafkaLog
from telemetry.log.kafka_access import Access
from telemetry.log.kafka_seat import take_seat
from telemetry.log.protocol import Partition, Reader
from telemetry.settings import Settings
from tests.fixtures.kafka import KafkaBroker
from tests.telemetry.log_rig import Owner, read_until, start_process
from tests.telemetry.test_lock_file import times_open

TOPICS = ("telemetry", "findings")
SESSION_S = 6.0
_NUMBERS = itertools.count()


def is_free(seat: Path) -> bool:
    """Whether nobody sits there; it was made before."""
    lock = try_lock(seat, create=False)
    if lock is not None:
        os.close(lock)
    return lock is not None


def test_processes_that_live_beside_one_another_have_seats_of_their_own(tmp_path: Path) -> None:
    seats = [take_seat(tmp_path, "ingest", TOPICS) for _ in range(3)]
    assert len({seat.instance for seat in seats}) == 3


def test_who_comes_back_finds_the_seat_that_it_left(tmp_path: Path) -> None:
    first, second = take_seat(tmp_path, "ingest", TOPICS), take_seat(tmp_path, "ingest", TOPICS)
    first.leave()
    assert take_seat(tmp_path, "ingest", TOPICS).instance == first.instance != second.instance


def test_a_seat_that_was_left_twice_takes_nobody_elses_file(tmp_path: Path) -> None:
    seat = take_seat(tmp_path, "ingest", TOPICS)
    seat.leave()
    other = os.open(tmp_path, os.O_RDONLY)  # has the number now that the seat's file had
    seat.leave()
    assert times_open(tmp_path) == 1
    os.close(other)


@pytest.mark.parametrize(
    ("rule", "other"),
    [
        ("of another group", lambda here: take_seat(here, "alert", TOPICS)),
        ("that wants other topics", lambda here: take_seat(here, "ingest", TOPICS[:1])),
        ("in a copy of the state", lambda here: take_seat(shutil.copytree(here, here / "copy"), "ingest", TOPICS)),
    ],
)
def test_a_member_has_another_id(rule: str, other: Callable[[Path], object], tmp_path: Path) -> None:
    seat = take_seat(tmp_path, "ingest", TOPICS)
    seat.leave()
    assert getattr(other(tmp_path), "instance", None) not in (None, seat.instance)


def test_an_id_is_one_that_a_broker_takes(tmp_path: Path) -> None:
    instance = take_seat(tmp_path, "ingest", TOPICS).instance
    assert instance is not None
    assert len(instance) <= 249
    assert instance.replace(".", "").replace("-", "").isalnum()


def test_where_nothing_can_be_kept_nobody_waits_for_the_member(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("a file where the folder would be")
    assert take_seat(tmp_path / "log", "ingest", TOPICS).instance is None


class WithTopics(KafkaLog):
    """One whose topics are there."""

    async def ensure_topics(self, topics: Sequence[str]) -> None:
        """Nothing is to do."""


async def test_a_reader_that_cannot_be_made_leaves_its_seat(tmp_path: Path) -> None:
    log = WithTopics(Access(("127.0.0.1:9",), mechanism="PLAIN", user="has no password"), tmp_path)
    with pytest.raises(ValueError, match="sasl_plain_password"):
        await log.reader("ingest", TOPICS, Owner())
    assert is_free(tmp_path / "seat.ingest.0")


# ---- on a real broker


@pytest.fixture
def topic() -> str:
    return f"seat.{os.getpid()}.{next(_NUMBERS)}"


@pytest.fixture
def settings(kafka_broker: KafkaBroker, tmp_path: Path) -> Settings:
    return Settings(log=kafka_broker.url, log_partitions=4, state_dir=tmp_path)


class Member:
    """A reader in a process of its own."""

    def __init__(self, settings: Settings, topic: str) -> None:
        self.process = start_process(settings, "read", topic, f"group.{topic}")

    async def next_line(self) -> list[str]:
        assert self.process.stdout is not None
        return (await asyncio.to_thread(self.process.stdout.readline)).split()

    def end(self) -> None:
        assert self.process.stdout is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture
def members() -> Iterator[list[Member]]:
    started: list[Member] = []
    yield started
    for member in started:
        if member.process.poll() is None:
            member.end()


@asynccontextmanager
async def sharing(settings: Settings, topic: str, members: list[Member]) -> AsyncIterator[Owner]:
    """A reader here, which goes on fetching and leaves at the end, with half of the partitions; a process has the rest."""
    owner = Owner()
    reader = await open_log(settings).reader(f"group.{topic}", [topic], owner)
    try:
        await read_until(reader, lambda _: len(owner.held) == 4)
        members.append(Member(settings, topic))
        await read_until(reader, lambda _: len(owner.held) == 2, seconds=30)
        fetching = asyncio.create_task(fetch_on(reader))
        assert (await members[0].next_line())[0] == "assigned"
        yield owner
        fetching.cancel()
        await asyncio.wait([fetching])
    finally:
        await reader.close()


async def test_a_reader_that_cannot_subscribe_leaves_its_seat(kafka_broker: KafkaBroker, tmp_path: Path) -> None:
    log = open_log(Settings(log=kafka_broker.url, state_dir=tmp_path))
    with pytest.raises(TypeError, match="topics"):
        await log.reader("ingest", [], Owner())
    assert is_free(tmp_path / "log" / "seat.ingest.0")


async def fetch_on(reader: Reader) -> None:
    while True:
        await reader.fetch(max_records=10, max_wait_s=0.2)


async def test_a_member_that_is_killed_and_comes_back_has_its_partitions_at_once_and_nobody_elses_are_touched(
    settings: Settings, topic: str, members: list[Member]
) -> None:
    async with sharing(settings, topic, members) as owner:
        mine, told = set(owner.held), len(owner.told)
        members[0].end()
        killed = time.monotonic()
        members.append(Member(settings, topic))
        found, *numbers = await members[1].next_line()
        assert time.monotonic() - killed < SESSION_S - 1, "it did not wait for its own session to end"
        assert found == "assigned"
        assert {Partition(topic, int(n)) for n in numbers} == {Partition(topic, n) for n in range(4)} - mine
        assert owner.told[told:] == []


async def test_a_member_that_leaves_is_not_waited_for(settings: Settings, topic: str, members: list[Member]) -> None:
    async with sharing(settings, topic, members):
        left = time.monotonic()
    while (await members[0].next_line())[0] != "assigned":
        pass
    assert time.monotonic() - left < SESSION_S - 2
