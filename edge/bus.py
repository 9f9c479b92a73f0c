"""One Modbus endpoint with its units: a queue with fair turns, and a way round for units that would hold the others up.

On a network a unit that kept a turn too long (silent or slow) is asked on a connection of its own from then on, together
with others of its kind, until it has answered briskly a while: where a gateway serves its connections one by one, it
delays nobody; where it has only one line behind it, it costs no more than before. Before a second connection is trusted
with that, a unit that answers is asked on it: an endpoint that refuses it, never serves it, or closes the first one for
it is asked on one connection only. On a serial line there is one queue, and a unit that did not answer lately is waited
for no longer than it used to take, or the others do.

Invariant: the requests of a cycle are asked one after another, on whichever lane its unit belongs to at the time.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

from edge.asking import GONE, Asker, Failure
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
ALONE_S: Final = 300.0
"""An endpoint that serves one connection only is tried with a second one again so often."""
FULL_PROBE: Final = 6
WITNESS: Final = 4.0
"""Patience, in that of others, with a unit that is asked to see whether a connection is served."""
FRAMES_BYTES: Final = 13
"""Of an RTU request, and of its answer without the data."""
BRISK: Final = 20
"""Most answers in a row within patience after which a unit is among the others again; 2 the first time, then 4, 8 …"""
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
        """An answer took so long. One that is unusual counts as just about usual, so that one slow unit is not the rule."""
        took_s = min(took_s, self.patience_s or took_s)
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


@dataclass(slots=True, eq=False)
class _Witness:
    """Asks for a unit that answers, on a connection of which it is not known whether it is served. See edge.asking.Asker.

    If it is not, the unit is asked on the connection that is.
    """

    bus: Bus
    asker: Asker
    query: Query
    timeout_s: float
    judging: bool = True

    def sent(self) -> None:
        """See Asker."""
        self.asker.sent()

    def answered(self, payload: bytes, time_us: int, took_s: float) -> None:
        """See Asker."""
        self._over(served=True)
        self.asker.answered(payload, time_us, took_s)

    def failed(self, failure: Failure, time_us: int) -> None:
        """See Asker."""
        if not self.judging or failure.exception:
            self._over(served=True)
            self.asker.failed(failure, time_us)
        else:
            self._over(served=False)
            if self.asker is not GONE:
                self.bus.main.ask(self.asker, self.query, self.timeout_s)

    def overdue(self) -> None:
        """See Asker."""

    def _over(self, *, served: bool) -> None:
        if self.judging:
            self.bus.judged(served=served)


@dataclass(slots=True, eq=False)
class Bus:
    """The connections to one endpoint."""

    main: Lane
    usual: Usual
    side: Lane | None = None
    """For units that keep their turn too long. None: there is only one line."""
    shared: bool = False
    """Whether several units are behind it."""
    _suspects: dict[int, int] = field(default_factory=dict)
    """Unit → brisk answers in a row, of those that kept a turn too long."""
    _offences: dict[int, int] = field(default_factory=dict)
    """Unit → how often it became a suspect."""
    _served: bool = False
    """Whether a unit that answers was seen to do so on the side lane too."""
    _alone_until_s: float = 0.0
    """Until then one connection is all that the endpoint serves."""
    _witness: _Witness | None = None
    _took_s: dict[int, float] = field(default_factory=dict)
    """Unit → how long its last answer took."""
    _probes: dict[int, int] = field(default_factory=dict)
    """Unit → probes since it last answered."""

    def __post_init__(self) -> None:
        if self.side is not None:
            self.main.heir, self.side.heir = self._main_lost, self._side_lost
            self.main.renewable = self.side.renewable = self._serves_more

    def ask(self, asker: Asker, query: Query, timeout_s: float, *, probe: bool) -> None:
        """Puts a request into its queue. `probe`: the unit has not answered lately."""
        if self._suspects and self.side is not None and self._goes_round(self.side, asker, query, timeout_s):
            return
        lane = self.main
        if probe and self.shared and self.side is None:
            timeout_s = self._probe_s(query.unit, timeout_s)
        lane.ask(asker, query, timeout_s + lane.reach.on_wire_s(query.payload_bytes + FRAMES_BYTES))

    def _probe_s(self, unit: int, timeout_s: float) -> float:
        """How long a unit that has not answered lately may hold the others up: as long as it used to take; each
        FULL_PROBE times its whole time-out, for it may have become slower.
        """
        patience_s = self.usual.patience_s
        tried = self._probes[unit] = self._probes.get(unit, 0) + 1
        if patience_s is None or tried % FULL_PROBE == 0:
            return timeout_s
        return min(timeout_s, max(patience_s, GRACE * self._took_s.get(unit, 0.0)))

    def _goes_round(self, side: Lane, asker: Asker, query: Query, timeout_s: float) -> bool:
        """Asks on the side lane, if that is the way: for a suspect, or to see whether the lane is served."""
        if not self._serves_more():
            return False
        if query.unit in self._suspects:
            if not self._served or not (side.reachable or not self.main.reachable):
                return False
            side.ask(asker, query, timeout_s)
            return True
        if self._served or self._witness is not None or not self.main.served:
            return False
        self._witness = _Witness(self, asker, query, timeout_s)
        side.ask(self._witness, query, min(timeout_s, WITNESS * (self.usual.patience_s or timeout_s)))
        return True

    def _serves_more(self) -> bool:
        """Whether the endpoint serves a second connection, as far as is known."""
        return asyncio.get_running_loop().time() >= self._alone_until_s

    def judged(self, *, served: bool) -> None:
        """Whether a unit that answers did so on the side lane. If not, one connection must do for a while."""
        witness, self._witness, self._served = self._witness, None, served
        if witness is not None:
            witness.judging = False
        if not served:
            self._alone_until_s = asyncio.get_running_loop().time() + ALONE_S
            if self.side is not None:
                self.side.hand_over(self.main)

    def _main_lost(self) -> Lane | None:
        """The main connection is gone. If it gave way to the one beside it, what was asked is asked again."""
        side = self.side
        if side is None or (side.connection.transport is None and not side.connection.opening):
            return None
        if asyncio.get_running_loop().time() - side.connection.up_s > PUSHED_OUT_S and not side.connection.opening:
            return None
        self.judged(served=False)
        return self.main

    def _side_lost(self) -> Lane | None:
        """The side connection is gone, or cannot be made: what was never served goes the way of the others."""
        self._served = False
        if self.side is not None and self.side.served:
            return None
        self.judged(served=False)
        return self.main

    def note(self, unit: int, took_s: float) -> None:
        """An answer of a unit took so long."""
        if not self.shared:
            return
        self._took_s[unit] = took_s
        if self._probes:
            self._probes.pop(unit, None)
        brisk = self._suspects.get(unit)
        patience_s = self.usual.patience_s
        if brisk is None:
            self.usual.note(took_s)
        elif patience_s is None or took_s > patience_s:
            self._suspects[unit] = 0
        elif brisk + 1 >= min(2 ** self._offences[unit], BRISK):
            del self._suspects[unit]
        else:
            self._suspects[unit] = brisk + 1

    def overdue(self, unit: int) -> None:
        """A unit kept its turn too long. While a suspect is waited for, that one may be why."""
        if self.side is None or not self.side.waits:
            self.accuse(unit)

    def accuse(self, unit: int) -> None:
        """A unit holds others up."""
        if not self.shared:
            return
        if unit not in self._suspects:
            self._offences[unit] = min(self._offences.get(unit, 0) + 1, BRISK)
        self._suspects[unit] = 0

    def leave(self, asker: Asker) -> None:
        """See Lane.leave."""
        if self._witness is not None and self._witness.asker is asker:
            self._witness.asker = GONE
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
