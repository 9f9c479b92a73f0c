"""Detection: how fast, and on recorded data how well.   python -m benchmarks.detect --data DIR [--json FILE]

Speed: samples per second on one core of limit checks and of the level detector, at 1 k, 10 k and 100 k signals.
SKAB (DIR/skab): the level detectors of profiles/pump-testbed.yaml, their thresholds as they stand in that file: nothing
is chosen here. Judged after each file's first 400 rows, the board's own training part.
Elevator (DIR/elevator): the level detectors of profiles/lift-door.yaml on the unlabelled feed: alarms a day.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from analytics.detectors.conditions import Conditions
from analytics.detectors.contract import Detector, Readings
from analytics.detectors.level import Levels
from analytics.rules import Catalogue, compile_plant
from benchmarks import scoring
from benchmarks.machine import machine
from telemetry.files import load_profile
from telemetry.messages import Finding
from telemetry.plant import Equipment, Plant, PlantEquipment, PlantFile, Site, parse_address
from telemetry.profile import Profile, Text

TRAIN_ROWS = 400
TOLERANCE_S = 30.0
BATCH = 20_000
SPEED_S = 2.0
"""How long each speed is measured."""
DAY_S = 86_400.0

Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Feed:
    """A recorded file: time_s (n,), values (n, points) in the order of `points`, labels (n,)."""

    name: str
    time_s: Float64
    points: tuple[str, ...]
    values: Float64
    label: Bool


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints what was measured; with --json also writes it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with skab/ and elevator/")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args(arguments)
    figures: dict[str, Any] = {"machine": machine(), "speed": speeds()}
    if options.data is not None:
        figures |= {"skab": skab(options.data / "skab"), "elevator": elevator(options.data / "elevator")}
    text = json.dumps(figures, indent=2, ensure_ascii=False)
    if options.json is not None:
        options.json.write_text(text + "\n", encoding="utf-8")
    sys.stdout.write(text + "\n")


def speeds() -> dict[str, dict[str, int]]:
    """Samples per second on one core, by number of signals; one sample of each signal in turn, batches of BATCH."""
    made: tuple[tuple[str, Callable[[Catalogue], Detector]], ...] = (("limits", Conditions), ("level", Levels))
    sizes = (1_000, 10_000, 100_000)
    return {name: {str(n): _speed(make(_wide(n)), n) for n in sizes} for name, make in made}


def _speed(detector: Detector, signals: int) -> int:
    """Values wander near the limit, so that alarms come and go: about one reading in a thousand."""
    random = np.random.default_rng(0)
    done, spent, step = 0, 0.0, 0
    while spent < SPEED_S:
        place = np.arange(step * BATCH, (step + 1) * BATCH)
        given = Readings(
            place % signals,
            (place // signals + 1) * 1_000_000,
            random.normal(50.0, 13.0, BATCH),
            np.ones(BATCH, np.bool_),
            np.zeros(BATCH, np.int64),
        )
        began = time.process_time()
        detector.update(given)
        spent += time.process_time() - began
        done, step = done + BATCH, step + 1
    return round(done / spent)


def _wide(signals: int) -> Catalogue:
    """Equipment of 20 points, each with a high and a low limit and a level detector."""
    word = {"zh": "x", "en": "x"}
    low_high = {
        name: {"priority": "low", "text": word, "limit": limit, "hysteresis": 2.0, "on_delay_s": delay}
        for name, limit, delay in (("high", 90.0, 0.0), ("low", 5.0, 2.0))
    }
    point = {"name": word, "mqtt": {}, "alarms": low_high, "detectors": [{"warmup_s": 30.0}]}
    profile = Profile.model_validate(
        {
            "profile": "wide",
            "version": 1,
            "class": "rig",
            "class_name": word,
            "name": word,
            "points": {f"p{i}": point for i in range(20)},
        }
    )
    return _catalogue(profile, [f"e{i}" for i in range(signals // 20)])


def skab(folder: Path) -> dict[str, Any]:
    """The level detectors on SKAB's 34 labelled files."""
    profile = load_profile("pump-testbed")
    files = sorted(f for kind in ("valve1", "valve2", "other") for f in (folder / kind).glob("*.csv"))
    feeds = [_read(f, profile, f"{f.parent.name}-{f.stem}") for f in files]
    findings, _, seconds = judge(profile, feeds)
    flags = {feed.name: _flagged(feed, findings) for feed in feeds}
    samples = sum(feed.values.size for feed in feeds)
    random = np.random.default_rng(0)
    share = float(np.mean(np.concatenate([flags[f.name][TRAIN_ROWS:] for f in feeds])))
    baselines: dict[str, Callable[[Feed], Bool]] = {
        "always": lambda feed: np.ones(len(feed.label), np.bool_),
        "random": lambda feed: random.random(len(feed.label)) < share,
        "metronome": lambda feed: np.arange(len(feed.label)) % 120 < round(120 * share),
    }
    kinds = sorted({feed.name.split("-")[0] for feed in feeds})
    return {
        "files": len(feeds),
        "samples": samples,
        "samples_per_s": round(samples / seconds),
        "level": _scored(feeds, lambda feed: flags[feed.name]),
        "by_kind": {k: _scored([f for f in feeds if f.name.startswith(k)], lambda f: flags[f.name]) for k in kinds},
        "baselines": {name: _scored(feeds, flag) for name, flag in baselines.items()},
    }


def elevator(folder: Path) -> dict[str, Any]:
    """The level detectors on the unlabelled door feed (4 Hz; the file has no times)."""
    profile = load_profile("lift-door")
    feed = _read(folder / "elevator-4hz.csv", profile, "door", period_s=0.25)
    findings, _, seconds = judge(profile, [feed])
    days = (feed.time_s[-1] - feed.time_s[0]) / DAY_S
    raised = [f for f in findings if f.raised]
    return {
        "samples": int(feed.values.size),
        "samples_per_s": round(feed.values.size / seconds),
        "hours": round(days * 24, 2),
        "alarms": {point: sum(f.point == point for f in raised) for point in feed.points},
        "alarms_per_asset_day": round(len(raised) / days, 2),
    }


def judge(profile: Profile, feeds: Sequence[Feed]) -> tuple[list[Finding], Float64, float]:
    """Findings, a score for every value, seconds of one core. Each feed is an equipment of its own, in one pass."""
    catalogue = _catalogue(profile, [feed.name for feed in feeds])
    signal = np.concatenate(
        [np.tile([catalogue.signals[f"{feed.name}/{p}"] for p in feed.points], len(feed.time_s)) for feed in feeds]
    )
    time_us = np.concatenate([np.repeat(np.round(f.time_s * 1e6).astype(np.int64), len(f.points)) for f in feeds])
    value = np.concatenate([feed.values.ravel() for feed in feeds])
    given = Readings(signal, time_us, value, ~np.isnan(value), np.zeros(len(value), np.int64))
    levels = Levels(catalogue)
    began = time.process_time()
    findings, scores = levels.judge(given)
    return findings, scores, time.process_time() - began


def _scored(feeds: Sequence[Feed], flag: Callable[[Feed], Bool]) -> dict[str, float]:
    """Rows and episodes over feeds, after each one's training rows."""
    rows, found, seconds = scoring.Rows(), scoring.NONE, 0.0
    for feed in feeds:
        flagged, label, time_s = flag(feed)[TRAIN_ROWS:], feed.label[TRAIN_ROWS:], feed.time_s[TRAIN_ROWS:]
        rows += scoring.rows(flagged, label)
        found += scoring.episodes(flagged, label, time_s, TOLERANCE_S)
        seconds += float(np.minimum(np.diff(time_s), TOLERANCE_S)[~label[1:]].sum())
    return {
        "row_f1": round(rows.f1, 3),
        "row_far": round(rows.far, 3),
        "row_mar": round(rows.mar, 3),
        "labelled": found.labelled,
        "detected": found.detected,
        "alarms": found.alarms,
        "event_precision": round(found.precision, 3),
        "event_recall": round(found.recall, 3),
        "delay_median_s": round(found.delay_s(0.5), 1),
        "delay_p90_s": round(found.delay_s(0.9), 1),
        "false_alarms_per_normal_hour": round((found.alarms - found.true_alarms) / (seconds / 3600), 2),
    }


def _flagged(feed: Feed, findings: Sequence[Finding]) -> Bool:
    """Rows during which any alarm of the feed stands, from when it was raised."""
    time_us = np.round(feed.time_s * 1e6).astype(np.int64)
    flag = np.zeros(len(time_us), np.bool_)
    mine = [f for f in findings if f.equipment == feed.name]
    ended = {f.id: f.time_us for f in mine if not f.raised}
    for finding in mine:
        if finding.raised:
            flag |= (time_us >= finding.time_us) & (time_us < ended.get(finding.id, np.iinfo(np.int64).max))
    return flag


def _read(path: Path, profile: Profile, name: str, period_s: float | None = None) -> Feed:
    """A semicolon CSV; its columns are found by the profile's `columns`."""
    with path.open(newline="", encoding="utf-8") as stream:
        header, *body = list(csv.reader(stream, delimiter=";"))
    points = {p: header.index(c) for p, point in profile.points.items() for c in point.columns if c in header}
    column = {title: i for i, title in enumerate(header)}
    if period_s is None:
        time_s = np.array([datetime.fromisoformat(row[0] + "+00:00").timestamp() for row in body])
    else:
        time_s = np.arange(len(body)) * period_s
    values = np.array([[_number(row[i]) for i in points.values()] for row in body])
    labelled = np.array([float(row[column["anomaly"]]) > 0 for row in body]) if "anomaly" in column else None
    label = labelled if labelled is not None else np.zeros(len(body), np.bool_)
    return Feed(name, time_s, tuple(points), values, label)


def _number(cell: str) -> float:
    """A cell's number; empty or unreadable (the door feed has a few) is no reading."""
    try:
        return float(cell)
    except ValueError:
        return float("nan")


def _catalogue(profile: Profile, names: Sequence[str]) -> Catalogue:
    entries = tuple(PlantEquipment(id=n, profile=profile.profile, address=f"mqtt://127.0.0.1/{n}") for n in names)
    file = PlantFile(site=Site(id="bench", name=Text(zh="测", en="bench")), equipment=entries)
    return compile_plant(Plant(file, tuple(Equipment(e.id, profile, parse_address(e.address), e) for e in entries)))


if __name__ == "__main__":
    main()
