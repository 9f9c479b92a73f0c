"""From the database's notifications to every client of the stream, once read, many times told.

A notification is only a wake-up: what is told is read from the store, so it is true, and what was missed while nobody
listened is found by position. A sweep every two seconds finds what no notification announced. Rows of transactions that
commit out of order are found too: every read looks a little behind its position and skips what it has seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import psycopg
import structlog
from pydantic import BaseModel

from dashboards.console import reads
from dashboards.console.codes import CodeNames
from dashboards.console.metrics import STREAM_CLIENTS
from dashboards.console.store import Store
from dashboards.console.subscriber import MAX_PENDING, MAX_READINGS, Message, Position, Subscriber, Wish
from telemetry.clock import Clock, iso
from telemetry.errors import StoreUnavailable
from telemetry.store import ALARM_CHANNEL, EVENT_CHANNEL, LATEST_CHANNEL

log = structlog.get_logger()

SWEEP_S: Final = 2.0
READINGS_EVERY_S: Final = 0.1
BEHIND_IDS: Final = 100
BEHIND: Final = timedelta(seconds=2)
MAX_CLIENTS: Final = 200
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Hub:
    """The clients of the stream, and what they have been told."""

    def __init__(self, store: Store, codes: CodeNames, clock: Clock) -> None:
        self._store = store
        self._codes = codes
        self._clock = clock
        self._clients: set[Subscriber] = set()
        self._transition = 0
        self._event = 0
        self._latest = _EPOCH
        self._seen_transitions: set[int] = set()
        self._seen_events: set[int] = set()
        self._seen_latest: dict[tuple[str, str], datetime] = {}
        self._connections: Mapping[str, tuple[str, datetime | None]] = {}
        self._alarm_woken = asyncio.Event()
        self._started = False
        self._store_state = "away"

    # ---- clients

    def subscribe(self, wish: Wish) -> Subscriber | None:
        """A new client, told from now on; None when there are too many."""
        if len(self._clients) >= MAX_CLIENTS:
            return None
        client = Subscriber(wish, self.position, self._now_iso)
        self._clients.add(client)
        STREAM_CLIENTS.set(len(self._clients))
        return client

    def unsubscribe(self, client: Subscriber) -> None:
        """The client is gone."""
        self._clients.discard(client)
        STREAM_CLIENTS.set(len(self._clients))

    @property
    def position(self) -> Position:
        """How far the hub has read."""
        return Position(self._transition, self._event, _us(self._latest))

    async def resume(self, client: Subscriber, since: Position) -> None:
        """Queues what happened since a client was last told, or tells it to read again if that is too much."""
        here = self.position
        ahead = since.transition > here.transition or since.event > here.event
        try:
            transitions = await reads.transitions_since(self._store, since.transition, limit=MAX_PENDING)
            events = await reads.events_since(self._store, since.event, limit=MAX_PENDING)
        except StoreUnavailable:
            client.reset(here)
            return
        if ahead or len(transitions) + len(events) >= MAX_PENDING:
            client.reset(here)
            return
        for history_id, transition, alarm in transitions:
            client.offer(_alarm_message(history_id, transition, alarm))
        for row in events:
            client.offer(await self._event_message(row))
        await self._resume_readings(client, since)

    async def _resume_readings(self, client: Subscriber, since: Position) -> None:
        wanted = client.wish.equipments
        found = await reads.latest_since(
            self._store,
            _EPOCH + timedelta(microseconds=since.latest_us),
            equipments=None if wanted is None else sorted(wanted),
            limit=MAX_READINGS,
        )
        client.offer_readings([_reading(r) for _, r in found], _us(self._latest))

    async def alarm_woken(self, within_s: float) -> None:
        """Returns at the next notification of alerting, or after `within_s`."""
        try:
            async with asyncio.timeout(within_s):
                await self._alarm_woken.wait()
        except TimeoutError:
            return

    def store_away(self) -> None:
        """Tells everybody that the database is away."""
        self._tell_store("away")

    def close(self) -> None:
        """Ends every stream."""
        for client in self._clients:
            client.close()

    # ---- the feed

    async def follow(self, listener: psycopg.AsyncConnection) -> None:
        """Listens and tells until the connection breaks. Raises psycopg.Error or StoreUnavailable then."""
        for channel in (ALARM_CHANNEL, EVENT_CHANNEL, LATEST_CHANNEL):
            await listener.execute(psycopg.sql.SQL("LISTEN {}").format(psycopg.sql.Identifier(channel)))
        await self._begin()
        self._tell_store("ok")
        loop = asyncio.get_running_loop()
        sweep_at, readings_at, readings_due = loop.time() + SWEEP_S, 0.0, False
        while True:
            wake_at = min(sweep_at, readings_at) if readings_due else sweep_at
            woken = await _notified(listener, max(0.0, wake_at - loop.time()))
            sweep = loop.time() >= sweep_at
            if sweep:
                sweep_at = loop.time() + SWEEP_S
            if ALARM_CHANNEL in woken:
                self._wake_waiting()
            if ALARM_CHANNEL in woken or sweep:
                await self._tell_alarms()
            if EVENT_CHANNEL in woken or sweep:
                await self._tell_events()
            readings_due = readings_due or sweep or LATEST_CHANNEL in woken
            if readings_due and loop.time() >= readings_at:
                readings_due, readings_at = False, loop.time() + READINGS_EVERY_S
                await self._tell_readings()
            if sweep:
                await self._tell_connections()

    async def _begin(self) -> None:
        """Starts from what the store holds now; on a later connection, from where the hub was."""
        row = await self._store.row(
            """SELECT (SELECT coalesce(max(history_id), 0) FROM public.alarm_history) AS transition,
                      (SELECT coalesce(max(event_id), 0) FROM public.events) AS event,
                      (SELECT max(changed_at) FROM public.latest) AS latest"""
        )
        if row is None:
            raise StoreUnavailable("no answer")
        if not self._started or self._transition > row["transition"] or self._event > row["event"]:
            self._started = True
            self._transition, self._event = row["transition"], row["event"]
            self._latest = row["latest"] or _EPOCH
            self._seen_transitions = set(range(self._transition - BEHIND_IDS, self._transition + 1))
            self._seen_events = set(range(self._event - BEHIND_IDS, self._event + 1))
            for client in self._clients:
                client.reset(self.position)
        self._connections = await reads.connections(self._store, self._now())

    async def _tell_alarms(self) -> None:
        found = await reads.transitions_since(self._store, self._transition - BEHIND_IDS, limit=MAX_PENDING)
        for history_id, transition, alarm in found:
            if history_id not in self._seen_transitions:
                self._seen_transitions.add(history_id)
                self._transition = max(self._transition, history_id)
                self._tell(_alarm_message(history_id, transition, alarm))
        self._seen_transitions = {i for i in self._seen_transitions if i >= self._transition - BEHIND_IDS}

    async def _tell_events(self) -> None:
        for row in await reads.events_since(self._store, self._event - BEHIND_IDS, limit=MAX_PENDING):
            if row["event_id"] not in self._seen_events:
                self._seen_events.add(row["event_id"])
                self._event = max(self._event, row["event_id"])
                self._tell(await self._event_message(row))
        self._seen_events = {i for i in self._seen_events if i >= self._event - BEHIND_IDS}

    async def _tell_readings(self) -> None:
        if not any("latest" in client.wish.kinds for client in self._clients):
            row = await self._store.row("SELECT max(changed_at) AS latest FROM public.latest")
            self._latest = (row and row["latest"]) or self._latest
            return
        found = await reads.latest_since(
            self._store, self._latest - BEHIND, equipments=self._wanted(), limit=MAX_READINGS
        )
        fresh = [
            _reading(reading)
            for changed_at, reading in found
            if changed_at > self._seen_latest.get((reading.equipment, reading.point), _EPOCH)
        ]
        self._seen_latest = {(reading.equipment, reading.point): changed_at for changed_at, reading in found}
        if found:
            self._latest = max(self._latest, found[-1][0])
        for client in self._clients:
            client.offer_readings(fresh, _us(self._latest))

    async def _tell_connections(self) -> None:
        if not self._clients:
            return
        now = await reads.connections(self._store, self._now())
        for equipment, (word, since) in now.items():
            if self._connections.get(equipment, (None, None))[0] != word:
                content = {"equipment": equipment, "connection": word, "since": since}
                self._tell(Message("online", equipment, content))
        self._connections = now

    def _wanted(self) -> Sequence[str] | None:
        """The equipments whose readings somebody wants; None: all."""
        wanted: set[str] = set()
        for client in self._clients:
            if "latest" in client.wish.kinds:
                if client.wish.equipments is None:
                    return None
                wanted |= client.wish.equipments
        return sorted(wanted)

    def _tell(self, message: Message) -> None:
        for client in self._clients:
            client.offer(message)

    def _tell_store(self, state: str) -> None:
        if state == self._store_state:
            return
        self._store_state = state
        for client in self._clients:
            client.offer(Message("store", "", {"store": state, "at": self._now_iso()}))

    def _wake_waiting(self) -> None:
        self._alarm_woken.set()
        self._alarm_woken = asyncio.Event()

    async def _event_message(self, row: dict[str, Any]) -> Message:
        item = await self._codes.event(self._store, row)
        return Message("event", item.equipment, _content(item), event=item.id)

    def _now(self) -> datetime:
        return _EPOCH + timedelta(microseconds=self._clock.now_us())

    def _now_iso(self) -> str:
        return iso(self._clock.now_us())


async def _notified(listener: psycopg.AsyncConnection, within_s: float) -> set[str]:
    """The channels that were notified within the time; at least one, unless it ran out."""
    return {notify.channel async for notify in listener.notifies(timeout=within_s, stop_after=1)}


def _alarm_message(history_id: int, transition: str, alarm: BaseModel) -> Message:
    content = _content(alarm)
    return Message("alarm", content["equipment"], content | {"transition": transition}, transition=history_id)


def _reading(reading: Any) -> tuple[str, str, dict[str, Any]]:
    return reading.equipment, reading.point, _content(reading)


def _content(model: BaseModel) -> dict[str, Any]:
    return model.model_dump(mode="json", by_alias=True)


def _us(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)
