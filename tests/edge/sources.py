"""A source whose received things are decoded already."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edge.codes import make_changes
from edge.columns import NOTHING, Columns, join
from edge.counters import Counters
from edge.driver import Decoded
from edge.intake import Intake
from edge.journal import Journal
from edge.spool import Spool
from edge.spool_bounds import Policy
from telemetry.messages import Event


@dataclass(frozen=True, slots=True, eq=False)
class Thing:
    """Something received."""

    columns: Columns = NOTHING
    events: Sequence[Event] = ()
    state: Mapping[str, str] = field(default_factory=dict)
    done: Callable[[], None] = lambda: None
    """Called once it is durable."""


@dataclass(eq=False)
class Given:
    """See edge.driver.Source."""

    sender_keeps: bool = False

    def decode(self, received: Sequence[Thing]) -> Decoded:
        return Decoded(
            join([thing.columns for thing in received]),
            events=[event for thing in received for event in thing.events],
            state={key: value for thing in received for key, value in thing.state.items()},
        )

    def kept(self, received: Thing) -> Decoded:
        return Decoded(events=received.events, state=received.state)

    def journaled(self, received: Sequence[Thing]) -> None:
        for thing in received:
            thing.done()


def intake_of(state: Mapping[str, str] | None = None) -> Intake:
    """The stages before the spool, for equipment that has no special points."""
    return Intake(make_changes(state or {}), Counters(state or {}))


def journal_in(
    folder: Path,
    *,
    epoch: int = 1,
    at: Callable[[str], None] = lambda point: None,
    trouble: Callable[[str | None], None] = lambda why: None,
    max_bytes: int = 1 << 30,
    policy: Policy = "oldest",
) -> Journal:
    """A journal with a spool in `folder`, not started."""
    spool = Spool(folder / "s.sqlite", edge="edge-1", epoch=epoch, max_bytes=max_bytes, policy=policy, at=at)
    return Journal(spool, intake_of(), trouble)
