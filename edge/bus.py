"""One Modbus endpoint with its units: a queue with fair turns, and a way round for units that would hold the others up.

On a network a unit that kept a turn too long (silent or slow) is asked on a connection of its own from then on, together
with others of its kind, until it has answered briskly a while: where a gateway serves its connections one by one, it
delays nobody; where it has only one line behind it, it costs no more than before. Before a second connection is trusted
with that, a unit that answers is asked on it: an endpoint that refuses it, never serves it, or closes the first one for
it is asked on one connection only. A unit that cost a connection (reset it, or said what cannot be its answer) is asked
alone until it has answered a few times, on that other connection where there is one. On a serial line there is one
queue, and a unit that did not answer lately is waited for no longer than it used to take (also where that was longer
than it was waited for), or the others do; all such units together have no more than a share of the line's time.

Invariant: the requests of a cycle are asked one after another, on whichever lane its unit belongs to at the time.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import Final

from edge.asking import GONE, Asker, Failure
from edge.blame import SPOILING
from edge.frames import Framing, Mbap, Query, Rtu
from edge.lane import Lane, Watch
from edge.reach import FAST_SILENCE_S, SerialReach, make_reach
from edge.ties import Ties
from edge.usual import GRACE, LEARNED, Usual
from telemetry.clock import Clock
from telemetry.plant import Address, Endpoint
from telemetry.profile import ModbusDefaults

PUSHED_OUT_S: Final = 1.0
"""A connection that is lost so soon after another was made gave way to it."""
DOUBTS: Final = 2
"""A side lane that is given up so often in a row with nothing answered on it is tried with a witness again."""
COINCIDENCES: Final = 2
"""So often one that was seen beside the other is thought to have been lost by chance just when that was made."""
CLOSED_IN_A_ROW: Final = 8
"""So many connections in a row may be closed by units that are asked alone before the endpoint itself is doubted."""
ALONE_S: Final = 300.0
"""An endpoint that serves one connection only is tried with a second one again so often."""
FULL_PROBE: Final = 6
PROBING_S: Final = 20.0
"""Units that do not answer may take their share of so much of the line's time at once."""
WITNESS: Final = 4.0
"""Patience, in that of others, with a unit that is asked to see whether a connection is served."""
FRAMES_BYTES: Final = 13
"""Of an RTU request, and of its answer without the data."""
BRISK: Final = 20
"""Most answers in a row within patience after which a unit is among the others again; 2 the first time, then 4, 8 …"""


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
        if self.judging and not failure.exception:
            self.bus.judged(served=False)
            self.bus.main.ask(self, self.query, self.timeout_s, 1)
            return
        if not self.judging and not failure.exception and failure.outcome != "refused":
            self.bus.acquit()
        self._over(served=True)
        self.asker.failed(failure, time_us)

    def overdue(self) -> None:
        """See Asker."""

    def _over(self, *, served: bool) -> None:
        if self.judging:
            self.bus.judged(served=served)
        self.bus.dismiss(self)


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
    _spoilers: dict[int, int] = field(default_factory=dict)
    """Unit that cost a connection → answers until it is asked beside others again."""
    _offences: dict[int, int] = field(default_factory=dict)
    """Unit → how often it became a suspect."""
    _served: bool = False
    """Whether a unit that answers was seen to do so on the side lane too."""
    _doubts: int = 0
    """So often in a row the side lane was given up with nothing answered on it."""
    _together: bool = False
    """Whether the side lane's connection was served while the main one stayed."""
    _coincidences: int = 0
    _alone_until_s: float = 0.0
    """Until then one connection is all that the endpoint serves."""
    _witness: _Witness | None = None
    _took_s: dict[int, float] = field(default_factory=dict)
    """Unit → how long its last answer took."""
    _probes: dict[int, int] = field(default_factory=dict)
    """Unit → probes since it last answered."""
    probe_share: float = 1.0
    """Of a line's time, what units that did not answer lately may take. 0 < share ≤ 1."""
    _is_plain: bool = False
    """Whether the main lane needs no more than to be asked: a network, on which answers name their requests."""
    _probing_s: dict[int, float] = field(default_factory=dict)
    """Unit → what its probe under way may take."""
    _spent_s: float = 0.0
    """What probes took of the line's time above their share of it, at `_spent_at_s`."""
    _spent_at_s: float = 0.0

    def __post_init__(self) -> None:
        known = Ties(
            came_late=self._came_late,
            last_heard_s=self._last_heard_s,
            tolerance=lambda: CLOSED_IN_A_ROW if self.shared else 1,
        )
        self.main.ties = known
        if self.side is not None:
            self._is_plain = True
            known = replace(known, renewable=self._serves_more)
            self.main.ties = replace(known, heir=self._main_lost, doubted=self._main_lost, shelter=self._shelter)
            self.side.ties = replace(known, heir=self._side_lost, doubted=self._side_doubted)

    def ask(self, asker: Asker, query: Query, timeout_s: float, *, probe: bool) -> None:
        """Puts a request into its queue. `probe`: the unit has not answered lately."""
        if self._is_plain and not self._suspects and not self._spoilers:
            self.main.ask(asker, query, timeout_s)
            return
        if self._suspects and self.side is not None and self._goes_round(self.side, asker, query, timeout_s):
            return
        lane = self.main
        if probe and self.shared and self.side is None:
            timeout_s = self._probe_s(query.unit, timeout_s)
        timeout_s += lane.reach.on_wire_s(query.payload_bytes + FRAMES_BYTES)
        lane.ask(asker, query, timeout_s, int(query.unit in self._spoilers))

    def _probe_s(self, unit: int, timeout_s: float) -> float:
        """How long a unit that has not answered lately may hold the others up: as long as it used to take; each
        FULL_PROBE times its whole time-out, for it may have become slower.
        """
        patience_s = self.usual.patience_s
        tried = self._probes[unit] = self._probes.get(unit, 0) + 1
        if patience_s is not None and tried % FULL_PROBE:
            timeout_s = min(timeout_s, max(patience_s, GRACE * self._took_s.get(unit, 0.0)))
        self._probing_s[unit] = timeout_s
        self._spend(timeout_s)
        return timeout_s

    def may_probe(self) -> bool:
        """Whether the line has time for a unit that has not answered lately."""
        if self.side is not None or not self.shared:
            return True
        self._spend(0.0)
        return self._spent_s <= self.probe_share * PROBING_S

    def _spend(self, seconds: float) -> None:
        now_s = asyncio.get_running_loop().time()
        self._spent_s = max(self._spent_s - self.probe_share * (now_s - self._spent_at_s), 0.0) + seconds
        self._spent_at_s = now_s

    def _came_late(self, unit: int, took_s: float) -> None:
        """A unit is alive, but slower than it was waited for: next time it is given so long."""
        self._took_s[unit] = took_s

    def _goes_round(self, side: Lane, asker: Asker, query: Query, timeout_s: float) -> bool:
        """Asks on the side lane, if that is the way: for a suspect, or to see whether the lane is served."""
        if not self._serves_more():
            return False
        if query.unit in self._suspects:
            spoils = query.unit in self._spoilers  # and shall not have the main connection as well
            if not self._served or not (spoils or side.reachable or not self.main.reachable):
                return False
            side.ask(asker, query, timeout_s, int(spoils))
            return True
        is_sure = self._served and self._doubts < DOUBTS
        if is_sure or self._witness is not None or not self.main.served or side.waits:
            return False
        self._witness = _Witness(self, asker, query, timeout_s)
        side.ask(self._witness, query, min(timeout_s, WITNESS * (self.usual.patience_s or timeout_s)))
        return True

    def _serves_more(self) -> bool:
        """Whether the endpoint serves a second connection, as far as is known."""
        return asyncio.get_running_loop().time() >= self._alone_until_s

    def judged(self, *, served: bool) -> None:
        """Whether a unit that answers did so on the side lane. If not, one connection must do for a while."""
        self._served, self._doubts = served, 0
        if self._witness is not None:
            self._witness.judging = False
        if served:
            self._together = self.side is not None and self.main.connection.older(self.side.connection)
            return
        self._alone_until_s, self._together = asyncio.get_running_loop().time() + ALONE_S, False
        if self.side is not None:
            self.side.hand_over(self.main)

    def acquit(self) -> None:
        """The witness failed on the main lane as well: it says nothing of the other one."""
        self._alone_until_s = 0.0

    def dismiss(self, witness: _Witness) -> None:
        """The witness is done."""
        if self._witness is witness:
            self._witness = None

    def _main_lost(self) -> Lane | None:
        """The main connection is gone. If it gave way to the one beside it, what was asked is asked again."""
        side = self.side
        if side is None or (side.connection.transport is None and not side.connection.opening):
            return None
        made_s, now_s = side.connection.up_s, asyncio.get_running_loop().time()
        # It gave way if it was the older one, and went when the other was made.
        if not side.connection.opening and (now_s - made_s > PUSHED_OUT_S or self.main.connection.up_s > made_s):
            return None
        if self._together and self._coincidences < COINCIDENCES:
            self._coincidences += 1
            return None
        self._coincidences = 0
        self.judged(served=False)
        return self.main

    def _side_lost(self) -> Lane | None:
        """The side connection is gone, or cannot be made: what was never served goes the way of the others. One that was
        lost with a request says something of that; and if that was not of a unit that does so, a witness is heard again.
        """
        side = self.side
        assert side is not None  # noqa: S101
        if side.only_unit in self._spoilers:
            return None
        self._served = False
        if side.served or side.waits:
            return None
        self.judged(served=False)
        return self.main

    def _side_doubted(self) -> None:
        """Too much was not answered on the side connection: no wonder, where the silent are asked. If nothing was, again and
        again, a witness is heard; until then it is used as before.
        """
        assert self.side is not None  # noqa: S101
        self._doubts = 0 if self.side.served else self._doubts + 1

    def _shelter(self) -> Lane | None:
        """Where those are asked alone of whom one cost the main connection."""
        side = self.side
        return side if side is not None and self._served and self._serves_more() and side.reachable else None

    def _patience_s(self) -> float | None:
        return self.usual.patience_s

    def _last_heard_s(self) -> float:
        return max(lane.heard_s for lane in self._lanes)

    def note(self, unit: int, took_s: float) -> None:
        """An answer of a unit took so long."""
        if not self.shared:
            return
        self._took_s[unit] = took_s
        if self._probes:
            self._probes.pop(unit, None)
            self._spent_s -= self._probing_s.pop(unit, 0.0)  # it answers: no time was lost
        if self._spoilers:
            self._trust(unit)
        brisk = self._suspects.get(unit)
        patience_s = self.usual.patience_s
        if brisk is None:
            self.usual.note(took_s)
            if self.usual.answers == LEARNED:
                for lane in self._lanes:
                    lane.patience_s = self._patience_s
        elif patience_s is None or took_s > patience_s:
            self._suspects[unit] = 0
        elif brisk + 1 >= min(2 ** self._offences[unit], BRISK):
            del self._suspects[unit]
        else:
            self._suspects[unit] = brisk + 1

    def _trust(self, unit: int) -> None:
        """A unit answered as it should. After so many answers as to be among the brisk it may be asked beside others."""
        left = self._spoilers.get(unit)
        if left == 1:
            del self._spoilers[unit]
        elif left is not None:
            self._spoilers[unit] = left - 1

    def overdue(self, unit: int) -> None:
        """A unit kept its turn too long. While a suspect is waited for, that one may be why."""
        if self.side is None or not self.side.waits:
            self.accuse(unit)

    def accuse(self, unit: int, outcome: str = "") -> None:
        """A unit holds others up, or (by the outcome of its request) costs them the connection."""
        if not self.shared:
            return
        if unit not in self._suspects:
            self._offences[unit] = min(self._offences.get(unit, 0) + 1, BRISK)
        self._suspects[unit] = 0
        if outcome in SPOILING:
            self._spoilers[unit] = min(2 ** self._offences[unit], BRISK)

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
    main = Lane(reach, framing, clock, watch)
    side = Lane(reach, framing, clock, watch) if framing.transactions else None
    return Bus(main, Usual(), side, probe_share=endpoint.probe_share)


def spare(bus: Bus, quirks: ModbusDefaults) -> None:
    """Gives the bus the rests that its units need: the longest that any of them asks for."""
    for lane in (bus.main, bus.side):
        if lane is not None:
            lane.settle_s = max(lane.settle_s, quirks.pause_after_connect_s)
            lane.pause_s = max(lane.pause_s, quirks.pause_between_requests_s, silence_s(lane))


def silence_s(lane: Lane) -> float:
    """The rest that a line needs between two frames. Through a serial server as well, whatever its baud: the line behind
    keeps a rest in any case, and an answer that comes twice is known for that only before the next request has left.
    """
    if isinstance(lane.reach, SerialReach):
        return lane.reach.silence_s
    return 0.0 if lane.framing.transactions else FAST_SILENCE_S
