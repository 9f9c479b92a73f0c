"""A gateway whose clock was never set: readings wait, are corrected exactly or estimated and marked, and never say 1970."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edge import spool_clock
from edge.columns import join
from edge.provisional import Provisional, provisional_events, provisional_samples
from edge.spool import Spool
from edge.stamps import SET_US
from telemetry.arrow_read import decode_samples
from telemetry.messages import Event, Kind
from telemetry.quality import BAD_COMMS, GOOD, UNCERTAIN_CLOCK
from telemetry.wire import Encoded, decode_events
from tests.edge.spools import (
    BIG,
    NOW_US,
    Crash,
    Crashing,
    FakeTime,
    S,
    columns_of,
    event,
    forwarded,
    ledgers,
    open_at,
)

FLOOR_US = NOW_US - 10**14
UNSET_US = 10 * S
Records = list[tuple[int, int, Encoded]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.sqlite"


def said(time: FakeTime, n: int = 3) -> list[Provisional]:
    """A record of samples and one of an event, as they are read now."""
    now_us = time.boot_us
    alarm = Event("e", now_us, "s", "alarm", True, {"floor": 3})
    return [provisional_samples(columns_of("e", [now_us + i for i in range(n)])), provisional_events([alarm])]


def open_with(path: Path, time: FakeTime, epoch: int = 1, *, hold_s: float = 60.0, **more: Any) -> Spool:
    return open_at(path, epoch, stamps=time.stamps(floor_us=FLOOR_US, hold_s=hold_s), **more)


def samples_of(records: Records) -> list[tuple[int, float, int]]:
    batches = [decode_samples(e.value) for _, _, e in records if e.kind is Kind.SAMPLES]
    return [row for b in batches for row in zip(b.time_us.tolist(), b.value.tolist(), b.quality.tolist(), strict=True)]


def events_of(records: Records) -> list[Event]:
    return [e for _, _, r in records if r.kind is Kind.EVENTS for e in decode_events(r.value)]


def test_what_is_read_before_the_clock_is_set_waits_and_is_corrected_exactly(path: Path) -> None:
    time = FakeTime(wall_us=UNSET_US)
    spool = open_with(path, time)
    spool.journal([], {}, provisional=said(time))
    read_us = time.boot_us
    assert forwarded(spool) == []
    assert spool.held == 2
    time.pass_s(30)
    spool.publish()
    assert spool.held == 2
    time.wall_us = NOW_US
    spool.journal([event()], {})
    sent = forwarded(spool)
    at_us = NOW_US - 30 * S
    assert at_us == read_us + NOW_US - time.boot_us
    assert samples_of(sent) == [(at_us + i, float(i), GOOD) for i in range(3)]
    assert events_of(sent)[0] == Event("e", at_us, "s", "alarm", True, {"floor": 3})
    assert [seq for _, seq, _ in sent] == [0, 1, 2], "numbers are given when the time is known"
    assert sent[-1][2] == event()
    spool.publish()
    (ledger,) = ledgers(forwarded(spool))
    assert [(entry.equipment, entry.samples) for entry in ledger.entries] == [("e", 3)]
    spool.close()


def test_an_alarm_waits_for_no_clock_longer_than_it_was_told_to(path: Path) -> None:
    time = FakeTime(wall_us=UNSET_US)
    spool = open_with(path, time, hold_s=60.0)
    spool.journal([], {}, provisional=said(time))
    time.pass_s(61)
    spool.publish()
    sent = forwarded(spool)
    assert samples_of(sent) == [(FLOOR_US + 5 * S + i, float(i), UNCERTAIN_CLOCK) for i in range(3)]
    assert events_of(sent) == [Event("e", FLOOR_US + 5 * S, "s", "alarm", True, {"floor": 3, "clock": "estimated"})]
    spool.journal([], {}, provisional=said(time, 1))
    sent = forwarded(spool)
    assert [t for t, _, _ in samples_of(sent)] == [FLOOR_US + 66 * S], "and what follows waits no more"
    assert spool.stamps.log_us() == FLOOR_US + 66 * S
    time.wall_us = NOW_US
    spool.journal([], {}, provisional=said(time, 1))
    assert [(t, q) for t, _, q in samples_of(forwarded(spool))] == [(NOW_US, GOOD)], "until the clock is set"
    spool.close()


def test_while_readings_are_held_there_is_no_time_for_heartbeats(path: Path) -> None:
    time = FakeTime(wall_us=UNSET_US)
    spool = open_with(path, time)
    assert spool.stamps.log_us() is None
    assert spool.stamps.now_us() == time.boot_us
    time.wall_us = NOW_US
    assert spool.stamps.log_us() == spool.stamps.now_us() == NOW_US
    spool.close()


def test_what_a_power_cut_left_uncorrected_is_estimated_at_the_next_start(path: Path) -> None:
    time = FakeTime()
    spool = open_with(path, time)
    spool.journal([event()], {})
    forwarded(spool)
    spool.close()
    known_us = time.wall_us
    time.reboot(wall_us=UNSET_US)
    spool = open_with(path, time, 2)
    spool.journal([], {}, provisional=said(time, 1))
    spool._db.close()
    spool.close()
    time.reboot(wall_us=NOW_US + 3600 * S)
    spool = open_with(path, time, 3)
    sent = forwarded(spool)
    assert samples_of(sent) == [(known_us + 5 * S, 0.0, UNCERTAIN_CLOCK)], "after the last time that was known"
    assert {epoch for epoch, _, _ in sent} == {3}
    assert spool.held == 0
    spool.close()


def test_an_estimate_is_never_later_than_now(path: Path) -> None:
    time = FakeTime()
    spool = open_with(path, time)
    spool.journal([event()], {})
    forwarded(spool)
    spool.close()
    time.reboot(wall_us=UNSET_US)
    spool = open_with(path, time, 2)
    time.pass_s(50)
    spool.journal([], {}, provisional=said(time, 2))
    spool.close()
    time.reboot(wall_us=NOW_US + 20 * S)
    spool = open_with(path, time, 3)
    assert [t for t, _, _ in samples_of(forwarded(spool))] == [NOW_US + 20 * S - 1, NOW_US + 20 * S]
    spool.close()


def test_estimates_of_boots_that_follow_each_other_do_not_go_back(path: Path) -> None:
    time = FakeTime(wall_us=UNSET_US)
    times: list[int] = []
    for epoch in range(1, 5):
        spool = open_with(path, time, epoch, hold_s=10.0)
        spool.journal([], {}, provisional=said(time, 1))
        time.pass_s(20 if epoch != 3 else 1)  # the third is cut off while it still holds
        spool.journal([event()], {}, provisional=said(time, 1))
        times += [t for t, _, _ in samples_of(forwarded(spool))]
        spool._db.close()
        spool.close()
        time.reboot(wall_us=UNSET_US)
    assert len(times) == 8
    assert times == sorted(times)
    assert times[0] == FLOOR_US + 5 * S


def test_a_restart_of_the_agent_goes_on_waiting_in_the_same_boot(path: Path) -> None:
    time = FakeTime(wall_us=UNSET_US)
    spool = open_with(path, time)
    spool.journal([], {}, provisional=said(time, 1))
    read_us = time.boot_us
    spool.close()
    time.pass_s(40)
    spool = open_with(path, time, 2)
    assert spool.held == 2
    time.wall_us = NOW_US
    spool.publish()
    assert samples_of(forwarded(spool)) == [(NOW_US - time.boot_us + read_us, 0.0, GOOD)]
    spool.close()
    time.wall_us = UNSET_US
    spool = open_with(path, time, 3)
    spool.journal([], {}, provisional=said(time, 1))
    assert [(t, q) for t, _, q in samples_of(forwarded(spool))] == [(NOW_US, UNCERTAIN_CLOCK)]
    spool.close()


def test_a_clock_that_falls_back_to_1970_is_not_believed_and_its_time_goes_on(path: Path) -> None:
    time = FakeTime()
    spool = open_with(path, time)
    spool.journal([event()], {})
    forwarded(spool)
    time.pass_s(5)
    time.wall_us = UNSET_US
    spool.journal([], {}, provisional=said(time, 1))
    assert samples_of(forwarded(spool)) == [(NOW_US + 5 * S, 0.0, UNCERTAIN_CLOCK)]
    spool.close()


def test_a_bad_reading_stays_bad_and_a_time_of_the_device_is_left_alone(path: Path) -> None:
    time = FakeTime(wall_us=UNSET_US)
    spool = open_with(path, time, hold_s=0.0)
    bad = provisional_samples(columns_of("e", [time.boot_us], quality=BAD_COMMS))
    spool.journal([event(7)], {}, provisional=[bad])
    time.pass_s(1)
    spool.publish()
    sent = forwarded(spool)
    assert sent[0][2] == event(7)
    assert [q for _, _, q in samples_of(sent)] == [BAD_COMMS]
    spool.close()


@pytest.mark.parametrize("point", ["released", "before commit", "after commit"])
def test_a_crash_while_they_are_corrected_loses_and_doubles_nothing(path: Path, point: str) -> None:
    time, crashing = FakeTime(wall_us=UNSET_US), Crashing()
    spool = open_with(path, time, at=crashing)
    spool.journal([], {}, provisional=said(time))
    time.wall_us = NOW_US
    crashing.point = point
    with pytest.raises(Crash):
        spool.publish()
    spool._db.close()
    spool.close()
    spool = open_with(path, time, 2)
    spool.publish()
    sent = forwarded(spool)
    spool.publish()
    sent += forwarded(spool)
    assert len(samples_of(sent)) == 3
    assert len(events_of(sent)) == 1
    assert sum(entry.samples for ledger in ledgers(sent) for entry in ledger.entries) == 3
    assert min(t for t, _, _ in samples_of(sent)) > SET_US
    spool.close()


def test_what_is_held_counts_against_the_bound_and_is_sent_rather_than_pile_up(path: Path) -> None:
    time = FakeTime(wall_us=UNSET_US)
    spool = open_with(path, time, max_bytes=20_000)
    for _ in range(40):
        spool.journal([], {}, provisional=said(time, 20))
        assert spool.bytes <= 20_000
    assert forwarded(spool) != []
    assert spool.counts.dropped_samples > 0
    spool.close()


def test_a_held_record_that_is_damaged_is_set_aside_and_the_others_go_on(path: Path) -> None:
    time = FakeTime(wall_us=UNSET_US)
    spool = open_with(path, time)
    spool.journal([], {}, provisional=said(time, 4))
    spool._db.execute("UPDATE held SET value = CAST(x'00' || value AS BLOB) WHERE kind = 'samples'")
    spool._bounds.stock.held_bytes += 1
    time.wall_us = NOW_US
    spool.publish()
    sent = forwarded(spool)
    assert len(events_of(sent)) == 1
    assert samples_of(sent) == []
    assert (spool.counts.corrupt_records, spool.counts.corrupt_samples) == (1, 4)
    assert spool._db.execute("SELECT kind, count, reason FROM aside").fetchall() == [("samples", 4, "corrupt")]
    assert spool.bytes == 0
    spool.close()


def test_much_that_was_held_is_released_in_parts_and_before_what_comes(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_clock, "RELEASED_BYTES", 500)
    time, points = FakeTime(wall_us=UNSET_US), list[str]()
    spool = open_with(path, time)
    for _ in range(20):
        spool.journal([], {}, provisional=said(time, 5))
        time.pass_s(1)
    time.wall_us = NOW_US
    spool._at = points.append
    spool.journal([event(3)], {})
    assert points.count("released") > 5
    assert spool.held == 0
    sent = forwarded(spool)
    times = [t for t, _, _ in samples_of(sent)]
    assert times == [NOW_US - 20 * S + n * S + i for n in range(20) for i in range(5)]
    assert sent[-1][2] == event(3)
    spool.close()


def test_many_equipments_keep_their_rows_their_order_and_their_names(path: Path) -> None:
    time = FakeTime(wall_us=UNSET_US)
    spool = open_with(path, time)
    parts = [columns_of(f"e{n % 3}", [time.boot_us + n, time.boot_us + n + 1]) for n in range(9)]
    spool.journal([], {}, provisional=[provisional_samples(join(parts))])
    time.wall_us = NOW_US
    spool.publish()
    sent = forwarded(spool)
    batches = [decode_samples(e.value) for _, _, e in sent if e.kind is Kind.SAMPLES]
    names = [b.names[place] for b in batches for place in b.signal]
    assert names == [f"e{n % 3}/p{i}" for n in range(9) for i in range(2)]
    (ledger,) = ledgers(sent)
    assert [(e.equipment, e.samples) for e in ledger.entries] == [("e0", 6), ("e1", 6), ("e2", 6)]
    assert spool.read(0, max_records=1, max_bytes=BIG) == []
    spool.close()
