"""Twenty random kills and cuts, in the suite; two hundred over five million samples, in `make test-long`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.faults import SHORT
from tests.chaos.layout import Fleet
from tests.chaos.run import chaos, judge
from tests.chaos.world import Variant, World, world
from tests.fixtures import parts
from tests.fixtures.kafka import VERSION, require_kafka_jars
from tests.fixtures.store import execute, native_timescale, timescale_missing
from tests.soak.verdict import Verdict

FAULTS = 21
FLEET = Fleet(edges=2, units=6)
SAMPLES = 30_000
SEEDS: dict[Variant, int] = {"production": 7, "embedded": 8}
NOT_TRIED = "the whole line under random kills and cuts"
LONG_FAULTS = 200
LONG_S = 3_000


def needs(variant: Variant) -> None:
    """Skips, loudly, where the variant's parts are not here."""
    if variant == "production":
        require_kafka_jars(NOT_TRIED)
        if native_timescale() is None:
            timescale_missing(NOT_TRIED)
        parts.used("chaos", f"Apache Kafka {VERSION} and native TimescaleDB")


@pytest.mark.timeout(400)
@pytest.mark.parametrize("variant", ["production", "embedded"])
def test_random_kills_and_cuts_lose_nothing_and_double_nothing(variant: Variant, tmp_path: Path) -> None:
    needs(variant)
    with world(tmp_path / "chaos", variant, FLEET) as made:
        verdict = chaos(made, seed=SEEDS[variant], kills=FAULTS, pace=SHORT, samples=SAMPLES)
        said = "\n".join(verdict.lines)
        assert verdict.broken == [], said + made.everything()
        assert "audit, lost: 0" in said
        assert "audit, doubled: 0" in said
        a_spoiled_table_is_found(made)


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


@pytest.mark.long
@pytest.mark.timeout(LONG_S + 100)
@pytest.mark.parametrize("variant", ["production", "embedded"])
def test_two_hundred_random_kills_and_cuts_over_five_million_samples(variant: Variant, tmp_path: Path) -> None:
    needs(variant)
    command = [sys.executable, "-m", "tests.chaos", "--kills", str(LONG_FAULTS), "--seed", str(SEEDS[variant])]
    more = ["--embedded"] if variant == "embedded" else []
    run = subprocess.run(
        [*command, *more, "--keep", str(tmp_path)], capture_output=True, text=True, timeout=LONG_S, check=False
    )
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-6000:]
    assert "audit, lost: 0" in run.stdout
    assert "audit, doubled: 0" in run.stdout
