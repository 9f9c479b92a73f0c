"""The MQTT driver: one connection to each broker for all equipment behind it. paho-mqtt, in its own thread.

Invariant: a message (QoS 1) is acknowledged after the spool has what it said, refusals included, and never before; the
session is persistent under a client id that stays the same, so the broker keeps what comes while the agent is down.
When the journal has no room, a message is neither kept nor acknowledged, and the session is taken up anew once there
is room: the broker then sends it again.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import ssl
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import structlog
from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge import metrics
from edge.complaints import Complaints
from edge.driver import Deliver, Reading
from edge.payload import Parsed, Refusal, Topic, make_topics
from telemetry.clock import Clock
from telemetry.errors import ConfigError, Fault
from telemetry.plant import Address, Endpoint, Equipment, Plant
from telemetry.service import Health

log = structlog.get_logger()

KEEPALIVE_S: Final = 30
RECONNECT_S: Final = 1
RECONNECT_MAX_S: Final = 15
CONNECT_TIMEOUT_S: Final = 3.0
SUBSCRIBE_AT_ONCE: Final = 100
LOOK_S: Final = 0.25
FINISH_S: Final = 1.0
SETTLE_S: Final = 0.05
"""The broker gets so long to read the last acknowledgements: a socket closed with unread input resets the connection,
and what the broker has not read by then is gone."""


@dataclass(frozen=True, slots=True)
class Broker:
    """How a broker is reached."""

    address: Address
    client_id: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: str | None = None


@dataclass(frozen=True, slots=True)
class Subscription:
    """A topic in full: whose it is and how it is read."""

    equipment: str
    topic: Topic
    qos: int


@dataclass(slots=True)
class Listening:
    """What is known of each equipment's presence. Times are µs of the wall clock."""

    silent_after_us: Mapping[str, int]
    heard_us: dict[str, int]
    off_us: dict[str, int] = field(default_factory=dict)

    def heard(self, equipment: str, received_us: int, online: bool | None, *, retained: bool) -> None:
        """A message came. A retained one says nothing about now, except that a last will holds until the next word."""
        if online is False:
            self.off_us.setdefault(equipment, received_us)
        elif online or not retained:
            self.off_us.pop(equipment, None)
        if not retained:
            self.heard_us[equipment] = received_us

    def unreachable(self, now_us: int) -> dict[str, int]:
        """Equipment that said it is off, or nothing for too long → since when."""
        silent = {
            equipment: heard
            for equipment, heard in self.heard_us.items()
            if now_us - heard > self.silent_after_us[equipment]
        }
        return {**silent, **self.off_us}


@dataclass(slots=True)
class MqttDriver:
    """Listens to one broker. See edge.driver.PushingDriver."""

    broker: Broker
    subscriptions: Mapping[str, Subscription]
    listening: Listening
    clock: Clock
    health: Health
    has_room: Callable[[], bool]
    _complaints: Complaints = field(default_factory=Complaints)
    _deliver: Deliver | None = None
    _loop: asyncio.AbstractEventLoop | None = None
    _closing: bool = False
    _refused: bool = False
    """The broker answered the last connection with a refusal."""
    _turned_away: bool = False
    _outstanding: int = 0
    _unconfirmed: int = 0
    """Subscriptions that the broker has not confirmed since the connection was made."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _retained_us: dict[str, int] = field(default_factory=dict)

    @property
    def endpoint(self) -> str:
        """See PushingDriver."""
        return self.broker.address.endpoint

    def unreachable(self, now_us: int) -> Mapping[str, int]:
        """See PushingDriver."""
        return self.listening.unreachable(now_us)

    async def run(self, deliver: Deliver) -> None:
        """See PushingDriver."""
        self._deliver, self._loop = deliver, asyncio.get_running_loop()
        self.health.missing(self.endpoint, "not connected yet")
        while True:
            client = self._client()
            client.connect_async(self.broker.address.host, self.broker.address.port, KEEPALIVE_S)
            client.loop_start()
            try:
                while not (self._turned_away and self.has_room()):  # noqa: ASYNC110 (both change on other threads)
                    await asyncio.sleep(LOOK_S)
            finally:
                await self._finish(client)
            self._turned_away = self._closing = False
            log.info("session taken up anew, for messages that there was no room for", endpoint=self.endpoint)

    async def _finish(self, client: Client) -> None:
        """Takes nothing more, waits until what was taken is acknowledged, and disconnects."""
        self._closing = True
        deadline = asyncio.get_running_loop().time() + FINISH_S
        while self._outstanding and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110 (as above)
            await asyncio.sleep(0.01)
        await asyncio.sleep(SETTLE_S)
        client.disconnect()
        await asyncio.wait([asyncio.ensure_future(asyncio.to_thread(client.loop_stop))], timeout=CONNECT_TIMEOUT_S)

    # ---- on paho's thread

    def _client(self) -> Client:
        client = Client(
            CallbackAPIVersion.VERSION2, client_id=self.broker.client_id, clean_session=False, manual_ack=True
        )
        client.reconnect_delay_set(RECONNECT_S, RECONNECT_MAX_S)
        secure(client, self.broker)
        client.on_connect = self._connected
        client.on_connect_fail = self._not_connected
        client.on_disconnect = self._disconnected
        client.on_subscribe = self._subscribed
        client.on_message = self._message
        return client

    def _connected(
        self, client: Client, userdata: Any, flags: ConnectFlags, reason: ReasonCode, properties: Properties | None
    ) -> None:
        self._refused = reason.is_failure
        if reason.is_failure:
            self._tell(f"broker refused: {reason}")
            return
        wanted = [(name, subscription.qos) for name, subscription in self.subscriptions.items()]
        for start in range(0, len(wanted), SUBSCRIBE_AT_ONCE):
            client.subscribe(wanted[start : start + SUBSCRIBE_AT_ONCE])
        self._unconfirmed = len(wanted)

    def _not_connected(self, client: Client, userdata: Any) -> None:
        # paho calls this while it handles the error, and does not hand it over.
        self._tell(why_not_connected(sys.exc_info()[1]))

    def _disconnected(
        self,
        client: Client,
        userdata: Any,
        flags: DisconnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if self._refused:
            self._refused = False  # By the broker, which then hung up; why is told already.
        elif not self._closing:
            self._tell(f"connection lost: {reason}")

    def _subscribed(
        self,
        client: Client,
        userdata: Any,
        mid: int,
        reasons: Sequence[ReasonCode],
        properties: Properties | None,
    ) -> None:
        refused = sum(reason.is_failure for reason in reasons)
        self._unconfirmed -= len(reasons)
        if refused:
            self._tell(f"broker refused {refused} subscriptions")
        elif self._unconfirmed <= 0:
            self._tell(None)

    def _message(self, client: Client, userdata: Any, message: MQTTMessage) -> None:
        if self._closing:
            return  # Not taken, not acknowledged: the broker keeps it.
        metrics.MESSAGES.labels("retained" if message.retain else "duplicate" if message.dup else "new").inc()
        subscription = self.subscriptions.get(message.topic)
        if subscription is None:  # Of an equipment that was in the session once.
            metrics.MESSAGES.labels("unknown-topic").inc()
            client.unsubscribe(message.topic)
            client.ack(message.mid, message.qos)
            return
        received_us = self.clock.now_us()
        parsed = self._read(subscription, message, received_us)
        self.listening.heard(subscription.equipment, received_us, parsed.online, retained=message.retain)
        reading = self._reading(subscription, message, parsed, received_us)
        mid, qos = message.mid, message.qos
        with self._lock:
            self._outstanding += 1

        def done() -> None:
            client.ack(mid, qos)
            with self._lock:
                self._outstanding -= 1

        if self._deliver is None or not self._deliver(reading, done):
            self._turned_away = True
            with self._lock:
                self._outstanding -= 1

    def _read(self, subscription: Subscription, message: MQTTMessage, received_us: int) -> Parsed:
        """What the message says. Whatever a payload does to its reader, it is refused and the next one is read."""
        try:
            parsed = subscription.topic.read(bytes(message.payload), received_us, retained=message.retain)
        except Exception as error:
            log.exception("payload not read", equipment=subscription.equipment, topic=message.topic)
            return Parsed(refusals=(Refusal("unreadable", type(error).__name__),))
        if message.retain and parsed.device_time_us is not None:
            if self._retained_us.get(message.topic) == parsed.device_time_us:
                return Parsed()  # The same retained message again, after a reconnect.
            self._retained_us[message.topic] = parsed.device_time_us
        return parsed

    def _reading(self, subscription: Subscription, message: MQTTMessage, parsed: Parsed, received_us: int) -> Reading:
        if parsed.missing:
            metrics.MISSING_FIELDS.inc(parsed.missing)
        complaints = [
            event
            for refusal in parsed.refusals
            for event in self._complaints.about(subscription.equipment, message.topic, refusal, received_us)
        ]
        return Reading(subscription.equipment, parsed.batch, parsed.texts, (*parsed.events, *complaints))

    def _tell(self, why: str | None) -> None:
        """To the health of the service, on its own thread."""
        assert self._loop is not None  # noqa: S101
        if self._loop.is_closed():
            return
        if why is None:
            self._loop.call_soon_threadsafe(self.health.found, self.endpoint)
        else:
            self._loop.call_soon_threadsafe(self.health.missing, self.endpoint, why)


def make_drivers(
    plant: Plant,
    equipment: Iterable[Equipment],
    clock: Clock,
    *,
    edge: str,
    file: str,
    health: Health,
    has_room: Callable[[], bool],
) -> list[MqttDriver]:
    """The drivers of all MQTT equipment, one for each broker. Raises ConfigError for a secret that is not there."""
    brokers: dict[str, list[Equipment]] = {}
    for one in equipment:
        if not one.address.is_modbus:
            brokers.setdefault(one.address.endpoint, []).append(one)
    drivers = []
    for members in brokers.values():
        address = members[0].address
        broker = make_broker(address, plant.endpoint(address), edge=edge, file=file)
        subscriptions: dict[str, Subscription] = {}
        for one in members:
            for topic, subscription in subscriptions_of(one).items():
                first = subscriptions.setdefault(topic, subscription)
                if first.equipment != one.id:
                    expected = f"a topic of its own, not {first.equipment}'s"
                    raise ConfigError([Fault(file, 0, f"equipment.{one.id}.address", expected, topic)])
        listening = Listening(
            {one.id: int(one.profile.silent_after_s * 1e6) for one in members},
            {one.id: clock.now_us() for one in members},
        )
        drivers.append(MqttDriver(broker, subscriptions, listening, clock, health, has_room))
    return drivers


def secure(client: Client, broker: Broker) -> None:
    """Gives a client its credentials, TLS and time-out."""
    client.connect_timeout = CONNECT_TIMEOUT_S
    if broker.username is not None:
        client.username_pw_set(broker.username, broker.password)
    if broker.address.scheme == "mqtts":
        context = ssl.create_default_context(cafile=broker.ca_file)
        context.sslsocket_class = _ClosedOnFailure
        client.tls_set_context(context)


class _ClosedOnFailure(ssl.SSLSocket):
    """paho forgets a socket whose handshake failed, and leaves it open."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except OSError:
            self.close()
            raise


def why_not_connected(error: BaseException | None) -> str:
    """Why a connection could not be made, in words for people."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"broker's certificate is not accepted: {error.verify_message}"
    reason = "" if error is None else f": {getattr(error, 'strerror', None) or error}"
    return f"broker cannot be reached{reason}"


def subscriptions_of(equipment: Equipment) -> dict[str, Subscription]:
    """The topics of one equipment, in full."""
    qos = equipment.profile.mqtt.qos
    return {
        f"{equipment.address.prefix}/{name}": Subscription(equipment.id, topic, qos)
        for name, topic in make_topics(equipment.id, equipment.profile).items()
    }


def make_broker(address: Address, endpoint: Endpoint, *, edge: str, file: str) -> Broker:
    """How to reach a broker, with its secrets read. Raises ConfigError, for a CA file that is none as well."""
    _check_ca(endpoint.ca_file, f"endpoints.{address.endpoint}.ca_file", file)
    digest = hashlib.blake2b(address.endpoint.encode(), digest_size=6).hexdigest()
    return Broker(
        address,
        f"vigil-{edge}-{digest}",
        _secret(endpoint.username, f"endpoints.{address.endpoint}.username", file),
        _secret(endpoint.password, f"endpoints.{address.endpoint}.password", file),
        endpoint.ca_file,
    )


def _secret(reference: str | None, key: str, file: str) -> str | None:
    if reference is None:
        return None
    kind, _, name = reference.partition(":")
    try:
        return os.environ[name] if kind == "env" else Path(name).read_text(encoding="utf-8").strip()
    except (KeyError, OSError) as error:
        raise ConfigError([Fault(file, 0, key, f"{reference} to be there", type(error).__name__)]) from error


def _check_ca(ca_file: str | None, key: str, file: str) -> None:
    if ca_file is None:
        return
    try:
        ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError([Fault(file, 0, key, f"{ca_file}, a readable file of certificates", str(error))]) from error
