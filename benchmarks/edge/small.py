"""What a small installation carries: which third-party distributions `vigil edge` really imports, and their size on disk.

Found by the interpreter's own `-X importtime`, in a run of its own beside the measured ones.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from importlib.metadata import Distribution, distribution, packages_distributions
from pathlib import Path
from typing import Any, Final

from benchmarks.edge.agent import Edge
from benchmarks.edge.fleet import Devices, Fleet, write_plant
from benchmarks.edge.modbus import steady

OWN: Final = frozenset({"telemetry", "edge", "vigil", "profiles"})
IMPORTED: Final = re.compile(r"^import time:\s+\d+ \|\s+\d+ \|\s+([A-Za-z0-9_.]+)$", re.MULTILINE)


def footprint(fleet: Fleet, kafka: str) -> dict[str, Any]:
    """{"imports": {distribution: MB on disk}, "imports_mb": their sum, "modules": how many modules in all}."""
    modules = set(IMPORTED.findall(_import_times(fleet, kafka))) - set(IMPORTED.findall(_bare()))
    packages = {name.partition(".")[0] for name in modules} - OWN - sys.stdlib_module_names
    sizes = {name: round(_size_mb(distribution(name)), 1) for name in _distributions(packages)}
    return {
        "imports": dict(sorted(sizes.items(), key=lambda item: -item[1])),
        "imports_mb": round(sum(sizes.values()), 1),
        "modules": len(modules),
    }


def _import_times(fleet: Fleet, kafka: str) -> str:
    with tempfile.TemporaryDirectory(prefix="vigil-bench-") as name:
        folder = Path(name)
        devices = Devices(fleet, folder)
        plant = write_plant(fleet, devices.port, folder)
        edge = Edge(folder, plant, f"kafka://{kafka}", interpreter=("-X", "importtime"))
        with devices.program, edge.start() as program:
            steady(devices, program)
        return program.output.read_text(errors="replace")


def _bare() -> str:
    """What the interpreter imports by itself: whatever is installed may hook into its start."""
    command = [sys.executable, "-X", "importtime", "-c", "pass"]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stderr


def _distributions(packages: Iterable[str]) -> set[str]:
    known = packages_distributions()
    return {name for package in packages for name in known.get(package, ())}


def _size_mb(found: Distribution) -> float:
    files = (Path(str(found.locate_file(file))) for file in found.files or ())
    return sum(file.stat().st_size for file in files if file.is_file()) / 1e6
