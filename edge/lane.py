"""One connection to a Modbus endpoint and the queue before it: requests leave in turn, each answer finds its request.

Callbacks, not tasks: at a thousand devices a second a task and a future for each request cost more than reading them.

Invariants
- An answer is used only if its unit, function, length, and transaction where there is one, are those of a request that
  waits for it; after anything unreadable on a network the connection is closed, so that no late byte can be taken for a
  later answer. Without transactions (RTU, on a line or through a serial server) a unit that did not answer is not asked
  again before its answer could no longer come, and what comes in the meantime, or fits nothing, is discarded.
- At most one request has the turn. One that keeps it longer than `patience_s` loses the turn, not its claim to an answer
  (at most OVERDUE of these); its time-out runs from when it is the oldest on the connection, because a gateway may be
  busy with the one before. Requests that one without an answer holds up are asked again on a new connection.
- Where one of those that wait costs the connection, it fails, the others are asked again (edge.blame); one under
  suspicion is asked alone: while it waits for its answer nobody else is asked.
- Every request is answered or failed exactly once, unless whoever asked has gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from edge import metrics
from edge.asking import GONE, Asker, Failure, judge
from edge.blame import blame
from edge.connection import Connection
from edge.frames import MBAP_BYTES, Answer, Framing, Query, Unreadable
from edge.reach import Reach
from edge.ties import ALONE, Asked, Ties
from edge.waiting import Expired, Sent, Waiting
from edge.watch import LOOK_S as LOOK_S
from edge.watch import Alarm
from edge.watch import Watch as Watch
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
class Lane:
    """A connection that is opened when something is asked, and again when it is lost."""

    reach: Reach
    framing: Framing
    clock: Clock
    watch: Watch
    pause_s: float = 0.0
    """Rest between an answer and the next request."""
    settle_s: float = 0.0
    """Rest after connecting."""
    patience_s: Callable[[], float | None] = lambda: None
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
    """Unit on a line → its request that timed out last, until it is asked again."""
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

    # ---- for those who ask

    def ask(self, asker: Asker, query: Query, timeout_s: float, suspicion: int = 0) -> None:
        """Puts a request into the queue. May tell of its failure before it returns, where there is no connection.
        `suspicion` of more than 0: it may cost the connection, and is asked alone.
        """
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        if timeout_s > self._longest_s:
            self._longest_s = timeout_s
        now_s = self._loop.time()
        if self.connection.transport is None:
            if not self.connection.may_try(now_s):
                self._refuse(asker)
                return
        elif not self._sent and self._waiting.idle and self._free_s == 0.0:
            self._send(asker, query, timeout_s, now_s, suspicion)
            return
        self._waiting.put((asker, query, timeout_s, suspicion))
        if self._turn is None:
            self._next()

    def leave(self, asker: Asker) -> None:
        """Forgets what `asker` asked; it is told nothing more."""
        self._waiting.leave(asker)
        for sent in self._sent.values():
            if sent.asker is asker:
                sent.asker = GONE

    def rest(self) -> None:
        """Closes the connection if nobody waits for an answer; the next request opens it again."""
        if not self._sent and not self._waiting:
            self.connection.hang_up()

    def close(self) -> None:
        """Closes for good. Whoever waits is told nothing more."""
        self._closed = True
        self._waiting.give_back()
        self._sent.clear()
        self._turn = None
        self._rest.cancel()
        self.watch.busy.pop(self, None)
        self.connection.close()

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

    @property
    def only_unit(self) -> int | None:
        """The unit of the only request that waits for an answer; None where there is none, or several."""
        return next(iter(self._sent.values())).query.unit if len(self._sent) == 1 else None

    @property
    def waits(self) -> bool:
        """Whether something was asked and is not answered."""
        return bool(self._sent)

    @property
    def reachable(self) -> bool:
        """Whether there is a connection, or one may be tried now."""
        return self._loop is None or self.connection.may_try(self._loop.time())

    # ---- sending

    def _next(self) -> None:
        """Sends the next request, if one waits and it may go."""
        if self._turn is not None or not self._waiting or self._closed:
            return
        assert self._loop is not None  # noqa: S101
        now_s = self._loop.time()
        if now_s < self._free_s:
            self._rest.set(self._free_s, self._loop)
        elif self.connection.transport is None:
            if self.connection.may_try(now_s):
                self.connection.open(self._waiting.first_timeout_s, self._connected)
            else:
                self._connected(is_up=False)
        elif len(self._sent) < OVERDUE and not (self._sent and self._one_alone()):
            first = self._waiting.take(now_s)
            if first is None:
                self._rest.set(self._waiting.free_s, self._loop)
            else:
                asker, query, timeout_s, suspicion = first
                self._send(asker, query, timeout_s, now_s, suspicion)

    def _one_alone(self) -> bool:
        """Whether the one that waits for an answer, or the next one, is to be alone on the connection."""
        return self._waiting.first_alone or next(iter(self._sent.values())).suspicion > 0

    def _send(self, asker: Asker, query: Query, timeout_s: float, now_s: float, suspicion: int = 0) -> None:
        """A request has its turn."""
        assert self._loop is not None  # noqa: S101
        assert self.connection.transport is not None  # noqa: S101
        self._transaction = self._transaction % 0xFFFF + 1
        transaction = self._transaction if self.framing.transactions else 0
        number = transaction.to_bytes(2, "big")
        sent = Sent(asker, query, timeout_s, now_s, transaction, number, suspicion)
        if not self._sent:
            self._oldest_s = now_s
        self._sent[transaction] = self._turn = sent
        patience_s = self.patience_s()
        self._turn_until_s = now_s + (timeout_s if patience_s is None else min(patience_s, timeout_s))
        if not self.framing.transactions:
            self._buffer = b""
            self._late.pop(query.unit, None)
        self._wrong = None
        asker.sent()
        self.connection.transport.write(self.framing.request(query, number))
        self.due_s = min(self._turn_until_s, self._oldest_s + next(iter(self._sent.values())).timeout_s)
        self.watch.add(self, self._loop)

    # ---- receiving

    def received(self, data: bytes) -> None:
        """Bytes came. First what nearly always comes: the one answer that is waited for, whole."""
        turn = self._turn
        if (
            turn is not None
            and len(data) == turn.query.answer_bytes
            and data[:2] == turn.number
            and data.startswith(turn.query.expected, 2)
            and not self._buffer
            and self.framing.transactions
        ):
            self._give(turn, data[MBAP_BYTES + 2 :])
            return
        if self._buffer:
            data = self._buffer + data
        try:
            answers, self._buffer = self.framing.cut(data)
        except Unreadable as error:
            self._spoil(Failure("unusable", str(error)))
            return
        if not self.framing.transactions:
            if self._late:
                answers = [answer for answer in answers if not self._came_late(answer)]
            if turn is None:
                self._buffer = b""
                return
            if len(self._buffer) < len(data) and not answers:
                self._spoil(self._unusable(data))
        for answer in answers:
            # Without transactions, what came before a request left must not be taken for its answer.
            if self.connection.transport is not None and (self.framing.transactions or self._turn is turn):
                self._take(answer)

    def _came_late(self, answer: Answer) -> bool:
        """Whether an answer on a line is the late one of a request that timed out, whose unit is not asked meanwhile."""
        sent = self._late.get(answer.unit)
        said = None if sent is None else judge(answer, sent.query)
        if sent is None or not (isinstance(said, bytes) or (said is not None and said.answered)):
            return False
        assert self._loop is not None  # noqa: S101
        self.ties.came_late(answer.unit, self._loop.time() - sent.sent_s)
        del self._late[answer.unit]
        return True

    def _take(self, answer: Answer) -> None:
        """Gives an answer to whoever asked."""
        sent = self._sent.get(answer.transaction)
        if sent is None:
            if not self._expired.is_late(answer.transaction):
                if answer.transaction:  # one that came twice, or another's: ours may be behind it
                    self._wrong = self._wrong or Failure("transaction", "answer to another transaction")
                else:  # never given out
                    self._spoil(Failure("transaction", "answer to transaction 0"))
            return
        said = judge(answer, sent.query)
        if isinstance(said, bytes):
            self._give(sent, said)
        elif said.outcome == "exception":
            self._done(sent)
            self._fail(sent, said)
            self._next()
        else:
            self._spoil(said, sent)

    def _give(self, sent: Sent, payload: bytes) -> None:
        """The data that was asked for."""
        took_s = self._done(sent)
        metrics.requests["ok"] += 1
        sent.asker.answered(payload, self.clock.now_us(), took_s)
        if self._waiting:
            self._next()

    def _done(self, sent: Sent) -> float:
        """A request is over. Returns the seconds that its answer took."""
        assert self._loop is not None  # noqa: S101
        now_s = self._loop.time()
        took_s = now_s - max(self._oldest_s, sent.sent_s)
        self._silent, self.served, self.heard_s = 0, True, now_s
        self._forget(sent, now_s)
        return took_s

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

    # ---- when it goes wrong

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
            self._waiting.hold(sent.query.unit, now_s + self._longest_s)
            self._late[sent.query.unit] = sent
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
