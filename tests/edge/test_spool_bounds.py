"""What a spool lets go when it is too much or too old, in which order, and how it says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.spool_bounds import OVERHEAD, NoRoom
from telemetry.ledger import HOUR_US
from telemetry.messages import DroppedCell, DroppedRange, Kind
from telemetry.wire import Encoded
from tests.edge.spools import (
    BIG,
    NOW_US,
    FakeTime,
    batch_of,
    drops,
    event,
    everything,
    forwarded,
    heartbeat,
    journal,
    open_at,
    samples,
)

SIZE = len(samples(10).value) + OVERHEAD


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.sqlite"


def dropped(first: int, last: int, n: int) -> DroppedRange:
    """Of epoch 1, with n samples of equipment e in the hour of NOW_US."""
    return DroppedRange(1, first, last, n, (DroppedCell("e", NOW_US // HOUR_US * HOUR_US, n),))


def kinds(records: list[tuple[int, int, Encoded]]) -> list[Kind]:
    return [record.kind for _, _, record in records]


def test_at_its_bound_the_oldest_samples_go_first_and_events_stay(path: Path) -> None:
    spool = open_at(path, 1, max_bytes=SIZE * 10)
    spool.journal([event(0)], {})
    for n in range(30):
        journal(spool, batch_of("e", 10, time_us=NOW_US + n))
    assert spool.bytes <= SIZE * 10
    kept = everything(spool)
    assert kinds(kept).count(Kind.EVENTS) == 1
    seqs = [seq for _, seq, e in kept if e.kind is Kind.SAMPLES]
    assert seqs == list(range(31 - len(seqs), 31)), "the newest samples, without a gap"
    assert spool.counts.dropped_samples == 10 * (30 - len(seqs))
    spool.publish()
    assert drops(everything(spool)) == [dropped(1, 30 - len(seqs), 10 * (30 - len(seqs)))]
    spool.close()


def test_by_the_other_policy_what_came_first_stays_and_what_comes_is_refused(path: Path) -> None:
    spool = open_at(path, 1, max_bytes=SIZE * 10, policy="newest")
    for n in range(30):
        journal(spool, batch_of("e", 10, time_us=NOW_US + n))
    kept = [seq for _, seq, _ in everything(spool)]
    assert kept == list(range(len(kept)))
    assert len(kept) in (9, 10)
    assert spool.counts.dropped_records == 30 - len(kept)
    spool.journal([event(0)], {})
    assert kinds(everything(spool))[-1] is Kind.EVENTS, "an event drives out the newest samples"
    assert spool.bytes <= SIZE * 10
    sent = forwarded(spool)
    assert [seq for _, seq, e in sent if e.kind is Kind.SAMPLES] == list(range(len(sent) - 1)), "and not from memory"
    spool.publish()
    lost = drops(forwarded(spool))
    assert sum(r.samples for r in lost) == 10 * (30 - len(sent) + 1)
    assert {seq for r in lost for seq in range(r.first, r.last + 1)} == set(range(31)) - {seq for _, seq, _ in sent}
    spool.close()


def test_ranges_of_what_was_dropped_at_once_leave_out_what_was_kept_between(path: Path) -> None:
    spool = open_at(path, 1)
    for n in range(6):
        spool.journal([samples(100, n), *([event(n)] if n % 2 else [])], {})
    spool.close()
    spool = open_at(path, 2, max_bytes=2_000)
    sent = forwarded(spool)
    assert kinds(sent) == [Kind.EVENTS] * 3
    spool.publish()
    expected = [dropped(0, 1, 200), dropped(3, 4, 200), dropped(6, 7, 200)]
    assert drops(forwarded(spool)) == expected
    assert spool.publish() == 0, "said once"
    spool.close()


def test_what_its_sender_has_is_kept_whole_or_refused_whole_where_the_newest_is_refused(path: Path) -> None:
    spool = open_at(path, 1, max_bytes=SIZE * 10, policy="newest")
    for n in range(8):
        spool.journal([samples(10, n)], {}, whole=True)
    before = everything(spool)
    with pytest.raises(NoRoom):
        spool.journal([samples(10, 10), samples(10, 11)], {("e", 0): (20, 1)}, {"k": "v"}, b"x" * 16, whole=True)
    assert everything(spool) == before
    assert (spool.state(), spool.delivered(), spool.seq) == ({}, [], 8)
    assert spool.counts.dropped_records == 0
    spool.journal([samples(10, 10)], {}, whole=True)
    assert len(everything(spool)) == 9, "what fits is kept"
    with pytest.raises(NoRoom):
        spool.journal([samples(10, 11)], {}, whole=True)
    spool.publish()
    assert spool.counts.dropped_records == 0, "a sixteenth is left to what is never refused"
    forwarded(spool)
    spool.journal([samples(10, 10), samples(10, 11)], {}, whole=True)
    assert len(everything(spool)) == 2, "once the log has the others"
    spool.close()


def test_what_the_log_has_is_in_the_way_of_nothing_that_is_to_be_kept_whole(path: Path) -> None:
    spool = open_at(path, 1, max_bytes=SIZE * 10, policy="newest")
    for n in range(9):
        spool.journal([samples(10, n)], {}, whole=True)
    spool.tail.acknowledge(spool.tail.take(max_records=10, max_bytes=BIG))
    spool.journal([samples(10, 10)], {}, whole=True)
    assert [seq for _, seq, _ in everything(spool)] == [9]
    spool.close()


def test_an_event_of_a_commit_that_is_kept_whole_drives_out_the_newest_samples_but_none_of_its_own(path: Path) -> None:
    spool = open_at(path, 1, max_bytes=SIZE * 10, policy="newest")
    for n in range(10):
        spool.journal([samples(10, n)], {})
    spool.journal([samples(10, 10), event(0)], {}, whole=True)
    kept = [seq for _, seq, _ in everything(spool)]
    assert kept[-2:] == [10, 11]
    assert kept[:-2] == list(range(len(kept) - 2)), "the newest of those before went"
    assert spool.bytes <= SIZE * 10
    spool.close()


def test_events_that_are_kept_are_not_driven_out_by_later_ones(path: Path) -> None:
    spool = open_at(path, 1, max_bytes=3_000, policy="newest")
    while spool.bytes + 2 * len(event(0).value) + 600 < 3_000:
        spool.journal([event(0)], {})
    before = everything(spool)
    with pytest.raises(NoRoom):
        spool.journal([event(n) for n in range(6)], {}, whole=True)
    assert everything(spool) == before
    spool.close()


def test_what_could_never_be_kept_whole_is_not_waited_for(path: Path) -> None:
    spool = open_at(path, 1, max_bytes=SIZE * 10, policy="newest")
    spool.journal([samples(10, n) for n in range(12)], {}, whole=True)
    assert spool.bytes <= SIZE * 10
    assert spool.counts.dropped_records == 2, "and what of it goes is told"
    spool.close()


def test_where_the_oldest_goes_everything_that_comes_is_taken(path: Path) -> None:
    spool = open_at(path, 1, max_bytes=SIZE * 10)
    for n in range(30):
        spool.journal([samples(10, n)], {}, whole=True)
    assert everything(spool)[-1][1] == 29
    spool.close()


@pytest.mark.parametrize("policy", ["oldest", "newest"])
def test_events_go_last_and_the_ledger_never(path: Path, policy: str) -> None:
    spool = open_at(path, 1, max_bytes=3_000, policy=policy)
    journal(spool, batch_of("e", 5))
    spool.publish()
    for n in range(40):
        spool.journal([event(n), heartbeat(n)], {})
    kept = kinds(everything(spool))
    assert Kind.SAMPLES not in kept
    assert Kind.HEARTBEAT not in kept
    assert kept[0] is Kind.LEDGER
    assert 5 < kept.count(Kind.EVENTS) < 40
    assert spool.counts.dropped_events == 40 - kept.count(Kind.EVENTS)
    codes = [seq for _, seq, e in everything(spool) if e.kind is Kind.EVENTS]
    newest = 2 + 2 * 39
    assert (newest in codes) is (policy == "oldest")
    spool.close()


def test_what_the_forwarder_holds_is_not_dropped_under_its_hands(path: Path) -> None:
    spool = open_at(path, 1, max_bytes=3_000)
    journal(spool, batch_of("e", 10))
    held = spool.tail.take(max_records=1, max_bytes=BIG)
    for n in range(20):
        journal(spool, batch_of("e", 10, time_us=NOW_US + n))
    assert spool._db.execute("SELECT min(seq) FROM record").fetchone()[0] == 0
    spool.publish()
    assert all(r.first > 0 for r in drops(everything(spool)))
    spool.tail.acknowledge(held)
    spool.settle()
    assert spool._db.execute("SELECT min(seq) FROM record").fetchone()[0] > 0
    spool.close()


def test_what_was_dropped_is_not_forwarded_from_memory(path: Path) -> None:
    spool = open_at(path, 1, max_bytes=3_000)
    for n in range(20):
        journal(spool, batch_of("e", 10, time_us=NOW_US + n))
    kept = [(epoch, seq) for epoch, seq, _ in everything(spool)]
    assert [(epoch, seq) for epoch, seq, _ in forwarded(spool)] == kept
    spool.close()


def test_a_spool_with_a_smaller_bound_than_before_drops_at_opening_and_says_so(path: Path) -> None:
    spool = open_at(path, 1)
    for n in range(10):
        journal(spool, batch_of("e", 100, time_us=NOW_US + n))
    spool.close()
    spool = open_at(path, 2, max_bytes=10_000)
    assert spool.bytes <= 10_000
    gone = spool.counts.dropped_records
    assert gone > 0
    sent = forwarded(spool)
    assert [seq for _, seq, _ in sent] == list(range(gone, 10))
    spool.publish()
    assert drops(forwarded(spool)) == [dropped(0, gone - 1, 100 * gone)]
    spool.close()


def test_what_is_older_than_the_bound_on_age_goes_whatever_its_class_but_the_ledger(path: Path) -> None:
    time = FakeTime()
    spool = open_at(path, 1, stamps=time.stamps(), max_age_s=60.0)
    journal(spool, batch_of("e", 10))
    spool.publish()
    spool.journal([event(0)], {})
    time.pass_s(59)
    spool.journal([event(1)], {})
    assert len(everything(spool)) == 4
    time.pass_s(2)
    spool.journal([event(2)], {})
    assert kinds(everything(spool)) == [Kind.LEDGER, Kind.EVENTS, Kind.EVENTS]
    assert (spool.counts.dropped_samples, spool.counts.dropped_events) == (10, 1)
    spool.close()
    time.pass_s(3600)
    spool = open_at(path, 2, stamps=time.stamps(), max_age_s=60.0)
    assert kinds(everything(spool)) == [Kind.LEDGER], "the hour in which the agent was off counts"
    spool.close()


@pytest.mark.parametrize("step_s", [-400 * 86_400, 400 * 86_400])
def test_a_clock_that_steps_ages_nothing(path: Path, step_s: int) -> None:
    time = FakeTime()
    spool = open_at(path, 1, stamps=time.stamps(), max_age_s=60.0)
    spool.journal([event(0)], {})
    time.wall_us += step_s * 1_000_000
    time.pass_s(30)
    spool.journal([event(1)], {})
    spool.close()
    spool = open_at(path, 2, stamps=time.stamps(), max_age_s=60.0)
    assert len(everything(spool)) == 2, "nor over a restart"
    time.pass_s(31)
    spool.journal([event(2)], {})
    assert [seq for _, seq, _ in everything(spool)] == [1, 0], "and what is old goes all the same"
    spool.close()


def test_without_a_bound_on_age_nothing_is_too_old(path: Path) -> None:
    time = FakeTime()
    spool = open_at(path, 1, stamps=time.stamps())
    spool.journal([event(0)], {})
    time.pass_s(10 * 365 * 86_400)
    spool.journal([event(1)], {})
    assert len(everything(spool)) == 2
    spool.close()


def test_a_drop_whose_commit_fails_did_not_happen(path: Path) -> None:
    spool = open_at(path, 1, max_bytes=SIZE * 3)
    for n in range(3):
        journal(spool, batch_of("e", 10, time_us=NOW_US + n))
    before = everything(spool)
    spool._at = _no
    with pytest.raises(OSError, match="no"):
        journal(spool, batch_of("e", 10, time_us=NOW_US + 9))
    spool._at = lambda point: None
    assert spool.counts.dropped_records == 0
    assert everything(spool) == before
    assert forwarded(spool) == before, "what was to be dropped goes out"
    spool.close()


def _no(point: str) -> None:
    if point == "before commit":
        raise OSError("no")
