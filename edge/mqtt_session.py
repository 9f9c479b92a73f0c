"""One broker's session: a thread that connects, subscribes, takes messages and acknowledges them, for as long as it runs.

The loop is ours and the protocol paho-mqtt's (its calls for a loop of one's own: loop_read, loop_write, loop_misc); its
own loop reads by select(), which knows no descriptor beyond 1,023, and an edge with 2,000 Modbus devices has them.

Invariants: a message is acknowledged only on the connection that it came by, after the journal has it; when the journal
has no room, messages wait here within BACKLOG_BYTES and the broker within its window, and beyond that the connection is
given up, for the broker to keep them.
"""

from __future__ import annotations

import contextlib
import math
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from paho.mqtt.client import ConnectFlags, DisconnectFlags, MQTTv5, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge import metrics
from edge.mqtt_broker import Broker, connect_properties, secure, why_not_connected
from edge.mqtt_packets import RETAIN, Published, StreamError
from edge.mqtt_socket import ReadAhead, ReadingAhead
from edge.subscriptions import Messages, Subscription

KEEPALIVE_S: Final = 30
RECONNECT_S: Final = 1.0
RECONNECT_MAX_S: Final = 15.0
ACCEPT_S: Final = 5.0
"""The broker gets so long to answer a CONNECT."""
PROBE_S: Final = 2.0
"""… and so long where it may not know this version: some wait for more to come rather than refuse it."""
SUBSCRIBE_AT_ONCE: Final = 100
TICK_S: Final = 1.0
RETRY_S: Final = 0.1
"""How often the journal is asked whether it has room again."""
BACKLOG_BYTES: Final = 32 << 20
"""Payloads that wait here for room, and as many again that the journal has."""
NO_ROOM_S: Final = 5.0
"""A connection that was given up for want of room is made anew after so long."""
FINISH_S: Final = 1.0
SETTLE_S: Final = 0.05
"""The broker gets so long to read the last acknowledgements: a socket closed with unread input resets the connection,
and what the broker has not read by then is gone."""
DENIED_AGAIN_S: Final = 15.0
DENIED_TOLD: Final = 3
"""Most topics named that the broker refuses."""
_UNSUPPORTED: Final = "Unsupported protocol version"


@dataclass(slots=True, eq=False)
class Connection:
    """One connection to the broker, from CONNECT to its end. See edge.subscriptions.Line."""

    client: ReadingAhead
    socket: ReadAhead
    wake: Callable[[], None]
    accepted: bool = False
    refused: str = ""
    asked: dict[int, Sequence[str]] = field(default_factory=dict)
    """Message id → topics of subscriptions that the broker has not answered yet."""
    denied: list[str] = field(default_factory=list)
    """Topics that it does not let us subscribe to."""
    ask_again_s: float = math.inf
    """When they are asked for again: somebody may have mended its access list."""
    outstanding: int = 0
    """Reads of this connection that the journal has taken and that are not acknowledged."""
    outstanding_bytes: int = 0
    given_up: set[bytes] = field(default_factory=set)
    """Topics of nobody that were unsubscribed from."""
    _durable: deque[Messages] = field(default_factory=deque)

    def acknowledge(self, messages: Messages) -> None:
        """See Line."""
        self._durable.append(messages)
        self.wake()

    def count(self, messages: Messages, reads: int) -> None:
        """The journal takes them (1), or gives them back (−1)."""
        self.outstanding += reads
        self.outstanding_bytes += reads * messages.size

    def send(self) -> None:
        """Sends the acknowledgements that wait, joined, unless a packet of paho's is half sent."""
        if not self._durable or self.client.want_write():
            return
        durable = [self._durable.popleft() for _ in range(len(self._durable))]
        self.socket.push(b"".join([messages.acks for messages in durable]))
        for messages in durable:
            self.count(messages, -1)


@dataclass(slots=True)
class Session:
    """The thread of one broker. `start`, then `stop` and `join`."""

    broker: Broker
    subscriptions: Mapping[bytes, Subscription]
    take: Callable[[Messages], bool]
    """Hands messages to the journal. False where it has no room."""
    heard: Callable[[Sequence[Subscription]], None]
    """Told of each live message as it comes."""
    tell: Callable[[str | None], None]
    """Told why there is no session, and None when there is one."""
    now_us: Callable[[], int]
    backlog_bytes: int = BACKLOG_BYTES
    no_room_s: float = NO_ROOM_S
    denied_again_s: float = DENIED_AGAIN_S
    _version: str = "5"
    _known: bool = False
    """Whether the broker has accepted a connection in this version."""
    _line: Connection | None = None
    _backlog: deque[Messages] = field(default_factory=deque)
    _backlog_bytes: int = 0
    _stopping: threading.Event = field(default_factory=threading.Event)
    _wakes: tuple[socket.socket, socket.socket] = field(default_factory=socket.socketpair)

    def __post_init__(self) -> None:
        self._version = self.broker.version or "5"
        for end in self._wakes:
            end.setblocking(False)

    # ---- from any thread

    def stop(self) -> None:
        """Asks the session to end: it takes nothing more, waits FINISH_S for acknowledgements, and disconnects."""
        self._stopping.set()
        self.wake()

    def wake(self) -> None:
        """Something is to be done."""
        with contextlib.suppress(OSError):  # Full: it is awake. Closed: it has ended.
            self._wakes[1].send(b"\0")

    # ---- the thread

    def run(self) -> None:
        """Works until told to stop. Raises only what is a fault of this program."""
        pause_s = RECONNECT_S
        try:
            while not self._stopping.is_set():
                line = self._open()
                if line is not None:
                    self._talk(line)
                    self._end(line)
                    if line.accepted:
                        pause_s = RECONNECT_S
                    elif line.refused == _UNSUPPORTED and self.broker.version is None:
                        continue  # At once, in the other version.
                self._stopping.wait(pause_s)
                pause_s = min(pause_s * 2, RECONNECT_MAX_S)
        finally:
            for end in self._wakes:
                end.close()

    def _open(self) -> Connection | None:
        try:
            client = self._client()
        except (OSError, ValueError) as error:  # a file that was there at the start: it is being renewed, or was lost
            self.tell(f"login or certificate cannot be read: {error}")
            return None
        version_5 = self._version == "5"
        host, port, keeps = self.broker.address.host, self.broker.address.port, self.broker.keeps
        try:
            if version_5:
                properties = connect_properties(keeps=keeps)
                client.connect(host, port, KEEPALIVE_S, clean_start=not keeps, properties=properties)
            else:
                client.connect(host, port, KEEPALIVE_S)
        except (OSError, ValueError) as error:
            self.tell(why_not_connected(error))
            return None
        assert client.ahead is not None  # noqa: S101
        if client.socket() is None:
            self.tell(_lost(client.ahead.why))
            return None
        self._line = Connection(client, client.ahead, self.wake)
        return self._line

    def _client(self) -> ReadingAhead:
        protocol: MQTTProtocolVersion = MQTTv5 if self._version == "5" else MQTTv311
        client = ReadingAhead(
            CallbackAPIVersion.VERSION2,
            client_id=self.broker.client_id,
            clean_session=None if protocol == MQTTv5 else not self.broker.keeps,
            protocol=protocol,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        secure(client, self.broker)
        client.on_connect = self._connected
        client.on_disconnect = self._disconnected
        client.on_subscribe = self._subscribed
        return client

    def _talk(self, line: Connection) -> None:
        """Until the connection is lost, or the session is to end and has ended."""
        accept_by, finish_by = time.monotonic() + (PROBE_S if self._is_probing else ACCEPT_S), 0.0
        with selectors.DefaultSelector() as selector:
            selector.register(self._wakes[0], selectors.EVENT_READ)
            selector.register(line.socket, selectors.EVENT_READ)
            while line.client.socket() is not None:
                self._wait(selector, line, RETRY_S if self._backlog or finish_by or not line.accepted else TICK_S)
                if not self._serve(line):
                    return
                now_s = time.monotonic()
                if now_s > line.ask_again_s:
                    self._subscribe(line, [(name, self.subscriptions[name.encode()].qos) for name in line.denied])
                if not line.accepted and now_s > accept_by:
                    self.tell("broker does not answer")
                    self._try_another_version()
                    return
                if self._stopping.is_set():
                    finish_by = finish_by or now_s + FINISH_S
                    self._backlog.clear()
                    if line.outstanding <= 0 or now_s > finish_by:
                        return

    def _wait(self, selector: selectors.BaseSelector, line: Connection, timeout_s: float) -> None:
        writing = bool(line.socket.unsent) or line.client.want_write()
        selector.modify(line.socket, selectors.EVENT_READ | (selectors.EVENT_WRITE if writing else 0))
        ready = selector.select(timeout_s)
        if any(key.fileobj is self._wakes[0] for key, _ in ready):
            with contextlib.suppress(BlockingIOError):
                self._wakes[0].recv(4096)

    def _serve(self, line: Connection) -> bool:
        """Reads and writes what can be. False where the connection is to be given up."""
        client = line.client
        try:
            line.socket.fill()
        except StreamError as error:
            self.tell(f"connection given up: {error}")
            return False
        while client.socket() is not None and (line.socket.stream.control or line.socket.ended):
            client.loop_read()
        if client.socket() is None:
            return False
        published = line.socket.stream.take()
        if published.heads and not self._stopping.is_set():
            self._arrived(line, published)
        self._hand_over(line)
        line.socket.flush()
        line.send()
        if client.want_write():
            client.loop_write()
        if client.socket() is not None:
            client.loop_misc()
        return self._backlog_bytes <= self.backlog_bytes

    def _arrived(self, line: Connection, published: Published) -> None:
        received_us = self.now_us()
        found = [self.subscriptions.get(topic) for topic in published.topics]
        payloads, heads = published.payloads, published.heads
        if None in found:
            self._nobodys(line, [t for t, s in zip(published.topics, found, strict=True) if s is None])
            kept = [place for place, subscription in enumerate(found) if subscription is not None]
            payloads, heads = [payloads[place] for place in kept], [heads[place] for place in kept]
        mine = [subscription for subscription in found if subscription is not None]
        self.heard([s for s, head in zip(mine, heads, strict=True) if not head & RETAIN])
        messages = Messages(received_us, mine, payloads, heads, b"".join(published.acks), line)
        self._backlog.append(messages)
        self._backlog_bytes += messages.size

    def _nobodys(self, line: Connection, topics: Sequence[bytes]) -> None:
        """Of equipment that was in the session once."""
        metrics.MESSAGES.labels("unknown-topic").inc(len(topics))
        for topic in set(topics) - line.given_up:
            line.given_up.add(topic)
            with contextlib.suppress(ValueError):  # No UTF-8, or a topic that cannot be subscribed to.
                line.client.unsubscribe(topic.decode())

    def _hand_over(self, line: Connection) -> None:
        while self._backlog and line.outstanding_bytes <= self.backlog_bytes:
            messages = self._backlog[0]
            line.count(messages, 1)
            if not self.take(messages):
                line.count(messages, -1)
                return
            self._backlog.popleft()
            self._backlog_bytes -= messages.size

    def _end(self, line: Connection) -> None:
        """Disconnects. What waits for room was not acknowledged: the broker keeps it."""
        is_full = self._backlog_bytes > self.backlog_bytes
        self._backlog.clear()
        self._backlog_bytes = 0
        self._line = None
        if line.client.socket() is not None:
            time.sleep(SETTLE_S)
            line.client.disconnect()
        if line.client.socket() is not None:
            line.socket.close()
        if is_full:
            self.tell("connection given up until there is room in the journal")
            self._stopping.wait(self.no_room_s)

    # ---- paho's callbacks, on the thread

    def _connected(
        self, client: Any, userdata: Any, flags: ConnectFlags, reason: ReasonCode, properties: Properties | None
    ) -> None:
        line = self._line
        assert line is not None  # noqa: S101
        if reason.is_failure:
            line.refused = str(reason)
            if line.refused != _UNSUPPORTED or not self._is_probing:
                self.tell(f"broker refused: {reason}")
            else:
                self._try_another_version()
            return
        line.accepted = self._known = True
        self._subscribe(line, [(s.name, s.qos) for s in self.subscriptions.values()])

    def _disconnected(
        self, client: Any, userdata: Any, flags: DisconnectFlags, reason: ReasonCode, properties: Properties | None
    ) -> None:
        line = self._line
        if line is None or line.refused or self._stopping.is_set():
            return  # Why is told already, or nobody waits for it.
        self.tell(_lost(line.socket.why or str(reason)))
        if not line.accepted:
            self._try_another_version()  # Some brokers hang up on a version that they do not know.

    @property
    def _is_probing(self) -> bool:
        """Whether it is not known yet which version the broker speaks."""
        return self.broker.version is None and not self._known

    def _try_another_version(self) -> None:
        if self._is_probing:
            self._version = "3.1.1" if self._version == "5" else "5"

    def _subscribe(self, line: Connection, wanted: Sequence[tuple[str, int]]) -> None:
        line.denied, line.ask_again_s = [], math.inf
        for start in range(0, len(wanted), SUBSCRIBE_AT_ONCE):
            part = wanted[start : start + SUBSCRIBE_AT_ONCE]
            _, mid = line.client.subscribe([*part])
            if mid is not None:
                line.asked[mid] = [name for name, _ in part]

    def _subscribed(
        self, client: Any, userdata: Any, mid: int, reasons: Sequence[ReasonCode], properties: Properties | None
    ) -> None:
        line = self._line
        assert line is not None  # noqa: S101
        topics = line.asked.pop(mid, ())
        line.denied += [name for name, reason in zip(topics, reasons, strict=False) if reason.is_failure]
        if not line.asked:
            self.tell(_denied(line.denied))
            line.ask_again_s = time.monotonic() + self.denied_again_s if line.denied else math.inf


def _denied(topics: Sequence[str]) -> str | None:
    """What is said of topics that the broker does not give; nothing where it gives all."""
    if not topics:
        return None
    more = f" and {len(topics) - DENIED_TOLD} more" if len(topics) > DENIED_TOLD else ""
    return f"broker refused to subscribe {', '.join(topics[:DENIED_TOLD])}{more}: look at its access list"


def _lost(why: str) -> str:
    return f"connection lost: {why or 'closed by the broker'}"
