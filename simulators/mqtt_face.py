"""A simulated device on MQTT: one connection each, with a last will, as a terminal in the field has.

Topics and payloads are the profile's (docs/profiles.md, MQTT): state topics, `event`, and, where the profile names one,
the retained topic that says whether the device is online. Invariant: while the device is connected that topic says
ONLINE; when its connection breaks, the broker says CONNECTIONBROKEN for it.
"""

from __future__ import annotations

import asyncio
import json
import math
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import paho.mqtt.client as mqtt
import structlog
from paho.mqtt.enums import CallbackAPIVersion

from simulators.codec import payload
from simulators.feeds import iso_us
from simulators.physics.fleet import DeviceEvent
from telemetry.clock import US_PER_S
from telemetry.plant import Address
from telemetry.profile import Profile

ONLINE, OFFLINE, BROKEN = "ONLINE", "OFFLINE", "CONNECTIONBROKEN"
KEEP_ALIVE_S: Final = 15
QUEUED_MESSAGES: Final = 10_000
"""Kept by a device that has lost its broker; the oldest beyond go."""
STOP_WITHIN_S: Final = 1.0
STATISTICS_S: Final = 60
Values = Mapping[str, float | str]

log = structlog.get_logger()


class MqttDevice:
    """One device: connects by itself, again and again, in a thread of paho's."""

    def __init__(self, equipment: str, address: Address, profile: Profile) -> None:
        self.equipment = equipment
        self._address = address
        self._profile = profile
        self._last: dict[str, tuple[bytes, int]] = {}
        self._running = False
        self._client = self._new_client()

    def _new_client(self) -> mqtt.Client:
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=f"sim-{self.equipment}")
        client.max_queued_messages_set(QUEUED_MESSAGES)
        client.reconnect_delay_set(1, 10)
        client.on_connect = self._connected
        if self._online is not None:
            client.will_set(self._online, BROKEN, qos=1, retain=True)
        return client

    @property
    def _online(self) -> str | None:
        topic = self._profile.mqtt.online_topic
        return None if topic is None else self._topic(topic)

    def _topic(self, below: str) -> str:
        return f"{self._address.prefix}/{below}"

    @property
    def waiting(self) -> bool:
        """Whether it should be connected and is not."""
        return self._running and not self._client.is_connected()

    def start(self) -> None:
        """Begins to connect; messages wait until it is."""
        self._client.connect_async(self._address.host, self._address.port, KEEP_ALIVE_S)
        self._client.loop_start()
        self._running = True

    async def stop(self) -> None:
        """Says goodbye and disconnects."""
        if not self._running:
            return
        self._running = False
        if self._online is not None and self._client.is_connected():
            said = self._client.publish(self._online, OFFLINE, qos=1, retain=True)
            with suppress(RuntimeError, ValueError):
                await asyncio.to_thread(said.wait_for_publish, STOP_WITHIN_S)
        self._client.disconnect()
        await asyncio.to_thread(self._client.loop_stop)

    async def break_off(self) -> None:
        """Loses the connection without a goodbye, until `start`: the broker publishes the last will."""
        if not self._running:
            return
        self._running = False
        await asyncio.to_thread(self._client.loop_stop)
        connection = self._client.socket()
        if isinstance(connection, socket.socket):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._client = self._new_client()

    def publish_state(self, values: Values, time_us: int, *, only_changes: bool) -> int:
        """Publishes what changed since the last time (or everything), one message a topic. Returns messages sent.

        Topics other than `state` carry what changes slowly: at most one message in STATISTICS_S each.
        """
        if not self._running:
            return 0
        sent = 0
        for topic in state_topics(self._profile):
            content = payload(self._profile, topic, values, "")
            last_content, last_us = self._last.get(topic, (b"", -STATISTICS_S * US_PER_S))
            slow = topic != "state" and time_us - last_us < STATISTICS_S * US_PER_S
            if slow or (only_changes and last_content == content):
                continue
            self._last[topic] = (content, time_us)
            self._publish(topic, payload(self._profile, topic, values, iso_us(time_us)))
            sent += 1
        return sent

    def publish_event(self, event: DeviceEvent, time_us: int) -> None:
        """Publishes an event."""
        topic = self._profile.mqtt.event_topic
        if self._running and topic is not None:
            self._publish(topic, event_payload(event, time_us))

    def _publish(self, topic: str, content: bytes) -> None:
        self._client.publish(self._topic(topic), content, qos=self._profile.mqtt.qos)

    def _connected(self, client: mqtt.Client, *_: Any) -> None:
        if self._online is not None:
            client.publish(self._online, ONLINE, qos=1, retain=True)


def state_topics(profile: Profile) -> list[str]:
    """The topics on which a profile's points travel, in the profile's order."""
    return list(dict.fromkeys(point.mqtt.topic for point in profile.points.values() if point.mqtt is not None))


def event_payload(event: DeviceEvent, time_us: int) -> bytes:
    """The JSON message of an event (docs/profiles.md, MQTT); what else the device says of it stands beside."""
    content: dict[str, Any] = {
        **event.attributes,
        "time": iso_us(time_us),
        "scheme": event.scheme,
        "code": event.code,
        "state": "on" if event.on else "off",
    }
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def is_reading(value: float | str) -> bool:
    """Whether a value is one (NaN is none)."""
    return isinstance(value, str) or not math.isnan(value)
