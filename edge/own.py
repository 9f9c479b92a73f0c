"""What the agent itself has to say, on its way through the journal like what equipment says: events, records, and state that
outlives the readings it came with. None of it is given up but heartbeats, which are put with rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from edge.columns import NOTHING, Columns, join
from edge.driver import Decoded
from telemetry.messages import Event
from telemetry.wire import Encoded


@dataclass(frozen=True, slots=True, eq=False)
class OwnThing:
    """Something that the agent itself has to say."""

    events: Sequence[Event] = ()
    record: Encoded | None = None
    columns: Columns = NOTHING
    state: Mapping[str, str] = field(default_factory=dict)
    done: Callable[[], None] | None = None


class Own:
    """See edge.driver.Source."""

    sender_keeps = False

    def decode(self, received: Sequence[OwnThing]) -> Decoded:
        """See Source."""
        return Decoded(
            thinned=join([thing.columns for thing in received]),
            events=[event for thing in received for event in thing.events],
            records=[thing.record for thing in received if thing.record is not None],
            state={key: value for thing in received for key, value in thing.state.items()},
        )

    def kept(self, received: OwnThing) -> Decoded:
        """See Source. What the agent gives up of its own is a heartbeat, or what was held back: nothing else."""
        return Decoded()

    def journaled(self, received: Sequence[OwnThing]) -> None:
        """See Source."""
        for thing in received:
            if thing.done is not None:
                thing.done()
