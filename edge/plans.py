"""What is asked of each Modbus device, for `vigil plan`: the requests of its plan, and what was learned of it.

Reads the plant file and, if the edge has run here, its spool, beside a running edge; connects to nothing, changes nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge.layouts import fingerprint_of
from edge.learned import Learned, read_learned
from edge.modbus import plan_key
from edge.plan import limits_of, plan, poll_groups
from telemetry.errors import ConfigError, Fault
from telemetry.plant import Equipment, Plant


@dataclass(frozen=True, slots=True)
class PlanRow:
    """One request."""

    equipment: str
    every_s: float
    table: str
    address: int
    """Of the request, counted from 0."""
    count: int
    points: tuple[str, ...]
    learned: str
    """What was learned of the device and shows here; empty where the request is as the profile makes it."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def plans(plant: Plant, edge: str, spool: Path, *, only: Collection[str] = ()) -> list[PlanRow]:
    """The requests of what `edge` reads by Modbus; of `only` these equipments if any are named.

    Raises ConfigError for a name that is none, or that Modbus does not read.
    """
    mine = {one.id: one for one in plant.of_edge(edge) if one.address.is_modbus}
    unknown = [name for name in only if name not in mine]
    if unknown:
        expected = "equipment that this edge reads by Modbus"
        raise ConfigError([Fault("arguments", 0, "EQUIPMENT", expected, name) for name in unknown])
    kept = _state(spool)
    chosen = [mine[name] for name in only] if only else list(mine.values())
    return [row for one in chosen for row in _of(one, plant, kept)]


def _of(one: Equipment, plant: Plant, kept: dict[str, str]) -> list[PlanRow]:
    endpoint = plant.endpoint(one.address)
    quirks = endpoint.quirks(one.profile.modbus)
    learned = read_learned(kept.get(plan_key(one.id)), fingerprint_of(one.profile, endpoint))
    rows = []
    for every_s, points in sorted(poll_groups(one, base=quirks.address_base).items()):
        for request in plan(points, learned.apply(limits_of(quirks), points)):
            said = _said(learned, request.table, request.address, request.address + request.count, request.points)
            rows.append(PlanRow(one.id, every_s, request.table, request.address, request.count, request.points, said))
    return rows


def _said(learned: Learned, table: str, first: int, end: int, points: tuple[str, ...]) -> str:
    if set(points) <= learned.refused:
        return "refused by the device, asked once a minute"
    said = [f"not across {at}" for of, at in sorted(learned.breaks) if of == table and at in (first, end)]
    if learned.apart & set(points):
        said.append("not with what overlaps")
    if learned.longest is not None:
        said.append(f"at most {learned.longest} registers")
    return ", ".join(said)


def _state(spool: Path) -> dict[str, str]:
    """What the spool keeps; nothing where there is none."""
    if not spool.exists():
        return {}
    with closing(sqlite3.connect(f"{spool.absolute().as_uri()}?mode=ro", uri=True)) as db:
        return dict(db.execute("SELECT key, value FROM state WHERE key LIKE 'plan/%'"))
