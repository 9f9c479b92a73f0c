"""One Modbus endpoint with its units: a queue with fair turns, and a way round for units that would hold the others up.

On a network a unit that kept a turn too long (silent or slow) is asked on a connection of its own from then on, together
with others of its kind, until it has answered briskly a while: where a gateway serves its connections one by one, it
delays nobody; where it has only one line behind it, it costs no more than before. On a serial line there is one queue,
and a unit that does not answer is waited for no longer than the line's units usually take.

Invariant: the requests of a cycle are asked one after another, on whichever lane its unit belongs to at the time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from edge.asking import Asker
from edge.frames import Framing, Mbap, Query, Rtu
from edge.lane import Lane, Watch
from edge.reach import Reach, SerialReach, make_reach
from telemetry.clock import Clock
from telemetry.plant import Address, Endpoint
from telemetry.profile import ModbusDefaults

LEARNED: Final = 20
"""Answers after which the usual time of an answer is known."""
PATIENCE_MIN_S: Final = 0.05
GRACE: Final = 2.0
"""Patience in usual times."""
PUSHED_OUT_S: Final = 1.0
"""A connection that is lost so soon after another was made gave way to it."""
BRISK: Final = 20
"""Answers in a row within patience after which a unit is among the others again."""
SMOOTHING: Final = 0.05
DEVIATIONS: Final = 4.0
"""As TCP's retransmission timer (RFC 6298): mean plus four mean deviations."""


@dataclass(slots=True)
class Usual:
    """How long answers of this endpoint usually take."""

    answers: int = 0
    mean_s: float = 0.0
    deviation_s: float = 0.0

    def note(self, took_s: float) -> None:
        """An answer took so long."""
        self.answers += 1
        if self.answers == 1:
            self.mean_s, self.deviation_s = took_s, took_s / 2
            return
        error = took_s - self.mean_s
        self.mean_s += SMOOTHING * error
        self.deviation_s += SMOOTHING * (abs(error) - self.deviation_s)

    @property
    def patience_s(self) -> float | None:
        """How long an answer may take before it is unusual. None until that is known."""
        if self.answers < LEARNED:
            return None
        return max(GRACE * (self.mean_s + DEVIATIONS * self.deviation_s), PATIENCE_MIN_S)


@dataclass(slots=True)
class Bus:
    """The connections to one endpoint."""

    main: Lane
    usual: Usual
    side: Lane | None = None
    """For units that keep their turn too long. None: there is only one line."""
    _alone: bool = False
    """The endpoint lets one connection live."""
    shared: bool = False
    """Whether several units are behind it."""
    _suspects: dict[int, int] = field(default_factory=dict)
    """Unit → brisk answers in a row, of those that kept a turn too long."""

    def ask(self, asker: Asker, query: Query, timeout_s: float, *, probe: bool) -> None:
        """Puts a request into its queue. `probe`: the unit has not answered lately."""
        lane = self.main
        if not self.shared:
            lane.ask(asker, query, timeout_s)
            return
        if query.unit in self._suspects and self.side is not None and self._side_serves(self.side):
            lane = self.side
        elif probe and self.side is None and self.usual.patience_s is not None:
            timeout_s = min(timeout_s, self.usual.patience_s)
        lane.ask(asker, query, timeout_s + lane.reach.on_wire_s(query.payload_bytes + 13))

    def _side_serves(self, side: Lane) -> bool:
        """Whether the endpoint takes a second connection. One that closed the first for it never gets another."""
        if (
            self._alone
            or 0.0 <= self.main.connection.lost_s - side.connection.up_s < PUSHED_OUT_S < side.connection.up_s
        ):
            self._alone = True
            side.rest()
            return False
        return side.reachable or not self.main.reachable

    def note(self, unit: int, took_s: float) -> None:
        """An answer of a unit took so long."""
        if not self.shared:
            return
        brisk = self._suspects.get(unit)
        patience_s = self.usual.patience_s
        if brisk is None:
            self.usual.note(took_s)
        elif patience_s is None or took_s > patience_s:
            self._suspects[unit] = 0
        elif brisk + 1 >= BRISK:
            del self._suspects[unit]
        else:
            self._suspects[unit] = brisk + 1

    def overdue(self, unit: int) -> None:
        """A unit kept its turn too long, or did not answer."""
        if self.shared:
            self._suspects[unit] = 0

    def leave(self, asker: Asker) -> None:
        """See Lane.leave."""
        for lane in self._lanes:
            lane.leave(asker)

    def rest(self) -> None:
        """See Lane.rest."""
        for lane in self._lanes:
            lane.rest()

    def close(self) -> None:
        """See Lane.close."""
        for lane in self._lanes:
            lane.close()

    @property
    def _lanes(self) -> tuple[Lane, ...]:
        return (self.main,) if self.side is None else (self.main, self.side)


def make_bus(address: Address, endpoint: Endpoint, clock: Clock, watch: Watch, *, file: str) -> Bus:
    """The bus of an endpoint, unconnected. Raises ConfigError."""
    reach = make_reach(address, endpoint, file=file)
    framing: Framing = Rtu() if address.scheme in ("modbus+rtu", "modbus+rtuovertcp") else Mbap()
    usual = Usual()
    main = Lane(reach, framing, clock, watch, patience_s=lambda: usual.patience_s)
    side = Lane(reach, framing, clock, watch, patience_s=lambda: usual.patience_s) if framing.transactions else None
    return Bus(main, usual, side)


def spare(bus: Bus, quirks: ModbusDefaults) -> None:
    """Gives the bus the rests that its units need: the longest that any of them asks for."""
    for lane in (bus.main, bus.side):
        if lane is not None:
            lane.settle_s = max(lane.settle_s, quirks.pause_after_connect_s)
            lane.pause_s = max(lane.pause_s, quirks.pause_between_requests_s, silence_s(lane.reach))


def silence_s(reach: Reach) -> float:
    """The rest that a line needs between two frames."""
    return reach.silence_s if isinstance(reach, SerialReach) else 0.0
