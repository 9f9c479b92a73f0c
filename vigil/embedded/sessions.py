"""What amqtt's broker lacks for QoS 1 to mean *at least once*: sessions that keep what was not acknowledged.

amqtt 0.12 forgets a QoS 1 message when its receiver does not acknowledge within 5 s or its connection ends, queues
nothing for clients without a user name, marks what it queued as retained, lets a session that was taken over count as
disconnected, and never closes a connection that is silent beyond its keep-alive. An edge acknowledges only what it has
journaled, so each of these would lose readings.

Invariants, for each persistent session:
- a QoS 1 message stays in the session's outbox until its PUBACK came; after a reconnect it is sent again, with DUP;
- messages leave in the order in which they came;
- an outbox holds at most OUTBOX_MESSAGES; beyond that the oldest not yet sent is dropped, counted and logged.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from amqtt.broker import Broker
from amqtt.mqtt.constants import QOS_1
from amqtt.mqtt.protocol.broker_handler import BrokerProtocolHandler
from amqtt.mqtt.publish import PublishPacket
from amqtt.plugins.base import BaseAuthPlugin

OUTBOX_MESSAGES: Final = 100_000
WINDOW: Final = 500
"""Messages sent and not yet acknowledged, at most, per session."""
BROADCAST_QUEUE: Final = 10_000
DELIVERY_QUEUE: Final = 1_000
ABORT_WITHIN_S: Final = 0.5
KEEP_ALIVE_FACTOR: Final = 1.5
"""MQTT 3.1.1, 3.1.2.10: silent for longer than this times the keep-alive, a client is disconnected."""
_OUTBOX: Final = "vigil.outbox"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Message:
    """A message on its way to one client."""

    topic: str
    data: bytes
    retain: bool


class Outbox:
    """The QoS 1 messages of one session: waiting, and sent but not acknowledged."""

    def __init__(self, client_id: str, limit: int = OUTBOX_MESSAGES) -> None:
        self.client_id = client_id
        self.dropped = 0
        self.waiting: deque[Message] = deque()
        self.inflight: dict[int, Message] = {}
        self._limit = limit
        self._packet_id = 0
        self._wake = asyncio.Event()

    def put(self, message: Message) -> None:
        """Adds a message; over the limit the oldest waiting one goes."""
        if len(self.waiting) >= self._limit:
            self.waiting.popleft()
            self.dropped += 1
            if self.dropped & (self.dropped - 1) == 0:
                log.warning("%s: outbox full, %d messages dropped so far", self.client_id, self.dropped)
        self.waiting.append(message)
        self._wake.set()

    def acknowledge(self, packet_id: int) -> None:
        """The client has this one."""
        self.inflight.pop(packet_id, None)
        self._wake.set()

    async def next(self) -> tuple[int, Message]:
        """Waits until a message may be sent; it is in flight from here on."""
        while not self.waiting or len(self.inflight) >= WINDOW:
            self._wake.clear()
            await self._wake.wait()
        self._packet_id = self._packet_id % 0xFFFF + 1
        while self._packet_id in self.inflight:
            self._packet_id = self._packet_id % 0xFFFF + 1
        message = self.waiting.popleft()
        self.inflight[self._packet_id] = message
        return self._packet_id, message


class DurableHandler(BrokerProtocolHandler):  # type: ignore[misc]
    """One connection; what it has to deliver lives in its session's outbox."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._delivery: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Starts reading, and sends what the session still owes its client."""
        await super().start()
        self._delivery = asyncio.create_task(self._deliver())

    async def stop(self) -> None:
        """Ends the connection; what was not acknowledged stays in the outbox."""
        if self._delivery is not None:
            self._delivery.cancel()
            await asyncio.gather(self._delivery, return_exceptions=True)
        await super().stop()

    async def mqtt_publish(
        self, topic: str, data: bytes | bytearray, qos: int | None, retain: bool, ack_timeout: int | None = None
    ) -> Any:
        """QoS 1 goes by the outbox; other levels as amqtt does it."""
        if qos != QOS_1:
            return await super().mqtt_publish(topic, data, qos, retain, ack_timeout)
        outbox_of(self.session).put(Message(topic, bytes(data), retain))
        return None

    async def handle_puback(self, puback: Any) -> None:
        """The client acknowledged a message."""
        outbox_of(self.session).acknowledge(puback.variable_header.packet_id)

    def handle_read_timeout(self) -> None:
        """Silent beyond its keep-alive: the connection ends, and the last will is published."""
        if self._reader_task is not None:
            self._reader_task.cancel()

    async def _deliver(self) -> None:
        outbox = outbox_of(self.session)
        for packet_id, message in list(outbox.inflight.items()):
            await self._send(packet_id, message, dup=True)
        while True:
            packet_id, message = await outbox.next()
            await self._send(packet_id, message, dup=False)

    async def _send(self, packet_id: int, message: Message, *, dup: bool) -> None:
        packet = PublishPacket.build(message.topic, message.data, packet_id, dup, QOS_1, message.retain)
        await self._send_packet(packet)


class DurableBroker(Broker):  # type: ignore[misc]
    """amqtt's broker with sessions that keep what was not acknowledged, and bounded queues."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self._broadcast_queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(BROADCAST_QUEUE)
        self._subscriptions = _Subscriptions()
        self._open: dict[asyncio.StreamWriter, asyncio.Task[Any] | None] = {}

    async def stream_connected(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, listener_name: str
    ) -> None:
        """Serves one connection and closes it however it ends."""
        self._open[writer] = asyncio.current_task()
        try:
            await super().stream_connected(reader, writer, listener_name)
        finally:
            del self._open[writer]
            writer.close()

    async def _shutdown_broadcast_loop(self) -> None:
        """Called between the end of the sessions and that of the listeners: ends what is still connected."""
        await super()._shutdown_broadcast_loop()
        serving = [task for task in self._open.values() if task is not None]
        for writer in list(self._open):
            writer.transport.abort()
        if serving:
            await asyncio.wait(serving, timeout=ABORT_WITHIN_S)

    async def _initialize_client_session(self, *args: Any, **kwargs: Any) -> tuple[DurableHandler, Any]:
        _, session = await super()._initialize_client_session(*args, **kwargs)
        session.keep_alive = int(session.keep_alive * KEEP_ALIVE_FACTOR)
        if session.delivered_message_queue.maxsize == 0:
            session.delivered_message_queue = asyncio.Queue(DELIVERY_QUEUE)
        return DurableHandler(self.plugins_manager), session

    async def _handle_disconnect(self, client_session: Any, handler: Any, disconnect_waiter: Any) -> None:
        await super()._handle_disconnect(client_session, handler, disconnect_waiter)
        current = self._sessions.get(client_session.client_id)
        if current is not None and current[1] is not handler:  # taken over: the session lives on in another connection
            client_session.transitions.connect()

    async def _retain_broadcast_message(self, broadcast: dict[str, Any], qos: int, target_session: Any) -> None:
        outbox_of(target_session).put(Message(broadcast["topic"], bytes(broadcast["data"]), retain=False))

    async def _publish_retained_messages_for_subscription(self, subscription: tuple[str, int], session: Any) -> None:
        subscribers = self._subscriptions.get(subscription[0], [])
        if any(subscriber.client_id == session.client_id for subscriber, _ in subscribers):
            await super()._publish_retained_messages_for_subscription(subscription, session)


class AnyoneOnLoopback(BaseAuthPlugin):  # type: ignore[misc]
    """Lets every client in, without the mark `anonymous`, which would cost it its session."""

    async def authenticate(self, *, session: Any) -> bool:
        """Always: the broker listens on loopback only."""
        return True


class _Subscriptions(dict[str, list[tuple[Any, int]]]):
    """Iterates over a copy: amqtt awaits while it walks through its subscriptions."""

    def __iter__(self) -> Iterator[str]:
        return iter(list(super().__iter__()))

    def items(self) -> Any:
        return list(super().items())


def outbox_of(session: Any) -> Outbox:
    """The outbox of an amqtt session; made when it is first asked for."""
    outbox: Outbox | None = session.attributes.get(_OUTBOX)
    if outbox is None:
        outbox = session.attributes[_OUTBOX] = Outbox(session.client_id)
    return outbox
