"""The audit's answer, as people read it and as `--json` prints it (contracts.md)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from telemetry.clock import iso

SHOWN: Final = 20


@dataclass(slots=True)
class EdgeAudit:
    """One epoch of one edge."""

    edge: str
    epoch: int
    missing: str
    """Ranges of seqs that never came, as PostgreSQL writes a multirange."""
    hole: str
    """'' without any, 'young' while they may still come, 'old' when they are loss."""
    through: int
    """The ledger covers records up to this seq."""
    accepted: int
    """Samples accepted, as ingest counted them: for comparison only."""
    dropped: int
    ledger: int
    unreadable: int
    unledgered_unknown: int
    dropped_known: int
    """Of `dropped`, what the edge said of which equipment and hour it was."""
    began_us: int

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "edge": self.edge,
            "epoch": f"{self.epoch:016x}",
            "journaled": self.ledger,
            "accepted": self.accepted,
            "dropped": self.dropped,
            "dead": self.unreadable,
            "ledger_through": self.through,
            "missing": self.missing,
            "missing_is_loss": self.hole == "old",
        }


@dataclass(slots=True)
class EquipmentAudit:
    """One equipment in one hour of sample time."""

    equipment: str
    hour_us: int
    edges: list[str]
    journaled: int = 0
    counted: int = 0
    dead: int = 0
    explained: int = 0
    """Deficit that drops or unreadable records of the edge explain."""
    in_flight: int = 0
    lost: int = 0
    doubled: int = 0
    checksum: str = "same"
    """same · differs · pending (some records are not in the ledger yet: their count is checked, their content is not)."""

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "equipment": self.equipment,
            "hour": iso(self.hour_us),
            "journaled": self.journaled,
            "counted": self.counted,
            "dead": self.dead,
            "dropped_or_unreadable": self.explained,
            "in_flight": self.in_flight,
            "lost": self.lost,
            "doubled": self.doubled,
            "checksum": self.checksum,
        }

    def __str__(self) -> str:
        return (
            f"{self.equipment} {iso(self.hour_us)}: journaled {self.journaled}, counted {self.counted}, dead {self.dead}, "
            f"lost {self.lost}, doubled {self.doubled}, checksum {self.checksum}"
        )


@dataclass(slots=True)
class AuditReport:
    """Counts of samples. journaled = (stored − doubled) + dropped + dead + in_flight + lost."""

    journaled: int = 0
    stored: int = 0
    dropped: int = 0
    dead: int = 0
    in_flight: int = 0
    lost: int = 0
    doubled: int = 0
    edges: list[EdgeAudit] = field(default_factory=list)
    equipment: list[EquipmentAudit] = field(default_factory=list)

    def add(self, line: EquipmentAudit) -> None:
        """Takes a cell into the sums."""
        self.equipment.append(line)
        self.journaled += line.journaled
        self.stored += line.counted
        self.dead += line.dead
        self.in_flight += line.in_flight
        self.lost += line.lost
        self.doubled += line.doubled

    @property
    def clean(self) -> bool:
        """Nothing lost, nothing doubled, no hole in a sequence that will not be filled any more."""
        return not self.lost and not self.doubled and not any(edge.hole == "old" for edge in self.edges)

    def as_json(self) -> dict[str, Any]:
        """Plain data, as contracts.md promises it."""
        sums = ("journaled", "stored", "dropped", "dead", "in_flight", "lost", "doubled")
        return {
            **{name: getattr(self, name) for name in sums},
            "edges": [edge.as_json() for edge in self.edges],
            "equipment": [line.as_json() for line in self.equipment],
        }

    def __str__(self) -> str:
        lines = [
            f"journaled {self.journaled} · stored {self.stored} · dropped {self.dropped} · dead {self.dead} · "
            f"in flight {self.in_flight} · lost {self.lost} · doubled {self.doubled}"
        ]
        for edge in self.edges:
            if edge.hole:
                what = "lost" if edge.hole == "old" else "not here yet"
                lines.append(f"  edge {edge.edge} epoch {edge.epoch:016x}: records {edge.missing} {what}")
        faults = [line for line in self.equipment if line.lost or line.doubled]
        lines += [f"  {line}" for line in faults[:SHOWN]]
        if len(faults) > SHOWN:
            lines.append(f"  … and {len(faults) - SHOWN} more (--json has all)")
        return "\n".join(lines)
