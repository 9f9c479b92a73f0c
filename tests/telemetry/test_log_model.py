"""The embedded log against a model of plain lists: any order of sends, reads, commits, trims, wipes, kills and reopenings.

The model keeps for each partition every record ever sent and where the kept ones begin. A crash is what SIGKILL leaves:
the files as they are at that moment, copied before anything is closed.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from telemetry.errors import LogDiscontinuity, LogFull
from telemetry.log.protocol import Bounds, OutRecord
from telemetry.log.topic_file import Retention, TopicFile, open_topic

TOPIC = "model"
GROUPS = ("ingest", "analyze")
KEYS = [b"a", b"b", b"c", b"lane-4"]
ROOMY = Retention(cap_bytes=1 << 30, keep_bytes=1 << 30, keep_us=1 << 60)
TIGHT = Retention(cap_bytes=200_000, keep_bytes=0, keep_us=0)


class EmbeddedLogModel(RuleBasedStateMachine):
    """One writer, one other process that reads, and two groups."""

    @initialize(partitions=st.integers(1, 3))
    def make(self, partitions: int) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="vigil-log-model-"))
        self.generation = 0
        self.partitions = partitions
        self.serial = 0
        self.sent: list[list[bytes]] = [[] for _ in range(partitions)]
        self.first = [0] * partitions
        self.committed: dict[str, list[int]] = {}
        self.writer = self.open(durable=True)
        self.reader = self.open(durable=False)

    def open(self, *, durable: bool) -> TopicFile:
        return open_topic(self.home / str(self.generation), TOPIC, partitions=self.partitions, durable=durable)

    @rule(keys=st.lists(st.sampled_from(KEYS), max_size=8), size=st.sampled_from([0, 10, 5000, 60_000]))
    def send(self, keys: list[bytes], size: int) -> None:
        records = [OutRecord(key, f"{self.serial + n}".encode().ljust(size), {"n": b"1"}) for n, key in enumerate(keys)]
        self.serial += len(keys)
        self.writer.append(records, ROOMY)
        self.remember(records)

    @rule(key=st.sampled_from(KEYS), count=st.integers(1, 3))
    def send_at_the_cap(self, key: bytes, count: int) -> None:
        records = [OutRecord(key, f"{self.serial + n}".encode().ljust(60_000), {}) for n in range(count)]
        before = self.kept()
        try:
            self.writer.append(records, TIGHT)
        except LogFull:
            assert before * 60_000 + count * 60_000 > TIGHT.cap_bytes // 4, "refused though there was room"
        else:
            self.remember(records)
            assert self.writer.used_bytes() <= TIGHT.cap_bytes + 3 * 65_536
        self.serial += count
        self.see_trimmed()

    def remember(self, records: list[OutRecord]) -> None:
        for record in records:
            self.sent[self.writer.partition_of(record.key)].append(record.value)

    def kept(self) -> int:
        return sum(len(values) - first for values, first in zip(self.sent, self.first, strict=True))

    @rule(group=st.sampled_from(GROUPS))
    def register(self, group: str) -> None:
        self.reader.register(group)
        self.committed.setdefault(group, list(self.first))

    @precondition(lambda self: self.committed)
    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        group = data.draw(st.sampled_from(sorted(self.committed)))
        number = data.draw(st.integers(0, self.partitions - 1))
        offset = data.draw(st.integers(self.committed[group][number], len(self.sent[number])))
        self.reader.commit(group, {number: offset})
        self.committed[group][number] = offset
        assert self.writer.committed(group) == dict(enumerate(self.committed[group]))

    @rule(group=st.sampled_from(GROUPS))
    def forget(self, group: str) -> None:
        self.writer.forget(group)
        self.committed.pop(group, None)

    @rule()
    def trim(self) -> None:
        self.writer.trim(TIGHT, time.time_ns() // 1000 + 1)
        self.see_trimmed()

    @rule()
    def trim_nothing(self) -> None:
        assert self.writer.trim(ROOMY, time.time_ns() // 1000) == 0

    def see_trimmed(self) -> None:
        """What went may only be what every registered reader has passed, save its last record."""
        for number in range(self.partitions):
            first = self.writer.bounds(number).first
            assert first >= self.first[number]
            if first > self.first[number]:
                assert self.committed
                assert first <= max(self.first[number], min(c[number] for c in self.committed.values()) - 1)
            self.first[number] = first

    @rule(data=st.data(), limit=st.integers(1, 10))
    def read(self, data: st.DataObject, limit: int) -> None:
        number = data.draw(st.integers(0, self.partitions - 1))
        end = len(self.sent[number])
        offset = data.draw(st.integers(-1, end + 1))
        if not self.first[number] <= offset <= end:
            with pytest.raises(LogDiscontinuity, match=f"wanted offset {offset}"):
                self.reader.read(number, offset, max_records=limit)
            return
        records = self.reader.read(number, offset, max_records=limit)
        assert [r.value for r in records] == self.sent[number][offset : offset + limit]
        assert [r.offset for r in records] == list(range(offset, offset + len(records)))

    @rule(data=st.data())
    def look_at_one(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(0, self.partitions - 1))
        offset = data.draw(st.integers(-1, len(self.sent[number]) + 1))
        found = self.reader.at(number, offset)
        there = self.first[number] <= offset < len(self.sent[number])
        assert (found.value if found else None) == (self.sent[number][offset] if there else None)

    @rule()
    def notice_a_change(self) -> None:
        self.reader.changed()
        assert not self.reader.changed()
        self.send([KEYS[0]], 10)
        assert self.reader.changed()

    @rule()
    def reopen(self) -> None:
        self.close()
        self.writer, self.reader = self.open(durable=True), self.open(durable=False)

    @rule()
    def crash(self) -> None:
        """The machine's view after SIGKILL: the files, write-ahead log and all, as they lie there."""
        here = self.home / str(self.generation)
        self.generation += 1
        shutil.copytree(here, self.home / str(self.generation))
        self.close()
        shutil.rmtree(here)
        self.writer, self.reader = self.open(durable=True), self.open(durable=False)

    @rule()
    def wipe(self) -> None:
        for path in (self.home / str(self.generation)).glob("*.sqlite*"):
            path.unlink()
        assert not self.writer.present()
        with pytest.raises(LogDiscontinuity, match="was removed"):
            self.reader.bounds(0)
        self.close()
        self.writer, self.reader = self.open(durable=True), self.open(durable=False)
        self.sent = [[] for _ in range(self.partitions)]
        self.first = [0] * self.partitions
        self.committed = {}

    def close(self) -> None:
        self.writer.close()
        self.reader.close()

    @invariant()
    def bounds_are_the_models_and_offsets_are_never_used_twice(self) -> None:
        for number in range(self.partitions):
            assert self.reader.bounds(number) == Bounds(self.first[number], len(self.sent[number]))

    def teardown(self) -> None:
        if hasattr(self, "home"):
            self.close()
            shutil.rmtree(self.home)


TestEmbeddedLogModel = EmbeddedLogModel.TestCase
TestEmbeddedLogModel.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_the_log_is_the_model_for_longer() -> None:
    run_state_machine_as_test(
        EmbeddedLogModel, settings=settings(max_examples=300, stateful_step_count=60, deadline=None)
    )
