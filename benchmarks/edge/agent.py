"""`vigil edge` as a process of its own, and what it says about itself on /metrics."""

from __future__ import annotations

import sys
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.edge.process import Program
from telemetry.local import free_port


@dataclass(slots=True)
class Edge:
    """One edge on a fresh state directory."""

    folder: Path
    plant: Path
    log: str
    """VIGIL_LOG."""
    name: str = "edge-1"
    interpreter: Sequence[str] = ()
    """Further options of the interpreter."""
    port: int = field(default_factory=free_port)

    def start(self) -> Program:
        """Starts it. It ends with this process."""
        environment = {
            "VIGIL_PLANT": str(self.plant),
            "VIGIL_PROFILES_DIR": str(self.plant.parent / "profiles"),
            "VIGIL_STATE_DIR": str(self.folder / f"state-{self.name}"),
            "VIGIL_LOG": self.log,
            "VIGIL_EDGE": self.name,
            "VIGIL_EDGE_LISTEN": f"127.0.0.1:{self.port}",
        }
        command = [sys.executable, *self.interpreter, "-m", "vigil", "edge"]
        return Program(command, self.folder / f"{self.name}.log", environment=environment)

    def metrics(self) -> dict[str, float]:
        """Every series of /metrics: name with its labels → value."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, value in pairs}


def quantile_s(before: dict[str, float], after: dict[str, float], histogram: str, q: float) -> float:
    """The q-quantile of what a histogram took in between two scrapes, linear within its bucket; inf above the last."""
    bounds = sorted(
        (float(name.split('le="')[1].rstrip('"}')), value - before.get(name, 0.0))
        for name, value in after.items()
        if name.startswith(f"{histogram}_bucket")
    )
    if not bounds or not bounds[-1][1]:
        return float("nan")
    wanted, low, below = q * bounds[-1][1], 0.0, 0.0
    for bound, count in bounds:
        if count >= wanted:
            return low + (bound - low) * (wanted - below) / (count - below) if bound != float("inf") else bound
        low, below = bound, count
    return float("inf")
