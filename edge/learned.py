"""What an edge learned of a device by reading it: where a request must not read across, what it refuses, how long is
too long. Pure; kept with the readings, so that a restart asks nothing twice.

How a refused request (exception 2 or 3) is taken apart: at its widest gap of unneeded registers if it has one, else
in the middle; again each time a part is refused. A point that is refused alone is put aside, and what had to be broken
on the way to it is whole again. Where a gap turns out to be what was refused, the breaks on the way to it are doubtful:
once both sides of one are answered it is taken back, one at a time, and stays where the device then refuses the whole.
Points that overlap without being the same are asked each for itself, so that only what the device lacks is refused. A
device that does not answer, or only slowly, what is long, and answers what is short, gets requests of half the length.

Invariant: `apply` makes limits under which every point still lies in exactly one request.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Final

from edge.plan import BIT_TABLES, Limits, Request
from telemetry.profile import ModbusPoint

SHORTEST: Final = 8
"""Requests of so many registers are short: they are not the reason why a device is slow."""


@dataclass(slots=True)
class Learned:
    """Of one device, under one profile. Addresses are those of the request."""

    breaks: set[tuple[str, int]] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    """Points that the device refuses even alone."""
    longest: int | None = None
    """Most registers in a request."""
    apart: set[str] = field(default_factory=set)
    """Points that are read with none but those of the very same registers."""
    doubtful: set[tuple[str, int]] = field(default_factory=set)
    """Breaks of which a part was refused as well: that may have been why the whole was."""
    tried: set[tuple[str, int]] = field(default_factory=set)
    """Doubtful breaks that were taken back, and of which it is not known yet what the device says."""

    def __bool__(self) -> bool:
        return bool(self.breaks or self.refused or self.longest or self.apart)

    def apply(self, limits: Limits, points: Mapping[str, ModbusPoint]) -> Limits:
        """The limits, tightened by what was learned."""
        longest = limits.max_registers
        if self.longest is not None:
            needed = max((p.registers for p in points.values() if p.table not in BIT_TABLES), default=1)
            longest = min(longest, max(self.longest, needed))
        own = {t: n if t in BIT_TABLES else min(n, longest) for t, n in limits.max_per_table.items()}
        return replace(
            limits,
            max_registers=longest,
            max_per_table=own,
            breaks=frozenset(self.breaks),
            apart=frozenset(self.apart | self.refused),
        )

    def split(self, request: Request, points: Mapping[str, ModbusPoint]) -> bool:
        """The device refused a request. Whether another plan may do better."""
        table, end = request.table, request.address + request.count
        again = [at for of, at in self.tried if of == table and request.address < at < end]
        if again:  # it was needed after all
            self.tried.discard((table, again[0]))
            self.breaks.add((table, again[0]))
            return True
        spans = sorted((points[n].address, points[n].address + points[n].registers) for n in request.points)
        at = _where(spans)
        if at is not None:
            self.doubtful |= self._around(request) - self._own(points)
            self.breaks.add((table, at))
            return True
        if len(set(spans)) > 1:
            self.apart |= set(request.points)
            return True
        alone = set(request.points) - self.refused
        self.refused |= alone
        return bool(alone)

    def mend(self, whole: Request, points: Mapping[str, ModbusPoint]) -> None:
        """What was broken inside `whole` only led to the points that are refused: it is whole again, but for those."""
        inside = range(whole.address + 1, whole.address + whole.count)
        own = self._own(points)
        self.breaks = {b for b in self.breaks | own if b in own or b[0] != whole.table or b[1] not in inside}
        self.apart -= set(whole.points)
        self.doubtful &= self.breaks - own

    def accept(self, request: Request, points: Mapping[str, ModbusPoint]) -> None:
        """The device answers what it refused: it is read with the others again."""
        self.refused -= set(request.points)
        self.breaks -= {b for name in request.points for b in _round(points[name])} - self._own(points)
        self.doubtful &= self.breaks

    def doubt(self, answered: Sequence[Request], points: Mapping[str, ModbusPoint], *, all_known: bool) -> bool:
        """Whether a doubtful break is taken back: one between two of these, which the device answers, in their plan's order.
        What was tried and is answered is settled, and where it is `all_known` what the device says, so is what cannot be
        tried. `points`: of the group.
        """
        for one in answered:
            self.tried -= {b for b in self.tried if b[0] == one.table and one.address < b[1] < one.address + one.count}
        self.tried -= set(_between(answered, self.tried))  # they are two requests all the same
        if self.tried:
            return False
        again = _between(answered, self.doubtful)
        if again:
            self.doubtful.discard(again[0])
            self.breaks.discard(again[0])
            self.tried.add(again[0])
            return True
        if all_known:
            self.doubtful -= {(point.table, point.address) for point in points.values()}
        return False

    def _around(self, request: Request) -> set[tuple[str, int]]:
        """The breaks where a request begins and where it had to end."""
        end = request.address + request.count
        after = [at for of, at in self.breaks if of == request.table and at >= end]
        return self.breaks & {(request.table, at) for at in (request.address, *([min(after)] if after else []))}

    def _own(self, points: Mapping[str, ModbusPoint]) -> set[tuple[str, int]]:
        """The breaks around the points that are refused."""
        return {b for name in self.refused & set(points) for b in _round(points[name])}

    def shorten(self, request: Request) -> bool:
        """A request of registers is too long for the device. Whether shorter ones are possible, and not tried yet."""
        longest = max(request.count // 2, SHORTEST)
        is_short = request.count <= SHORTEST or len(request.points) == 1 or request.table in BIT_TABLES
        if is_short or (self.longest is not None and longest >= self.longest):
            return False
        self.longest = longest
        return True

    def spell(self, fingerprint: str) -> str:
        """For keeping."""
        return json.dumps(
            {
                "for": fingerprint,
                "breaks": sorted(self.breaks),
                "refused": sorted(self.refused),
                "longest": self.longest,
                "apart": sorted(self.apart),
                "doubtful": sorted(self.doubtful | self.tried),
            }
        )


def read_learned(text: str | None, fingerprint: str) -> Learned:
    """What was kept; nothing where it was learned of another profile, or is not to be read."""
    try:
        kept: Any = json.loads(text or "{}")
        if kept.get("for") != fingerprint:
            return Learned()
        breaks, doubtful = ({(str(t), int(a)) for t, a in kept.get(name, ())} for name in ("breaks", "doubtful"))
        refused, apart = (set(map(str, kept.get(name, ()))) for name in ("refused", "apart"))
        return Learned(breaks, refused, kept["longest"], apart, doubtful & breaks, doubtful - breaks)
    except (ValueError, TypeError, KeyError, AttributeError):
        return Learned()


def _between(requests: Sequence[Request], breaks: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    """Those of some breaks that lie between two requests which follow one another, in order."""
    return [
        (table, at)
        for first, second in pairwise(requests)
        for table, at in sorted(breaks)
        if first.table == second.table == table and first.address + first.count <= at <= second.address
    ]


def _round(point: ModbusPoint) -> set[tuple[str, int]]:
    """The breaks before and after a point."""
    return {(point.table, point.address), (point.table, point.address + point.registers)}


def _where(spans: Sequence[tuple[int, int]]) -> int | None:
    """The address before which to break: after the widest gap, else in the middle. None: it is one piece."""
    end = spans[0][1]
    gaps: list[tuple[int, int, int]] = []
    middle = (spans[0][0] + max(last for _, last in spans)) / 2
    for first, last in spans[1:]:
        if first >= end:
            gaps.append((first - end, -round(abs(first - middle)), first))
        end = max(end, last)
    return max(gaps)[2] if gaps else None
