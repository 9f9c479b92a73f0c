"""What is subscribed to at one broker, and messages on their way from the connection to the journal, undecoded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from edge.complaints import Complaints
from edge.delivered import Delivered, prefix_of
from edge.payload import ListTopic, StateTopic
from edge.shapes import Shape, make_shape, shape_key
from edge.skew import Skew
from edge.topics import Topic, make_topics
from telemetry.errors import ConfigError, Fault
from telemetry.name_block import NameBlock
from telemetry.plant import Equipment

RETAINED: Final = "retained/"
"""Keys of the state: topic → key of the last retained message taken from it."""
ENTRY_BYTES: Final = 24
"""Of the shortest entry of a list that is a sample."""
OFF: Final = "off"
"""What the state says of a clock that is off (see skew_key)."""


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
    """Samples of a message that is no list."""
    is_list: bool


class Line(Protocol):
    """The connection that some messages came by."""

    def acknowledge(self, messages: Messages) -> None:
        """From any thread, once for each. What came by a connection that is gone is not acknowledged to the next one."""
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

    @property
    def size(self) -> int:
        """Bytes of the payloads."""
        return sum(map(len, self.payloads))

    @property
    def rows(self) -> int:
        """About how many samples they hold."""
        each = zip(self.subscriptions, self.payloads, strict=True)
        return sum([s.rows if not s.is_list else len(payload) // ENTRY_BYTES + 1 for s, payload in each])


@dataclass(slots=True, eq=False)
class Memory:
    """What of MQTT outlives a driver: a changed plant file makes new ones. Used where messages are decoded."""

    delivered: Delivered = field(default_factory=Delivered)
    retained: dict[str, str] = field(default_factory=dict)
    """Topic → key of the last retained message that was taken from it."""
    skews: dict[str, Skew] = field(default_factory=dict)
    """By equipment."""
    complaints: Complaints = field(default_factory=Complaints)
    state: Mapping[str, str] = field(default_factory=dict)
    """What was journaled with readings before this run."""

    def skew(self, equipment: str, limit_us: int) -> Skew:
        """The clock of an equipment, as it was last found."""
        old = self.skews.get(equipment)
        is_off = old.is_off if old is not None else self.state.get(skew_key(equipment)) == OFF
        self.skews[equipment] = Skew(equipment, limit_us, is_off)
        return self.skews[equipment]


def make_memory(known: Iterable[bytes], state: Mapping[str, str]) -> Memory:
    """From the keys of messages that were journaled (Spool.delivered, oldest first) and the state (Spool.state)."""
    memory = Memory(state=state)
    memory.delivered.remember(known)
    memory.retained = {k.removeprefix(RETAINED): v for k, v in state.items() if k.startswith(RETAINED)}
    return memory


def subscribe(members: Iterable[Equipment], memory: Memory, *, file: str) -> dict[bytes, Subscription]:
    """The topics of all equipment behind one broker. Raises ConfigError where two have one topic."""
    shapes: dict[object, Shape | None] = {}
    found: dict[bytes, Subscription] = {}
    for one in members:
        for subscription in _of(one, shapes, memory):
            first = found.setdefault(subscription.name.encode(), subscription)
            if first.equipment != one.id:
                expected = f"a topic of its own, not {first.equipment}'s"
                raise ConfigError([Fault(file, 0, f"equipment.{one.id}.address", expected, subscription.name)])
    return found


def skew_key(equipment: str) -> str:
    """Key of the state that says that an equipment's clock is off."""
    return f"skew/{equipment}"


def _of(one: Equipment, shapes: dict[object, Shape | None], memory: Memory) -> list[Subscription]:
    topics = make_topics(one.id, one.profile)
    skew = memory.skew(one.id, round(one.profile.mqtt.max_skew_s * 1e6))
    made = []
    for below, topic in topics.by_name.items():
        name, shape, rows, is_list = f"{one.address.prefix}/{below}", None, 1, isinstance(topic, ListTopic)
        if isinstance(topic, StateTopic | ListTopic):
            key = shape_key(topic)
            if key not in shapes:
                shapes[key] = make_shape(topic)
            shape, rows = shapes[key], len(topic.fields)
        prefix = prefix_of(one.id, name)
        made.append(
            Subscription(one.id, name, topic, one.profile.mqtt.qos, topics.block, shape, skew, prefix, rows, is_list)
        )
    return made
