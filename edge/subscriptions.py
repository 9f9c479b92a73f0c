"""What is subscribed to at one broker, and messages on their way from the connection to the journal, undecoded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from edge.delivered import prefix_of
from edge.payload import ListTopic, StateTopic
from edge.shapes import Shape, make_shape, shape_key
from edge.skew import Skew
from edge.topics import Topic, make_topics
from telemetry.errors import ConfigError, Fault
from telemetry.name_block import NameBlock
from telemetry.plant import Equipment


@dataclass(frozen=True, slots=True, eq=False)
class Subscription:
    """A topic in full: whose it is and how it is read."""

    equipment: str
    name: str
    """The whole topic, with the equipment's prefix."""
    topic: Topic
    qos: int
    block: NameBlock
    """All signals of the equipment that come by MQTT."""
    shape: Shape | None
    """How ordinary messages are read, many at once; None where each is read on its own."""
    skew: Skew
    """Of the equipment's clock; shared by its topics."""
    key_prefix: bytes
    """See edge.delivered."""
    rows: int
    """About how many samples a message has."""


class Line(Protocol):
    """The connection that some messages came by."""

    def acknowledge(self, acks: bytes) -> None:
        """From any thread. Acknowledgements of a connection that is gone say nothing to the next one: they are dropped."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Messages:
    """What one read of a connection brought, in order. The lists are of one length."""

    received_us: int
    subscriptions: Sequence[Subscription]
    payloads: Sequence[bytes]
    heads: Sequence[int]
    """First byte of each PUBLISH packet (edge.mqtt_packets), with TOO_LARGE where the payload was not kept."""
    acks: bytes
    """The PUBACK packets of them all, and of messages on topics of nobody."""
    line: Line


@dataclass(slots=True)
class Listening:
    """What is known of each equipment's presence. Times are µs of the wall clock."""

    silent_after_us: Mapping[str, int]
    heard_us: dict[str, int]
    """Written by the connection's thread: a message that waits to be decoded was heard."""
    off_us: dict[str, int] = field(default_factory=dict)
    """Written where messages are decoded, in their order."""

    def word(self, equipment: str, received_us: int, online: bool | None, *, retained: bool) -> None:
        """A message was read. A retained one says nothing about now, except that a last will holds until the next word."""
        if online is False:
            self.off_us.setdefault(equipment, received_us)
        elif online or not retained:
            self.off_us.pop(equipment, None)

    def unreachable(self, now_us: int) -> dict[str, int]:
        """Equipment that said it is off, or nothing for too long → since when."""
        silent = {
            equipment: heard
            for equipment, heard in self.heard_us.items()
            if now_us - heard > self.silent_after_us[equipment]
        }
        return {**silent, **self.off_us}


def subscribe(members: Iterable[Equipment], *, file: str, state: Mapping[str, str]) -> dict[bytes, Subscription]:
    """The topics of all equipment behind one broker. Raises ConfigError where two have one topic."""
    shapes: dict[object, Shape | None] = {}
    found: dict[bytes, Subscription] = {}
    for one in members:
        for subscription in _of(one, shapes, state):
            first = found.setdefault(subscription.name.encode(), subscription)
            if first.equipment != one.id:
                expected = f"a topic of its own, not {first.equipment}'s"
                raise ConfigError([Fault(file, 0, f"equipment.{one.id}.address", expected, subscription.name)])
    return found


def skew_key(equipment: str) -> str:
    """Key of the state that says that an equipment's clock is off."""
    return f"skew/{equipment}"


def _of(one: Equipment, shapes: dict[object, Shape | None], state: Mapping[str, str]) -> list[Subscription]:
    topics = make_topics(one.id, one.profile)
    skew = Skew(one.id, round(one.profile.mqtt.max_skew_s * 1e6), state.get(skew_key(one.id)) == "off")
    made = []
    for below, topic in topics.by_name.items():
        name, shape, rows = f"{one.address.prefix}/{below}", None, 1
        if isinstance(topic, StateTopic | ListTopic):
            key = shape_key(topic)
            if key not in shapes:
                shapes[key] = make_shape(topic)
            shape, rows = shapes[key], len(topic.fields)
        prefix = prefix_of(one.id, name)
        made.append(Subscription(one.id, name, topic, one.profile.mqtt.qos, topics.block, shape, skew, prefix, rows))
    return made
