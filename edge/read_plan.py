"""What is asked of a device for a group of its points, and how the answers are decoded. Pure.

Invariant: requests, queries, and the parts of the layout correspond one to one, in the order in which they are asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edge.decode import RegisterLayout
from edge.frames import Query, query
from edge.layouts import Layouts
from edge.learned import SHORTEST, Learned
from edge.plan import Limits, Request, plan
from telemetry.name_block import NameBlock, name_block
from telemetry.names import signal_name
from telemetry.profile import ModbusPoint, Profile


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """The requests of a group, and how their answers are decoded."""

    requests: tuple[Request, ...]
    queries: tuple[Query, ...]
    layout: RegisterLayout
    block: NameBlock
    refused: tuple[bool, ...]
    """Which requests hold a point that the device refuses."""
    has_refused: bool
    """Whether any does."""
    probe: Query | None
    """Asks for one point only; None where the first request is short itself."""


@dataclass(frozen=True, slots=True, eq=False)
class Planner:
    """Plans the groups of one equipment."""

    equipment: str
    unit: int
    profile: Profile
    limits: Limits
    layouts: Layouts
    learned: Learned

    def plan(self, points: Mapping[str, ModbusPoint]) -> Plan:
        """The plan of a group by what is known. Raises ValueError for a point that no request can read."""
        requests = plan(points, self.learned.apply(self.limits, points))
        refused = tuple(set(r.points) <= self.learned.refused for r in requests)
        layout = self.layouts.of(self.profile, points, requests)
        queries = tuple(
            query(r.table, r.address, r.count, unit=self.unit, payload_bytes=r.payload_bytes) for r in requests
        )
        block = name_block([signal_name(self.equipment, point) for point in layout.points])
        return Plan(requests, queries, layout, block, refused, any(refused), self._short(requests[0], points))

    def _short(self, request: Request, points: Mapping[str, ModbusPoint]) -> Query | None:
        if request.count <= SHORTEST:
            return None
        point = points[request.points[0]]
        size = Request(request.table, point.address, point.registers, ()).payload_bytes
        return query(request.table, point.address, point.registers, unit=self.unit, payload_bytes=size)
