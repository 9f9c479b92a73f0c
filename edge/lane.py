"""One connection to a Modbus endpoint and the queue before it: requests leave in turn, each answer finds its request.

Callbacks, not tasks: at a thousand devices a second a task and a future for each request cost more than reading them.

Invariants
- An answer is used only if its unit, function, length, and transaction where there is one, are those of a request that
  waits for it; after anything unreadable on a network the connection is closed, so that no late byte can be taken for a
  later answer. Without transactions (RTU, on a line or through a serial server) a unit whose request was given up (its
  time-out passed, or the connection was lost) is not asked again before two of the longest time-outs have passed since
  that left, and nobody is within a line's silence after an answer, which may come twice; what comes in the meantime, or
  fits nothing, is discarded. Beyond that nothing tells an answer from an earlier one of the same unit, function and length.
- At most one request has the turn. One that keeps it longer than `patience_s` loses the turn, not its claim to an answer
  (at most OVERDUE of these); its time-out runs from when it is the oldest on the connection, because a gateway may be
  busy with the one before. Requests that one without an answer holds up are asked again on a new connection.
- Where one of those that wait costs the connection, it fails, the others are asked again (edge.blame); one under
  suspicion is asked alone: while it waits for its answer nobody else is asked.
- Every request is answered or failed exactly once, unless whoever asked has gone.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from edge import metrics
from edge.asking import GONE, Asker, Failure, judge
from edge.frames import MBAP_BYTES, Answer, Query, Unreadable
from edge.trouble import OVERDUE as OVERDUE
from edge.trouble import Troubled
from edge.waiting import Sent
from edge.watch import LOOK_S as LOOK_S
from edge.watch import Watch as Watch


@dataclass(slots=True, eq=False)
class Lane(Troubled):
    """A connection that is opened when something is asked, and again when it is lost."""

    # ---- for those who ask

    def ask(self, asker: Asker, query: Query, timeout_s: float, suspicion: int = 0) -> None:
        """Puts a request into the queue. May tell of its failure before it returns, where there is no connection.
        `suspicion` of more than 0: it may cost the connection, and is asked alone.
        """
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        if timeout_s > self._longest_s:
            self._longest_s = timeout_s
        now_s, waiting = self._loop.time(), self._waiting
        if self.connection.transport is None:
            if not self.connection.may_try(now_s):
                self._refuse(asker)
                return
        elif not self._sent and not waiting.queue and not waiting.held and self._free_s == 0.0:
            self._send(asker, query, timeout_s, now_s, suspicion)
            return
        waiting.put((asker, query, timeout_s, suspicion))
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
        self._wrong = None
        if self.framing.transactions:
            self._transaction = transaction = self._transaction % 0xFFFF + 1
            number = transaction.to_bytes(2, "big")
            request = number + query.mbap  # what framing.request does, asked a thousand times a second
        else:
            self._transaction, transaction, number = self._transaction + 1, 0, b""
            request = self.framing.request(query, number)
            self._buffer = b""
            self._late.pop(query.unit, None)
        sent = Sent(asker, query, timeout_s, now_s, transaction, number, suspicion)
        if not self._sent:
            self._oldest_s, self.due_s = now_s, now_s + timeout_s
        self._sent[transaction] = self._turn = sent
        self._turn_until_s = now_s + timeout_s
        if self.patience_s is not None and (patience_s := self.patience_s()) is not None:
            self._turn_until_s = now_s + min(patience_s, timeout_s)
        self.due_s = min(self.due_s, self._turn_until_s)
        asker.sent()
        self.connection.transport.write(request)
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
        if len(self._sent) == 1 and not self.pause_s:  # nearly always: `_done`, without what is for several
            assert self._loop is not None  # noqa: S101
            self.heard_s = now_s = self._loop.time()
            took_s = now_s - sent.sent_s if sent.sent_s > self._oldest_s else now_s - self._oldest_s
            self._silent, self.served, self._turn = 0, True, None
            self._sent.clear()
            self.watch.busy.pop(self, None)
        else:
            took_s = self._done(sent)
        metrics.requests["ok"] += 1
        sent.asker.answered(payload, self.clock.now_us(), took_s)
        if self._waiting.queue:
            self._next()

    def _done(self, sent: Sent) -> float:
        """A request is over. Returns the seconds that its answer took."""
        assert self._loop is not None  # noqa: S101
        now_s = self._loop.time()
        took_s = now_s - max(self._oldest_s, sent.sent_s)
        self._silent, self.served, self.heard_s = 0, True, now_s
        self._forget(sent, now_s)
        return took_s
