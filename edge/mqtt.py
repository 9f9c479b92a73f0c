"""The MQTT driver: one session at each broker for all equipment behind it. paho-mqtt, in a thread of its own.

Invariant: a message (QoS 1) is acknowledged after the spool has what it said, refusals included, and never before; the
session is persistent under a client id that stays the same, so the broker keeps what comes while the agent is down.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from edge.driver import Put
from edge.mqtt_broker import CONNECT_TIMEOUT_S, Broker, make_broker
from edge.mqtt_decode import MqttSource
from edge.mqtt_session import FINISH_S, Session
from edge.presence import Listening
from edge.subscriptions import Memory, Messages, Subscription, subscribe
from edge.thread import start_thread
from telemetry.clock import Clock
from telemetry.plant import Equipment, Plant
from telemetry.service import Health

END_S: Final = CONNECT_TIMEOUT_S + FINISH_S
"""The thread ends within; it is a daemon, for a name that does not resolve may take longer."""


@dataclass(slots=True)
class MqttDriver:
    """Listens to one broker. See edge.driver.PushingDriver."""

    broker: Broker
    subscriptions: Mapping[bytes, Subscription]
    source: MqttSource
    clock: Clock
    health: Health
    _put: Put | None = None
    _loop: asyncio.AbstractEventLoop | None = None
    _over: bool = False

    @property
    def endpoint(self) -> str:
        """See PushingDriver."""
        return self.broker.address.endpoint

    def unreachable(self, now_us: int) -> Mapping[str, int]:
        """See PushingDriver."""
        return self.source.listening.unreachable(now_us, self.clock.monotonic_s())

    async def run(self, put: Put) -> None:
        """See PushingDriver. Raises what the session's thread fails with."""
        self._put, self._loop = put, asyncio.get_running_loop()
        self.health.missing(self.endpoint, "not connected yet")
        session = Session(self.broker, self.subscriptions, self._take, self._heard, self._tell, self.clock.now_us)
        ended: asyncio.Future[None] = self._loop.create_future()
        start_thread(f"mqtt {self.endpoint}", session.run, partial(_end, ended))
        try:
            await asyncio.shield(ended)
        finally:
            session.stop()
            await asyncio.wait([ended], timeout=END_S)
            self._over = True
            self.health.found(self.endpoint)  # Nobody waits for it any longer; who listens there next says so anew.

    # ---- on the session's thread

    def _take(self, messages: Messages) -> bool:
        assert self._put is not None  # noqa: S101
        return self._put(self.source, messages, messages.rows)

    def _heard(self, subscriptions: Sequence[Subscription]) -> None:
        heard_s, now_s = self.source.listening.heard_s, self.clock.monotonic_s()
        for subscription in subscriptions:
            heard_s[subscription.equipment] = now_s

    def _tell(self, why: str | None) -> None:
        """To the health of the service, on its own thread."""
        assert self._loop is not None  # noqa: S101
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._told, why)

    def _told(self, why: str | None) -> None:
        if self._over:
            return
        if why is None:
            self.health.found(self.endpoint)
        else:
            self.health.missing(self.endpoint, why)


def make_drivers(
    plant: Plant,
    equipment: Iterable[Equipment],
    clock: Clock,
    *,
    edge: str,
    file: str,
    health: Health,
    memory: Memory,
) -> list[MqttDriver]:
    """The drivers of all MQTT equipment, one for each broker. Raises ConfigError for a secret that is not there.

    `memory` outlives them: the next ones, of a changed plant file, are given the same.
    """
    brokers: dict[str, list[Equipment]] = {}
    for one in equipment:
        if not one.address.is_modbus:
            brokers.setdefault(one.address.endpoint, []).append(one)
    drivers = []
    for members in brokers.values():
        address, now_s = members[0].address, clock.monotonic_s()
        broker = make_broker(address, plant.endpoint(address), edge=edge, file=file)
        listening = Listening(
            {one.id: one.profile.silent_after_s for one in members}, {one.id: now_s for one in members}
        )
        subscriptions = subscribe(members, memory, file=file)
        drivers.append(MqttDriver(broker, subscriptions, MqttSource(listening, memory, clock), clock, health))
    return drivers


def _end(ended: asyncio.Future[None], error: Exception | None) -> None:
    if ended.done():
        return
    if error is None:
        ended.set_result(None)
    else:
        ended.set_exception(error)
