"""What late data costs: records of a million samples spread at random over a month, beside as many of live ones.

Per flavour of the store and in turns, each into a fresh database, from the embedded log: 1,000 signals of 50 equipments,
records of 10,000 samples. CPU seconds a million from the first commit that is seen to the last.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.ingest.edges import Sent
from benchmarks.ingest.service import Ingest, database, server
from benchmarks.ingest.throughput import medians, told
from benchmarks.ingest.topic import fill_embedded
from benchmarks.ingest.watch import Watch
from telemetry import wire
from telemetry.batch import Int64, SampleBatch
from telemetry.log.protocol import OutRecord
from tests.fixtures.store import Flavour, StoreServer

FLAVOURS: Final[tuple[Flavour, ...]] = ("timescale", "plain")
SIGNALS: Final = 1_000
RECORD: Final = 10_000
SECOND_US: Final = 1_000_000
MONTH_US: Final = 29 * 86_400 * SECOND_US
SEED: Final = 7
WITHIN_S: Final = 600.0

Times = Callable[[int, np.random.Generator], Int64]
"""(number of the record, chance) → times of its samples."""


def measure(samples: int, rounds: int) -> dict[str, Any]:
    """Both kinds on both flavours: CPU seconds a million by process, and how many times live the month is."""
    found: dict[str, Any] = {}
    for flavour in FLAVOURS:
        runs: dict[str, list[dict[str, Any]]] = {"live": [], "month": []}
        with server(flavour) as store:
            for _ in range(rounds):
                for kind, times in (("live", _live(samples)), ("month", _month)):
                    runs[kind].append(_stored(store, times, samples))
                    told(f"{flavour}, {kind}: {runs[kind][-1]}")
        of = {kind: medians(each) for kind, each in runs.items()}
        found[flavour] = of | {"ratio": round(of["month"]["ingest"] / of["live"]["ingest"], 2)}
    return found


def _live(samples: int) -> Times:
    """Ten a second of each signal, up to a minute ago."""
    each = RECORD // SIGNALS
    began_us = time.time_ns() // 1000 - 60 * SECOND_US - samples // SIGNALS * SECOND_US // 10

    def times(number: int, chance: np.random.Generator) -> Int64:
        moments = began_us + (number * each + np.arange(each, dtype=np.int64)) * (SECOND_US // 10)
        return np.repeat(moments, SIGNALS)

    return times


def _month(number: int, chance: np.random.Generator) -> Int64:
    now_us = time.time_ns() // 1000
    return chance.integers(now_us - MONTH_US, now_us - 60 * SECOND_US, RECORD)


def _records(times: Times, samples: int) -> Iterator[Sent]:
    chance = np.random.default_rng(SEED)
    names = tuple(f"late-{n // 20:03d}/p{n % 20:02d}" for n in range(SIGNALS))
    signal = np.tile(np.arange(SIGNALS, dtype=np.int32), RECORD // SIGNALS)
    quality = np.full(RECORD, 192, np.uint8)
    for number in range(samples // RECORD):
        value = chance.normal(20, 3, RECORD).round(2)
        encoded = wire.encode_samples(SampleBatch(names, signal, times(number, chance), value, quality))
        headers = wire.headers(wire.Identity("edge-late", 1, number), encoded)
        yield Sent(0, OutRecord(b"edge-late", encoded.value, headers), RECORD)


def _stored(store: StoreServer, times: Times, samples: int) -> dict[str, Any]:
    assert store.process is not None
    with tempfile.TemporaryDirectory(prefix="vigil-bench-") as folder, database(store) as url:
        state = Path(folder) / "state"
        filled = fill_embedded(state, _records(times, samples))
        ingest = Ingest(Path(folder), url, "embedded:", state=state)
        with ingest.start() as program:
            watch = Watch(url, filled, {"ingest": program.pid, "postgres": store.process.pid}, [program.pid])
            run = watch.until_stored(WITHIN_S, lambda: program.process.poll() is None)
            program.stop()
    return {who: round(spent, 3) for who, spent in run.cpu_per_million().items()}
