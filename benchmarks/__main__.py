"""All benchmarks, one after another, each as its own process: `make bench`. Results go into docs/benchmarks.md by hand."""

from __future__ import annotations

import subprocess
import sys

BENCHMARKS = (
    ("benchmarks.decode",),
    ("benchmarks.spool",),
    ("benchmarks.report",),
    ("benchmarks.arrow",),
    ("benchmarks.latency", "--poll", "1.0", "--changes", "60"),
    ("benchmarks.latency", "--poll", "0.2", "--changes", "60"),
    ("benchmarks.line",),
    ("benchmarks.broker",),
    ("benchmarks.mqtt_decode",),
    ("benchmarks.crossover",),
    ("benchmarks.edge", "all", "--rounds", "1"),
    ("benchmarks.ingest", "raw", "--seconds", "10", "--rounds", "3"),
    ("benchmarks.ingest", "latency"),
)


def main() -> int:
    """Runs all; the number of those that failed. `benchmarks.detect` wants a folder of data and is run by itself."""
    failed = 0
    for command in BENCHMARKS:
        print(f"\n== {' '.join(command)}", flush=True)
        failed += subprocess.run([sys.executable, "-m", *command], check=False).returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main())
