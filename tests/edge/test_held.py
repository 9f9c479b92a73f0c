"""What a swinging door holds back outlives a kill: each reading that was acknowledged is reported, or lies on a line."""

from __future__ import annotations

import random
from collections.abc import Mapping
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from edge.held import HELD, read_held, spell_held
from edge.intake import Intake, make_intake
from edge.spool import Spool
from edge.swinging_door import Held
from telemetry.arrow_read import decode_samples
from telemetry.messages import Kind
from tests.edge.build import NOW_US, make_equipment, make_profile
from tests.edge.readings import block_of, columns_of, rows_of
from tests.edge.sources import Given, Thing
from tests.edge.spools import BIG, FakeTime, open_at

DEVIATION = 0.5
S = 1_000_000
PROFILE = make_profile(
    {
        "x": {"modbus": {"address": 0}, "report": {"swinging_door": DEVIATION, "heartbeat_s": 60.0}},
        "y": {"modbus": {"address": 1}, "report": {"swinging_door": DEVIATION, "heartbeat_s": 60.0}},
        "z": {"modbus": {"address": 2}, "report": {"deadband": 1.0, "heartbeat_s": 60.0}},
    },
    stale_after_s=600,
)
SOURCE = Given()
Reading = tuple[int, float]


class Run:
    """An edge from its start to a kill: what it takes is committed, or nothing of it is."""

    def __init__(self, path: Path, epoch: int, **more: Any) -> None:
        self.spool: Spool = open_at(path, epoch, **more)
        self.intake: Intake = make_intake(self.spool.state())
        self.intake.mind([], [equipment("e"), equipment("f")])
        self.blocks = {name: block_of(name, "x", "y", "z") for name in ("e", "f")}

    def take(self, second: int, values: Mapping[str, float], *, name: str = "e", time_us: int | None = None) -> None:
        at_us = NOW_US + second * S if time_us is None else time_us
        block = self.blocks[name]
        rows = [(block, block.names.index(f"{name}/{p}"), at_us, value, 192) for p, value in values.items()]
        made = self.intake.prepare([(SOURCE, Thing(columns_of(rows)))])
        self.spool.journal(made.records, made.increments, made.state, provisional=made.provisional)

    def journaled(self, signal: str) -> list[Reading]:
        return journaled(self.spool, signal)


def equipment(name: str) -> Any:
    return make_equipment(name, PROFILE, "modbus+tcp://127.0.0.1:502/1")


def journaled(spool: Spool, signal: str) -> list[Reading]:
    """(time_us, value) of what is on the disk, as it was journaled."""
    found: list[Reading] = []
    for stored in spool.read(0, max_records=100_000, max_bytes=BIG):
        if stored.encoded.kind is Kind.SAMPLES:
            batch = decode_samples(stored.encoded.value)
            rows = zip(batch.signal.tolist(), batch.time_us.tolist(), batch.value.tolist(), strict=True)
            found += [(at, v) for place, at, v in rows if batch.names[place] == signal]
    return found


def off_by(line: list[Reading], reading: Reading) -> Fraction:
    """How far a reading lies from the line, exactly. Raises where it lies beyond its ends."""
    for (t0, v0), (t1, v1) in pairwise(line):
        if t0 <= reading[0] <= t1:
            slope = (Fraction(v1) - Fraction(v0)) / (t1 - t0) if t1 > t0 else Fraction(0)
            return abs(Fraction(reading[1]) - Fraction(v0) - slope * (reading[0] - t0))
    if line and line[-1] == reading:
        return Fraction(0)
    raise AssertionError(f"{reading} was acknowledged, and lies on no line")


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-3, 3), st.integers(1, 5), st.booleans()), min_size=1, max_size=40),
    st.integers(0, 2**32),
)
def test_killed_whenever_each_reading_that_was_taken_is_reported_or_on_a_line(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[float, int, bool]], seed: int
) -> None:
    path = tmp_path_factory.mktemp("held") / "s.sqlite"
    run, taken, second = Run(path, 1), list[Reading](), 0
    drift = random.Random(seed).uniform(-1, 1)
    for number, (value, later, is_killed) in enumerate(steps):
        if is_killed:
            run.spool.close()  # without a word to the intake: as kill -9
            run = Run(path, number + 2)
        second += later
        taken.append((NOW_US + second * S, value + drift * second))
        run.take(second, {"x": taken[-1][1]})
    run.spool.close()
    run = Run(path, 1_000)
    run.take(second + 1, {"y": 0.0})
    line = run.journaled("e/x")
    assert line == sorted(set(line)), "each once, in order"
    assert set(line) <= set(taken)
    assert max(off_by(line, reading) for reading in taken) <= DEVIATION
    run.spool.close()


def test_what_was_held_is_reported_with_the_first_commit_and_once(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    run = Run(path, 1)
    for second in range(5):
        run.take(second, {"x": 1.0, "y": 2.0, "z": 3.0})
        run.take(second, {"x": 10.0}, name="f")
    run.spool.close()
    for epoch in (2, 3):
        run = Run(path, epoch)
        run.take(100, {"z": 9.0})
        for signal, value in (("e/x", 1.0), ("e/y", 2.0), ("f/x", 10.0)):
            assert run.journaled(signal) == [(NOW_US, value), (NOW_US + 4 * S, value)]
        assert not any(v for k, v in run.spool.state().items() if k.startswith(HELD))
        run.spool.close()


def test_killed_before_the_first_commit_it_is_held_still(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    run = Run(path, 1)
    for second in range(5):
        run.take(second, {"x": 1.0})
    run.spool.close()
    Run(path, 2).spool.close()
    run = Run(path, 3)
    assert read_held(run.spool.state()).time_us.tolist() == [NOW_US + 4 * S]
    run.spool.close()


def test_of_equipment_that_is_gone_it_is_reported_and_held_no_more(tmp_path: Path) -> None:
    run = Run(tmp_path / "s.sqlite", 1)
    for second in range(5):
        run.take(second, {"x": 1.0})
    run.intake.mind([equipment("e")], [])
    run.take(5, {"x": 1.0}, name="f")
    assert run.journaled("e/x") == [(NOW_US, 1.0), (NOW_US + 4 * S, 1.0)]
    assert not len(read_held(run.spool.state()))
    run.spool.close()


def test_what_has_gone_silent_goes_out_and_is_held_no_more(tmp_path: Path) -> None:
    run = Run(tmp_path / "s.sqlite", 1)
    for second in range(5):
        run.take(second, {"x": 1.0})
    run.take(100, {"x": 1.0}, name="f")
    assert run.journaled("e/x") == [(NOW_US, 1.0), (NOW_US + 4 * S, 1.0)]
    assert run.spool.state()[f"{HELD}e"] == ""
    run.spool.close()


def test_at_a_clean_stop_nothing_is_held(tmp_path: Path) -> None:
    run = Run(tmp_path / "s.sqlite", 1)
    for second in range(5):
        run.take(second, {"x": 1.0})
    held = run.intake.held()
    assert held.thinned.time_us.tolist() == [NOW_US + 4 * S]
    assert held.state == {f"{HELD}e": ""}
    run.spool.close()


def test_while_the_clock_is_not_set_nothing_is_held_back(tmp_path: Path) -> None:
    """Such a time means nothing after a reboot."""
    time = FakeTime(wall_us=0)
    run = Run(tmp_path / "s.sqlite", 1, stamps=time.stamps())
    for second in range(5):
        run.take(0, {"x": 1.0}, time_us=second * S + S)
    assert not any(v for k, v in run.spool.state().items() if k.startswith(HELD))
    assert run.spool.held == 5
    run.spool.close()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "3",
        '{"point": ["x"]}',
        '{"point": ["x"], "time_us": [1], "value": [2.5], "quality": []}',
        '{"point": ["x", "x"], "time_us": [1, 2], "value": [1, 2], "quality": [192, 192]}',
        '{"point": ["x"], "time_us": ["a"], "value": [2.5], "quality": [192]}',
        '{"point": ["x"], "time_us": [1], "value": [2.5], "quality": [999]}',
        '{"point": ["no name"], "time_us": [1], "value": [2.5], "quality": [192]}',
        '{"point": [], "time_us": [], "value": [], "quality": []}',
    ],
)
def test_what_cannot_be_read_is_left_out(text: str) -> None:
    good = '{"point": ["y"], "time_us": [1], "value": [2.5], "quality": [192]}'
    with capture_logs() as said:
        found = read_held({f"{HELD}e": text, f"{HELD}f": good, "other": text})
    assert (list(found.equipment), found.value.tolist()) == (["f"], [2.5])
    told = [(line["log_level"], line["equipment"]) for line in said]
    assert told == [("error", "e")] * bool(text), "it is said of whom, but for one that holds nothing any more"


def test_what_several_blocks_of_an_equipment_hold_is_kept_by_name_whichever_of_their_points_it_is() -> None:
    first, empty, second = block_of("e", "x", "y", "z"), block_of("e", "u"), block_of("e", "v", "w")
    kept = [
        (first, held_of((1, 5 * S, 1.5, 192), (2, 6 * S, 2.5, 64))),
        (empty, held_of()),
        (second, held_of((1, 7 * S, 3.5, 192))),
    ]
    found = read_held({f"{HELD}e": spell_held(kept)})
    assert rows_of(found) == [
        ("e/y", (5 * S, 1.5, 192)),
        ("e/z", (6 * S, 2.5, 64)),
        ("e/w", (7 * S, 3.5, 192)),
    ]
    assert spell_held([(empty, held_of())]) == ""


def held_of(*rows: tuple[int, int, float, int]) -> Held:
    """(place in the block, time_us, value, quality) of each."""
    at, time_us, value, quality = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Held(
        np.array(at, np.intp), np.array(time_us, np.int64), np.array(value, np.float64), np.array(quality, np.uint8)
    )


def test_apart_from_the_others_a_commit_has_nothing_of_them(tmp_path: Path) -> None:
    """It may be journaled after what comes later (policy newest): an older word of what is held would be the last."""
    path = tmp_path / "s.sqlite"
    run = Run(path, 1)
    for second in range(5):
        run.take(second, {"x": 1.0})
    run.spool.close()
    run = Run(path, 2)
    block = run.blocks["f"]
    rows = [(block, block.names.index("f/x"), NOW_US + 100 * S, 1.0, 192)]
    apart = run.intake.prepare([(SOURCE, Thing(columns_of(rows)))], apart=True)
    assert set(apart.state) == {f"{HELD}f"}
    assert apart.samples == 1
    run.take(101, {"z": 1.0})
    assert run.journaled("e/x")[-1] == (NOW_US + 4 * S, 1.0), "it goes out next time"
    run.spool.close()
