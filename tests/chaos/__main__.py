"""The whole line under random kills and cuts; at the end its figures, and exit status 1 if anything was lost or doubled.

    python -m tests.chaos --kills 200 [--seed N] [--samples 5000000] [--embedded] [--keep DIR]

The same seed draws the same faults for the same targets at the same times. DIR (default: a new directory, told at the
start) has the processes' logs, the faults, and what the devices said.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.faults import LONG
from tests.chaos.layout import Fleet
from tests.chaos.run import chaos
from tests.chaos.world import Variant, world
from tests.fixtures.store import native_timescale

FLEET = Fleet(edges=3, units=24)


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--samples", type=int, default=5_000_000)
    parser.add_argument("--embedded", action="store_true")
    parser.add_argument("--keep", type=Path)
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else int(time.time())
    folder = (arguments.keep or Path(tempfile.mkdtemp(prefix="vigil-chaos-"))).resolve()
    variant: Variant = "embedded" if arguments.embedded else "production"
    if variant == "production" and native_timescale() is None:
        print("NO NATIVE TIMESCALEDB: the embedded log and PostgreSQL instead", file=sys.stderr)
        variant = "embedded"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    title = f"seed {seed}, {arguments.kills} faults, {variant}, {FLEET.samples_per_s:.0f} samples/s offered"
    print(f"{title}, {folder}", file=sys.stderr, flush=True)
    with world(folder, variant, FLEET) as made:
        verdict = chaos(made, seed=seed, kills=arguments.kills, pace=LONG, samples=arguments.samples)
    print(title, *verdict.lines, sep="\n")
    for line in verdict.broken:
        print(f"BROKEN: {line}", file=sys.stderr)
    return 1 if verdict.broken else 0


if __name__ == "__main__":
    sys.exit(main())
