"""Which requests read a device's points: made from the profile and from what was learned of the device, without I/O.

Invariants: every point lies wholly in exactly one request; no request is longer than the device takes, touches an
illegal address, reads across a break or reads more than `max_gap` unneeded registers in a row; and no plan with fewer
requests exists, where no points are to be read apart. Addresses are those of the request, counted from 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from telemetry.plant import Equipment
from telemetry.profile import ModbusDefaults, ModbusPoint

Table = Literal["coil", "discrete", "input", "holding"]
Ranges = tuple[tuple[int, int], ...]
TABLES: tuple[Table, ...] = ("coil", "discrete", "input", "holding")
BIT_TABLES: frozenset[str] = frozenset({"coil", "discrete"})


@dataclass(frozen=True, slots=True)
class Limits:
    """What a device takes in one request."""

    max_registers: int = 125
    max_coils: int = 2000
    max_gap: int = 16
    illegal: Ranges = ()
    """Address ranges [first, last] never to be touched, in every table."""
    illegal_by_table: Mapping[str, Ranges] = field(default_factory=dict)
    max_per_table: Mapping[str, int] = field(default_factory=dict)
    one_request_per_point: bool = False
    breaks: frozenset[tuple[str, int]] = frozenset()
    """(table, address) that no request may cross: it may begin there, or end before."""
    apart: frozenset[str] = frozenset()
    """Points that are read with none but those of the very same registers."""

    def longest(self, table: str) -> int:
        """Most registers or bits in one request of a table."""
        return self.max_per_table.get(table, self.max_coils if table in BIT_TABLES else self.max_registers)

    def walls(self, table: str) -> Ranges:
        """Address ranges of a table that no request may touch."""
        return (*self.illegal, *self.illegal_by_table.get(table, ()))


@dataclass(frozen=True, slots=True)
class Request:
    """One read: registers (or coils) address … address + count − 1 of a table, and the points that lie in them."""

    table: Table
    address: int
    count: int
    points: tuple[str, ...]

    @property
    def payload_bytes(self) -> int:
        """Bytes of data in the answer to this request."""
        return (self.count + 7) // 8 if self.table in BIT_TABLES else self.count * 2


def limits_of(quirks: ModbusDefaults) -> Limits:
    """What a device behind its endpoint takes (telemetry.plant.Endpoint.quirks), in addresses of the request."""
    base = quirks.address_base
    return Limits(
        quirks.max_registers,
        quirks.max_coils,
        quirks.max_gap,
        _shifted(quirks.illegal, base),
        {table: _shifted(ranges, base) for table, ranges in quirks.illegal_by_table.items()},
        {str(table): most for table, most in quirks.max_per_table.items()},
        quirks.one_request_per_point,
    )


def _shifted(ranges: Ranges, base: int) -> Ranges:
    return tuple((first - base, last - base) for first, last in ranges)


def poll_groups(equipment: Equipment, *, base: int = 0) -> dict[float, dict[str, ModbusPoint]]:
    """Points that are read together, by the seconds between their polls; `base` is taken off their addresses."""
    groups: dict[float, dict[str, ModbusPoint]] = {}
    for name, point in equipment.profile.points.items():
        if point.modbus is not None:
            at = point.modbus if not base else point.modbus.model_copy(update={"address": point.modbus.address - base})
            groups.setdefault(point.poll_s or equipment.poll_s, {})[name] = at
    return groups


def plan(points: Mapping[str, ModbusPoint], limits: Limits) -> tuple[Request, ...]:
    """The fewest requests that read each point once. Raises ValueError for a point that no request can hold."""
    requests: list[Request] = []
    for table in TABLES:
        spans = [(p.address, p.address + p.registers, name) for name, p in points.items() if p.table == table]
        requests += _cover(table, sorted(spans), limits)
    return tuple(requests)


# A worked example, max_registers 10, max_gap 3, illegal 30…39:
#
#   points   a [0,2)  b [2,4)  c [6,8)  d [9,12)  e [14,16)  f [28,30)  g [40,42)
#   from a   the request may reach to 0 + 10 = 10: takes a, b, then c (2 unneeded registers, 4 and 5, are within the
#            gap); d ends at 12, beyond 10, and is left                                          → holding 0, count 8
#   from d   may reach to 19: takes d, then e over the gap 12, 13                                → holding 9, count 7
#   from f   may reach to min(38, 30), as 30 is illegal: takes f alone                           → holding 28, count 2
#   from g   takes g                                                                             → holding 40, count 2
#
# Why it is the fewest: the point with the lowest address must be in some request; no request that holds it can hold a
# point that this one leaves, for it would have to reach further right or jump a wider gap. And what is taken here can
# be taken out of any other request without making a gap there: whatever starts before it and was left, spans it.
def _cover(table: Table, spans: Sequence[tuple[int, int, str]], limits: Limits) -> list[Request]:
    walls = limits.walls(table)
    breaks = sorted(address for of, address in limits.breaks if of == table)
    requests = []
    left = list(spans)
    while left:
        start, end, name = left[0]
        longest = limits.longest(table)
        reach = min([start + longest, *(first for first, last in walls if last >= start)])
        if end > reach:
            raise ValueError(
                f"{name}: expected {table} {start}…{end - 1} within {longest} and clear of illegal addresses "
                f"{[list(r) for r in walls]}"
            )
        reach = min([reach, *(address for address in breaks if address >= end)])
        taken, rest, same = [name], [], (start, end)
        for first, last, other in left[1:]:
            fits = last <= reach and first <= end + limits.max_gap and not limits.one_request_per_point
            if fits and ((first, last) == same or not limits.apart.intersection((name, other))):
                taken.append(other)
                end = max(end, last)
            else:
                rest.append((first, last, other))
        requests.append(Request(table, start, end - start, tuple(taken)))
        left = rest
    return requests
