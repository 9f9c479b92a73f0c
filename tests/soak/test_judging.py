"""The soak's own judgement: it finds what it is there to find, and a seed says what happens."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tests.soak.devices import GOOD, MAYBE, NEVER, Unit
from tests.soak.faults import SORTS, Fault, Run, draw
from tests.soak.gauges import Gauge
from tests.soak.layout import A, B, Place, check, places
from tests.soak.traced import Given, Stored, Traced
from tests.soak.verdict import Verdict
from tests.soak.world import Excuse

FOUND = places(modbus_port=1502, mqtt_port=1883, line=Path("/dev/line"))
INDEX = 3


def traced(numbers: list[int], status: list[int], *, bad_s: list[float] | None = None, why: list[Excuse] | None = None,
           checks: list[int] | None = None, again: list[int] | None = None) -> Traced:  # fmt: skip
    """Answers at 0, 10, 20 … s with these statuses, and rows with these numbers."""
    given = Given(
        np.array([10.0 * n for n in range(len(status))], np.float64),
        np.array(status, np.uint8),
        np.isin(np.arange(1, len(status) + 1), again or []),
    )
    of = np.array([check(n, INDEX) for n in range(1, len(status) + 1)], np.int64)
    said = np.array(checks if checks is not None else [check(n, INDEX) for n in numbers], np.int64)
    at_s = np.array([10.0 * n for n in numbers], np.float64)
    rows = Stored(np.array(numbers, np.int64), said, at_s, np.array(bad_s or [], np.float64))
    found = Traced()
    found.add("e/a", given, rows, of, why or [])
    return found


def test_an_answer_with_its_row_is_as_it_should_be() -> None:
    found = traced([1, 2, 3], [GOOD] * 3)
    assert (found.answers, found.rows, found.lost) == (3, 3, [])
    assert (found.doubled, found.unknown, found.wrong) == (0, 0, 0)


def test_an_answer_without_a_row_is_lost_unless_something_explains_it() -> None:
    assert traced([1, 3], [GOOD] * 3).lost == ["e/a 2 at 10.00"]
    assert traced([1, 3], [GOOD] * 3, bad_s=[10.8]).told == 1, "the edge said that it did not come in time"
    assert traced([1, 3], [GOOD] * 3, bad_s=[9.7]).told == 1, "its connection failed while it made up its answer"
    assert traced([1, 3], [GOOD] * 3, bad_s=[9.5]).told == 0, "nor is that one of this cycle"
    assert traced([1, 3], [GOOD] * 3, bad_s=[15.0]).lost, "that bad reading is of another cycle"
    assert traced([1, 3], [GOOD] * 3, why=[Excuse(9, 11, "", "edge-kill")]).excused == {"edge-kill": 1}
    assert traced([1, 3], [GOOD] * 3, why=[Excuse(9, 11, "other", "silent")]).lost
    assert traced([1, 3], [GOOD, MAYBE, GOOD]).lost == []


def test_an_answer_whose_request_was_asked_again_needs_no_row_if_the_one_to_that_has_one() -> None:
    assert traced([1, 3], [GOOD] * 3, again=[2]).twice == 1
    assert traced([1, 4], [GOOD, GOOD, MAYBE, GOOD], again=[2, 3]).twice == 1, "asked three times"
    assert traced([1, 2], [GOOD] * 3, again=[2]).lost == ["e/a 3 at 20.00"], "that is the one that needs it"
    assert traced([1, 4], [GOOD] * 4, again=[2]).lost == ["e/a 2 at 10.00", "e/a 3 at 20.00"], "neither has one"
    assert traced([1, 2], [GOOD] * 3, again=[3]).lost == ["e/a 3 at 20.00"], "nothing was given after it"


def test_an_answer_to_a_failed_probe_is_counted_and_only_few_may_be() -> None:
    assert traced([1, 4], [GOOD] * 4, bad_s=[5.0]).unreachable == 2, "given up at 5 s, read again at 30 s"
    assert traced([1, 2, 4], [GOOD] * 4, bad_s=[5.0]).lost == ["e/a 3 at 20.00"], "it was read again at 10 s"
    verdict = Verdict()
    verdict.traced("Modbus", traced([1, 4], [GOOD] * 4, bad_s=[5.0]))
    assert [line for line in verdict.broken if "while unreachable 2" in line]


def test_rows_that_are_doubled_or_of_nobody_are_found() -> None:
    assert traced([1, 2, 2, 3], [GOOD] * 3).doubled == 1
    assert traced([1, 2, 4], [GOOD] * 3).unknown == 1
    assert traced([1, 2, 3], [GOOD, NEVER, GOOD]).unknown == 1
    assert traced([1, 2], [GOOD] * 2, checks=[check(1, INDEX), check(2, INDEX + 1)]).wrong == 1


def test_rows_that_are_odd_are_told_with_their_time_number_and_check() -> None:
    found = traced([1, 2, 2, 5], [GOOD, GOOD], checks=[check(1, INDEX), 77, check(2, INDEX), 0])
    assert (found.doubled, found.unknown, found.wrong) == (1, 1, 1)
    assert found.odd == [
        f"doubled: e/a at 20.000000, number 2, check {check(2, INDEX)}",
        "unknown: e/a at 50.000000, number 5, check 0",
        "wrong: e/a at 20.000000, number 2, check 77",
    ]
    verdict = Verdict()
    verdict.traced("Modbus", found)
    assert any("number 2, check 77" in line for line in verdict.lines)


def gauge(at_s: float, *, rss_mb: float = 80.0, descriptors: int = 90, tasks: int | None = 9, rows: int = 10) -> Gauge:
    return Gauge(at_s, 1, rss_mb, descriptors, 7, tasks, 2, 10.0, rows, at_s / 10)


@pytest.mark.parametrize(("grown", "holds"), [(1.0, True), (1.08, True), (1.2, False)])
def test_memory_that_grows_by_more_than_a_tenth_breaks_its_bound(grown: float, holds: bool) -> None:
    verdict = Verdict()
    verdict.memory([gauge(5.0 * i, rss_mb=80 * (1 + (grown - 1) * i / 300)) for i in range(360)])
    assert (verdict.broken == []) is holds, verdict.lines


@pytest.mark.parametrize(
    ("leaking", "word"),
    [
        (lambda: gauge(9, descriptors=120), "descriptors"),
        (lambda: gauge(9, tasks=30), "tasks"),
        (lambda: gauge(9, tasks=None), "tasks"),
        (lambda: gauge(9, rows=9_000), "rows"),
    ],
)
def test_what_is_held_beyond_the_start_is_a_leak(leaking: Callable[[], Gauge], word: str) -> None:
    verdict = Verdict()
    verdict.leaks(gauge(0), leaking(), [gauge(0), leaking()])
    assert [line for line in verdict.broken if word in line], verdict.lines


def test_an_audit_that_is_not_clean_breaks_the_soak() -> None:
    clean = dict.fromkeys(("lost", "doubled", "in_flight", "dead", "dropped"), 0) | {"journaled": 5, "stored": 5}
    verdict = Verdict()
    verdict.audit(clean)
    assert verdict.broken == []
    verdict.audit(clean | {"lost": 1})
    assert verdict.broken == ["audit, lost: 1"]


def every(run: Run) -> list[Fault]:
    return [*run.first, *run.second]


@pytest.mark.parametrize("seed", range(5))
def test_a_seed_draws_the_same_faults_again_one_at_a_time_for_each_target(seed: int) -> None:
    run = draw(seed, 30, FOUND)
    assert run == draw(seed, 30, FOUND)
    assert run != draw(seed + 1, 30, FOUND)
    for target in {fault.target for fault in every(run)}:
        mine = [fault for fault in every(run) if fault.target == target]
        assert all(one.at_s + one.for_s <= next_one.at_s for one, next_one in pairwise(mine))
    assert {"power", "edge-kill", "log-full", "plant-bad"} <= {fault.kind for fault in every(run)} & set(SORTS)
    assert not [fault for fault in run.second if fault.kind in ("edge-kill", "edge-stop")], "one life is measured"
    assert all(fault.at_s + fault.for_s <= run.quiet_s[0] for fault in run.first)
    assert all(run.quiet_s[1] <= fault.at_s and fault.at_s + fault.for_s <= run.end_s for fault in run.second)


def test_a_device_numbers_its_answers_and_knows_which_must_come_to_the_table() -> None:
    unit = Unit(Place("tcp-1", INDEX, "tcp", "127.0.0.1", 502, 1, ""))
    whole = unit.pdu(3, A, 6, at_s=1.0, status=GOOD)
    assert whole[2:8] == b"\0\0\0\1" + check(1, INDEX).to_bytes(2, "big")
    unit.pdu(3, A, 2, at_s=2.0, status=GOOD)
    unit.pdu(3, B, 6, at_s=3.0, status=NEVER)
    assert (list(unit.a.status), list(unit.b.status)) == ([GOOD, MAYBE], [NEVER])
    unit.fault = "refuse"
    assert (unit.refuses(A, 6), unit.refuses(B, 2), unit.refuses(B, 3)) == (None, None, 2)


def test_a_device_knows_an_answer_that_it_was_asked_for_again_on_another_connection() -> None:
    unit = Unit(Place("gateway-1", INDEX, "gateway", "127.0.0.1", 502, 1, ""))
    one, other = object(), object()
    for connection, address in ((one, A), (other, A), (other, B), (one, A), (one, A), (other, B), (None, B), (None, B)):
        unit.pdu(3, address, 6, at_s=1.0, status=GOOD, visit=unit.visit(connection, address, 6))
    assert list(unit.a.again) == [1, 0, 0, 0], (
        "in the next cycle, or on the same connection, it is not the same request"
    )
    assert list(unit.b.again) == [0, 0, 0, 0], "nor where answers name no transaction"
