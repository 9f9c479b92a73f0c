"""Twenty random kills and cuts, as the suite has them: one variant of the line a file, so that they run beside one another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from tests.chaos.faults import SHORT, Pace, counts, draw
from tests.chaos.layout import Fleet
from tests.chaos.run import chaos, judge
from tests.chaos.world import Variant, World, world
from tests.fixtures import parts
from tests.fixtures.kafka import VERSION, require_kafka_jars
from tests.fixtures.store import execute, native_timescale, timescale_missing
from tests.soak.verdict import Verdict

FAULTS: Final = 21
FLEET: Final = Fleet(edges=2, units=6)
SAMPLES: Final = 30_000
SEEDS: Final[dict[Variant, int]] = {"production": 165, "embedded": 8}
PACES: Final[dict[Variant, Pace]] = {"production": SHORT, "embedded": replace(SHORT, every_s=0.9)}
"""Kafka shares its partitions out again for seconds after each worker that dies."""
NOT_TRIED: Final = "the whole line under random kills and cuts"


def needs(variant: Variant) -> None:
    """Skips, loudly, where the variant's parts are not here."""
    if variant == "production":
        require_kafka_jars(NOT_TRIED)
        if native_timescale() is None:
            timescale_missing(NOT_TRIED)
        parts.used("chaos", f"Apache Kafka {VERSION} and native TimescaleDB")


def twenty_faults(variant: Variant, folder: Path, *, then: Callable[[World], None] = lambda _: None) -> None:
    """A short run, which must be clean; `then` looks at what is left."""
    needs(variant)
    with world(folder, variant, FLEET) as made:
        verdict = chaos(made, seed=SEEDS[variant], kills=FAULTS, pace=PACES[variant], samples=SAMPLES)
        said = "\n".join(verdict.lines)
        kinds = counts(draw(SEEDS[variant], FAULTS, sorted(made.parts), PACES[variant]))
        assert len(kinds) >= 13, "the seed is one that draws nearly every kind"
        assert verdict.broken == [], said + made.everything()
        assert "audit, lost: 0" in said
        assert "audit, doubled: 0" in said
        then(made)


def a_spoiled_table_is_found(made: World) -> None:
    """The judge's own control: one row less, one row twice, one row changed; the audit and the source each say so."""
    url = made.server.url
    one = "(signal_id, time) = (SELECT signal_id, max(time) FROM store.sample JOIN store.signal USING (signal_id)"
    of = "WHERE equipment = 'unit-{}' AND point = 'p50' AND value IS NOT NULL GROUP BY signal_id)"
    execute(url, f"DELETE FROM store.sample WHERE {one} {of.format(0)}")  # noqa: S608
    execute(url, f"INSERT INTO store.sample SELECT * FROM store.sample WHERE {one} {of.format(1)}")  # noqa: S608
    execute(url, f"UPDATE store.sample SET value = value + 1 WHERE {one} {of.format(2)}")  # noqa: S608
    report, found = judge(Verdict(), made, at_least=SAMPLES)
    assert (report["lost"], report["doubled"]) == (2, 2), "the changed one counts as both"
    assert made.vigil("audit").returncode == 1
    assert found.twice == 1
    assert [line.split()[0] for line in found.torn] == ["unit-0", "unit-1"]
    # The sums of the read that lacks a row and of the one that has one twice are wrong, too.
    assert found.reads.wrong == 3
