"""What a lane does when an answer does not come in time, is none, or the connection is lost; and what it has to remember.

Invariants: see edge.lane, of which this is the part that is rarely used.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from edge import metrics
from edge.asking import GONE, Asker, Failure
from edge.blame import blame
from edge.connection import Connection
from edge.frames import Framing, Query
from edge.reach import Reach
from edge.ties import ALONE, Asked, Ties
from edge.waiting import Expired, Sent, Waiting
from edge.watch import Alarm, Watch
from telemetry.clock import Clock

SILENT_IN_A_ROW: Final = 3
"""After so many time-outs in a row with no answer between, over all units, the connection itself is doubted."""
OVERDUE: Final = 4
"""Most requests that wait for an answer at once."""
REST_S: Final = 0.02
"""Rest before the next connection where one was given up: who serves one only must have noticed that it is gone."""
EARLY_S: Final = 0.001
"""Timers may come this much early."""


@dataclass(slots=True, eq=False)
class Troubled(ABC):
    """A lane but for asking and answering."""

    reach: Reach
    framing: Framing
    clock: Clock
    watch: Watch
    pause_s: float = 0.0
    """Rest between an answer and the next request."""
    settle_s: float = 0.0
    """Rest after connecting."""
    patience_s: Callable[[], float | None] | None = None
    """How long a request may keep the turn; None: as long as its time-out."""
    ties: Ties = ALONE
    """To the bus that it belongs to."""
    served: bool = False
    """Whether anything was answered on this connection."""
    _sent_before: int = 0
    """The transaction of the last request on the connection before."""
    connection: Connection = field(init=False)
    _waiting: Waiting = field(default_factory=Waiting)
    _sent: dict[int, Sent] = field(default_factory=dict)
    _turn: Sent | None = None
    _turn_until_s: float = 0.0
    _oldest_s: float = 0.0
    _transaction: int = 0
    _expired: Expired = field(default_factory=Expired)
    _late: dict[int, Sent] = field(default_factory=dict)
    """Unit on a line → its request that was given up last, until it is asked again."""
    _longest_s: float = 0.0
    """The longest time-out so far: how late an answer may still come."""
    _wrong: Failure | None = None
    """What came on a line in this turn, and was not what is waited for."""
    _buffer: bytes = b""
    _silent: int = 0
    heard_s: float = 0.0
    """When the last answer came."""
    _free_s: float = 0.0
    due_s: float = 0.0
    """When `tick` has something to do, while it waits."""
    _rest: Alarm = field(init=False)
    _loop: asyncio.AbstractEventLoop | None = None
    _closed: bool = False

    def __post_init__(self) -> None:
        self.connection = Connection(self.reach, self)
        self._rest = Alarm(self._next)

    @abstractmethod
    def ask(self, asker: Asker, query: Query, timeout_s: float, suspicion: int = 0) -> None:
        """Puts a request into the queue."""

    @abstractmethod
    def received(self, data: bytes) -> None:
        """Bytes came."""

    @abstractmethod
    def _next(self) -> None:
        """Sends the next request, if one waits and it may go."""

    def hand_over(self, heir: Asked) -> None:
        """Hangs up; whatever waits for an answer or its turn is asked by another lane, or by this one again."""
        left = [(one.asker, one.query, one.timeout_s, one.suspicion) for one in self._sent.values()]
        left += self._waiting.give_back()
        self._sent, self._turn = {}, None
        self.watch.busy.pop(self, None)
        self.connection.hang_up()
        for entry in left:
            if entry[0] is not GONE:
                heir.ask(*entry)

    def _forget(self, sent: Sent, now_s: float) -> None:
        if len(self._sent) > 1:
            if next(iter(self._sent.values())) is sent:
                self._oldest_s = now_s  # of the one that is the oldest from now on
            self.due_s = min(self.due_s, self._turn_until_s)  # there may be room for another one now
        else:
            self.watch.busy.pop(self, None)
        del self._sent[sent.transaction]
        if self.pause_s:
            self._free_s = now_s + self.pause_s
        if self._turn is sent:
            self._turn = None

    def _fail(self, sent: Sent, failure: Failure) -> None:
        metrics.requests[failure.outcome] += 1
        sent.asker.failed(failure, self.clock.now_us())

    def _spoil(self, failure: Failure, culprit: Sent | None = None) -> None:
        """What came cannot be trusted. On a network nor can what may follow: the connection is closed. On a line it may
        be noise, or late: the answer may still come. `culprit`: whose answer it was, if that is known.
        """
        if not self.framing.transactions:
            self._wrong = self._wrong or failure
            return
        self._buffer = b""
        self.connection.hang_up()
        self._lose(failure, culprit)

    def _lose(self, failure: Failure, culprit: Sent | None = None) -> None:
        """The connection is of no more use: whoever is to blame fails, the others are asked again."""
        assert self._loop is not None  # noqa: S101
        self._free_s = self._loop.time() + REST_S
        if not self.framing.transactions:  # the line behind may still say it, to the next connection
            for one in self._sent.values():
                self._leave_alone(one, self._loop.time())
        guilty, again = blame(tuple(self._sent.values()), culprit, late=bool(self._expired))
        self._sent, self._turn = {}, None
        shelter = None if guilty or culprit is not None else self.ties.shelter()
        if shelter is None:
            self._waiting.put_first(again)
        else:
            for entry in again:
                shelter.ask(*entry)
        for one in guilty:
            self._fail(one, failure)
        self._next()

    def tick(self, now_s: float) -> None:
        """A turn is over, or a time-out has passed."""
        now_s += EARLY_S
        oldest = next(iter(self._sent.values()), None)
        if oldest is not None and now_s >= self._oldest_s + oldest.timeout_s:
            self._time_out(oldest, now_s)
        turn = self._turn
        # Nobody goes while an answer has begun to come: what is said to others must not be taken for the rest of it.
        may_go = self.framing.transactions and len(self._sent) < OVERDUE and not self._buffer
        if turn is not None and may_go and now_s >= self._turn_until_s:
            self._turn = None
            self._overdue(turn, now_s)
        self._next()
        oldest = next(iter(self._sent.values()), None)
        if oldest is None:
            self.watch.busy.pop(self, None)
            return
        self.due_s = self._oldest_s + oldest.timeout_s
        if self._turn is not None and self.framing.transactions and len(self._sent) < OVERDUE:
            self.due_s = min(self.due_s, self._turn_until_s)

    def _overdue(self, turn: Sent, now_s: float) -> None:
        """A request kept its turn too long; perhaps because the other side is busy with one before it."""
        if next(iter(self._sent.values())) is not turn:
            return
        if self._expired and self.ties.renewable():
            self.hand_over(self)
        elif not self._expired and now_s >= self._oldest_s + self._turn_until_s - turn.sent_s:
            turn.asker.overdue()

    def _time_out(self, sent: Sent, now_s: float) -> None:
        received, wrong, self._silent = self._buffer, self._wrong, self._silent + 1
        self._forget(sent, now_s)
        failure = wrong or Failure("timeout", f"no answer within {sent.timeout_s:g} s")
        if received:
            failure = wrong or self._unusable(received)
        if self.framing.transactions:
            self._expired.note(sent.transaction)
        else:
            self._buffer = b""
            self._leave_alone(sent, now_s)
        if self._doubtful(received or wrong):
            self._silent = 0
            self.connection.hang_up()
            self.connection.elsewhere()
            if not (received or wrong):
                self.ties.doubted()
            self._lose(failure, sent)
        elif (
            self._sent and self.heard_s <= sent.sent_s and self.ties.renewable()
        ):  # served in order, and held up by this one
            self.hand_over(self)
        self._fail(sent, failure)

    def _leave_alone(self, sent: Sent, now_s: float) -> None:
        """Nothing is asked of the unit on a line before two of the longest time-outs have passed since this request of it
        left, however short this one was waited for; and one from now, if the loop itself was late.
        """
        self._waiting.hold(sent.query.unit, max(now_s + self._longest_s, sent.sent_s + 2 * self._longest_s))
        self._late[sent.query.unit] = sent

    def _unusable(self, data: bytes) -> Failure:
        return Failure("unusable", f"unusable answer: {len(data)} bytes, {self.framing.shown(data)}")

    def _doubtful(self, came: object) -> bool:
        """Whether a time-out says that the connection may be of no more use."""
        return not self.reach.on_wire_s(1) and (
            self._silent >= SILENT_IN_A_ROW or (bool(came) and self.framing.transactions)
        )

    # ---- the connection

    def _connected(self, is_up: bool) -> None:
        """A connection was made, or could not be: then whoever waits is told."""
        assert self._loop is not None  # noqa: S101
        if is_up:
            self._buffer, self._wrong, self.served, self._sent_before = b"", None, False, self._transaction
            self._expired = Expired()
            self._free_s = self._loop.time() + self.settle_s if self.settle_s else 0.0
            self._next()
            return
        heir = self.ties.heir()
        if heir is not None:
            self.hand_over(heir)
            return
        for entry in self._waiting.give_back():
            self._refuse(entry[0])

    def _refuse(self, asker: Asker) -> None:
        metrics.requests["refused"] += 1
        asker.failed(Failure("refused", f"not connected: {self.connection.why}"), self.clock.now_us())

    def lost(self, why: str) -> None:
        """The connection is gone. Requests in flight fail now, not at their time-out."""
        heir = self.ties.heir()
        if heir is not None:
            self.hand_over(heir)
            return
        if self._waiting and self._transaction == self._sent_before:  # it was of no use: no use to try again at once
            self.connection.back_off(f"connection lost: {why}")
            self._connected(is_up=False)
        else:
            self._lose(Failure("reset", f"connection lost: {why}"))
