"""The spool beside a model of it, with crashes at every point: bounds, back-fill, message keys, readings without a clock."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from edge.provisional import Provisional, provisional_events, provisional_samples
from edge.spool_bounds import OVERHEAD
from edge.spool_tail import Stored
from edge.stamps import SET_US
from telemetry.messages import Event, Kind
from telemetry.wire import Encoded, decode_dropped, decode_events, decode_ledger, encode_samples
from tests.edge.spools import (
    BIG,
    NOW_US,
    Crash,
    Crashing,
    FakeTime,
    S,
    batch_of,
    columns_of,
    event,
    heartbeat,
    increments,
    open_at,
)

MEMORY = Path("/dev/shm")  # noqa: S108 (a model needs no real fsync: test_spool_kill.py has it)
POINTS = ["inserted", "released", "before commit", "after commit"]


class SpoolModel(RuleBasedStateMachine):
    """What was journaled is there or with the log or reported as dropped, whatever crashes; the ledger counts just that."""

    @initialize(
        max_bytes=st.sampled_from([4_000, 20_000, BIG]),
        policy=st.sampled_from(["oldest", "newest"]),
        tail_bytes=st.sampled_from([0, 3_000, BIG]),
        max_age_s=st.sampled_from([0.0, 100.0]),
    )
    def start(self, max_bytes: int, policy: Literal["oldest", "newest"], tail_bytes: int, max_age_s: float) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
        self.limits = {"policy": policy, "tail_bytes": tail_bytes, "max_age_s": max_age_s}
        self.max_bytes = max_bytes
        self.crashing = Crashing()
        self.time = FakeTime()
        self.epochs = self.made = 0
        self.journaled: set[bytes] = set()
        """Values of records; each is unlike any other."""
        self.provisional: set[str] = set()
        """Codes of events that were journaled without a clock, each with a record of samples."""
        self.with_log: dict[tuple[int, int], Encoded] = {}
        self.ledger_samples = 0
        self.state: dict[str, str] = {}
        self.keys: list[bytes] = []
        self._open()

    def _open(self) -> None:
        self.epochs += 1
        self.out: list[Stored] = []
        self.spool = open_at(
            self.folder / "spool.sqlite",
            self.epochs,
            self.max_bytes,
            self.crashing,
            stamps=self.time.stamps(floor_us=NOW_US - 10**14),
            **self.limits,
        )

    def _journal(self, n: int, with_event: bool, held: int) -> None:
        self.made += 1
        batch = batch_of("e", n, time_us=NOW_US + self.made)
        records = [encode_samples(batch), heartbeat(self.made), *([event(self.made)] if with_event else [])]
        provisional = self._provisional(held) if self.time.wall_us < SET_US else []
        state, key = {"last": str(self.made)}, self.made.to_bytes(16, "little")
        self.crashing.passed.clear()
        try:
            self.spool.journal(records, increments("e", batch), state, key, provisional=provisional)
        except Crash:
            # What was held is released before, in transactions of its own.
            durable, died = self.crashing.passed[-2:] == ["before commit", "after commit"], True
            durable = durable and "inserted" in self.crashing.passed
        else:
            durable, died = True, False
        self.crashing.point = None
        if durable:
            self.journaled.update(record.value for record in records)
            self.provisional |= {str(self.made)} if provisional else set()
            self.ledger_samples += n + (held if provisional else 0)
            self.state, self.keys = state, [*self.keys, key]
        if died:
            self._die()

    def _provisional(self, n: int) -> list[Provisional]:
        now_us = self.time.boot_us
        return [
            provisional_samples(columns_of("held", [now_us + i for i in range(n)])),
            provisional_events([Event("held", now_us, "s", str(self.made), True)]),
        ]

    def _die(self) -> None:
        """As SIGKILL leaves it: nothing is closed in order, only what was committed is there."""
        self.spool._db.close()
        self.spool.close()
        self._open()

    @rule(n=st.integers(1, 40), with_event=st.booleans(), held=st.integers(1, 9))
    def journals(self, n: int, with_event: bool, held: int) -> None:
        self._journal(n, with_event, held)

    @rule(point=st.sampled_from(POINTS), n=st.integers(1, 10))
    def crashes_while_journaling(self, point: str, n: int) -> None:
        self.crashing.point = point
        self._journal(n, True, 3)

    @rule(n=st.integers(1, 8))
    def forwards_what_is_new(self, n: int) -> None:
        self._sent(self.spool.tail.take(max_records=n, max_bytes=BIG))

    @rule(n=st.integers(1, 8))
    def back_fills(self, n: int) -> None:
        self._sent(self.spool.backlog(max_records=n, max_bytes=BIG))

    def _sent(self, stored: list[Stored]) -> None:
        assert not {s.position for s in stored} & {s.position for s in self.out}, "given out once"
        self.out += stored
        for record in stored:
            key = (record.identity.epoch, record.identity.seq)
            assert self.with_log.get(key, record.encoded) == record.encoded, "a number means one record for ever"
            self.with_log[key] = record.encoded

    @rule(n=st.integers(1, 20))
    def acknowledges(self, n: int) -> None:
        """What is not acknowledged before a crash is sent again."""
        self.spool.tail.acknowledge(self.out[:n])
        del self.out[:n]

    @rule(point=st.sampled_from([None, "before commit", "after commit"]))
    def deletes_what_the_log_has(self, point: str | None) -> None:
        self._crashing(point, self.spool.settle)

    @rule(point=st.sampled_from([None, "released", "before commit", "after commit"]), force=st.booleans())
    def publishes(self, point: str | None, force: bool) -> None:
        self._crashing(point, lambda: self.spool.publish(force=force))

    def _crashing(self, point: str | None, work: Callable[[], object]) -> None:
        self.crashing.point = point
        try:
            work()
        except Crash:
            self._die()
        self.crashing.point = None

    @rule()
    def restarts(self) -> None:
        self.spool.close()
        self._open()

    @rule(seconds=st.sampled_from([1, 30, 70, 120]))
    def time_passes(self, seconds: int) -> None:
        self.time.pass_s(seconds)

    @rule(clock_is_set=st.booleans())
    def power_is_cut_and_returns(self, clock_is_set: bool) -> None:
        self.time.reboot(wall_us=NOW_US + self.made * S if clock_is_set else 10 * S)
        self._die()

    @rule(us=st.sampled_from([NOW_US, NOW_US - 3600 * S, NOW_US + 3600 * S, 10 * S]))
    def the_clock_steps(self, us: int) -> None:
        self.time.wall_us = us

    @invariant()
    def bounded(self) -> None:
        """Beyond the bound only what was handed to the forwarder, control records and what waits for the clock are kept."""
        out = {s.position for s in self.out} | set(self.spool.tail.acknowledged())
        kept = {row[0] for row in self.spool._db.execute("SELECT position FROM record WHERE class < 2")}
        assert self.spool.bytes <= self.max_bytes or not kept - out

    @invariant()
    def byte_count_is_true(self) -> None:
        real = self.spool._db.execute(
            "SELECT coalesce(sum(length(value) + ?1), 0) FROM (SELECT value FROM record UNION ALL SELECT value FROM held)",
            (OVERHEAD,),
        ).fetchone()[0]
        assert self.spool.bytes == real

    @invariant()
    def each_record_is_in_one_place(self) -> None:
        known = self.spool._db.execute("SELECT count(*) FROM record").fetchone()[0]
        assert known == sum(self.spool._bounds.stock.records_of.values())
        assert self.spool.waiting() == known - len(self.spool.tail.acknowledged())

    @invariant()
    def state_and_keys_are_those_of_the_last_commit(self) -> None:
        assert self.spool.state() == self.state
        assert self.spool.delivered() == self.keys

    def teardown(self) -> None:
        """The audit's equation: journaled = with the log + dropped, by number and by samples."""
        if not hasattr(self, "spool"):
            return
        self.crashing.point = None
        self.time.wall_us = NOW_US
        for _ in range(4):
            self.spool.tail.acknowledge(self.out)
            self.out.clear()
            self.spool.settle()
            self.spool.publish(force=True)
            while self.spool.has_backlog or len(self.spool.tail):
                self._sent(self.spool.tail.take(max_records=50, max_bytes=BIG))
                self._sent(self.spool.backlog(max_records=50, max_bytes=BIG))
        assert self.spool.held == 0
        self.spool.close()
        ranges = [r for e in self.with_log.values() if e.kind is Kind.DROPPED for r in decode_dropped(e.value)]
        dropped = {(r.epoch, seq) for r in ranges for seq in range(r.first, r.last + 1)}
        self._each_once(dropped)
        self._no_holes(dropped)
        self._counted()
        shutil.rmtree(self.folder)

    def _each_once(self, dropped: set[tuple[int, int]]) -> None:
        data = {key: e for key, e in self.with_log.items() if e.kind not in (Kind.LEDGER, Kind.DROPPED)}
        values = [e.value for e in data.values()]
        told = [e for v in data.values() if v.kind is Kind.EVENTS for e in decode_events(v.value)]
        codes = [e.code for e in told if e.equipment == "held"]
        mine = [value for value in values if value in self.journaled]
        assert len(mine) == len(set(mine)), "no record under two numbers"
        assert len(codes) == len(set(codes))
        assert set(codes) <= self.provisional
        assert all(e.time_us >= SET_US for e in told), "no time of before the clock was set leaves the agent"
        assert len({*data, *dropped}) == len(self.journaled) + 2 * len(self.provisional)

    def _no_holes(self, dropped: set[tuple[int, int]]) -> None:
        for epoch in range(1, self.epochs + 1):
            seqs = {seq for e, seq in {*self.with_log, *dropped} if e == epoch}
            assert seqs == set(range(len(seqs))), "no hole within an epoch"

    def _counted(self) -> None:
        told = [decode_ledger(e.value) for e in self.with_log.values() if e.kind is Kind.LEDGER]
        total = sum(entry.samples for ledger in told for entry in ledger.entries)
        assert total == self.ledger_samples, "neither lost nor doubled in the ledger"


SpoolModel.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestSpoolAgainstItsModel = SpoolModel.TestCase
