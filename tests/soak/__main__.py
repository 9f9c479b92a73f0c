"""The edge under random faults, with everything real around it; at the end its figures, and exit status 1 if a bound broke.

    python -m tests.soak --minutes 30 [--seed N] [--keep DIR]

The same seed draws the same faults at the same times. DIR (default: a new directory, told at the end) has the processes'
logs, the gauges as JSON, and what the devices answered.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.soak.run import soak


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--keep", type=Path)
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else int(time.time())
    folder = arguments.keep or Path(tempfile.mkdtemp(prefix="vigil-soak-"))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    print(f"seed {seed}, {arguments.minutes:g} minutes, {folder}", file=sys.stderr, flush=True)
    verdict = soak(folder, seed, arguments.minutes)
    print(f"seed {seed}, {arguments.minutes:g} minutes", *verdict.lines, sep="\n")
    for line in verdict.broken:
        print(f"BROKEN: {line}", file=sys.stderr)
    return 1 if verdict.broken else 0


if __name__ == "__main__":
    sys.exit(main())
