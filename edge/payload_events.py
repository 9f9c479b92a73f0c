"""What an MQTT payload says of events and of the last will. Pure.

A bad event costs only itself: it is refused with its reason, and the other events of the message are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from edge.device_time import TimeReader, shown
from edge.payload import Parsed, Refusal, as_key, parse_json
from telemetry.errors import RecordError
from telemetry.messages import TEXT_SCHEME, VIGIL_SCHEME, Event
from telemetry.names import is_name
from telemetry.plain import parse
from telemetry.quality import GOOD

CODE_LENGTH: Final = 64
ATTRIBUTES_BYTES: Final = 8_192
"""Most that an event may carry beside its code, as JSON: a log's record has a bound, and an event shares it."""


@dataclass(frozen=True, slots=True)
class EventTopic:
    """A topic that carries events: one object or a list of them."""

    equipment: str
    times: TimeReader
    receipt: bool = False
    """The profile says that the time of receipt counts."""

    def read(self, payload: bytes, received_us: int, *, retained: bool, good: int = GOOD) -> Parsed:
        """What a message on this topic says. A retained event needs a time of its own: it may be of any age."""
        content, refusal = parse_json(payload)
        if refusal is not None:
            return Parsed(refusals=(refusal,))
        read = [
            self._event(item, received_us, retained=retained)
            for item in (content if isinstance(content, list) else [content])
        ]
        whole = bool(read) and all(device_us is not None for _, _, device_us, _ in read)
        clocks = [clock_us for _, _, _, clock_us in read if clock_us is not None]
        return Parsed(
            events=tuple(event for events, _, _, _ in read for event in events),
            refusals=tuple(wrong for _, wrongs, _, _ in read for wrong in wrongs),
            device_time_us=read[-1][2] if whole else None,
            clock_us=max(clocks, default=None),
        )

    def _event(
        self, item: Any, received_us: int, *, retained: bool
    ) -> tuple[list[Event], list[Refusal], int | None, int | None]:
        """(event, refusals, its own time if believed, what the device's clock showed)."""
        if not isinstance(item, dict):
            return [], [Refusal("wrong-type", f"expected an object, found {shown(item)}")], None, None
        rest = dict(item)
        scheme, code, state = rest.pop("scheme", None), rest.pop("code", None), rest.pop("state", None)
        found = rest.pop("time", None)
        if isinstance(code, int) and not isinstance(code, bool):
            code = str(code)
        if (wrong := _wrong(scheme, code, state) or _unkeepable([code, rest, found])) is not None:
            return [], [wrong], None, None
        if found is None:
            if retained:
                return [], [Refusal("retained-event", "a retained event without a time of its own")], None, None
            return [Event(self.equipment, received_us, scheme, code, state == "on", rest)], [], None, None
        device_us, clock_us, why = self.times.read(found, received_us)
        if device_us is None or self.receipt:
            rest["device_time"] = found
            event = Event(self.equipment, received_us, scheme, code, state == "on", rest)
            return [event], [] if self.receipt or not why else [Refusal("time", why)], None, clock_us
        return [Event(self.equipment, device_us, scheme, code, state == "on", rest)], [], device_us, clock_us


@dataclass(frozen=True, slots=True)
class OnlineTopic:
    """The topic of the last will: a bare word, or an object with it in `connectionState`, `state` or `online`."""

    words: Mapping[str, bool]

    def read(self, payload: bytes, received_us: int, *, retained: bool, good: int = GOOD) -> Parsed:
        """What a message on this topic says."""
        content, refusal = parse_json(payload)
        word = payload.decode("utf-8", "replace").strip() if refusal else content
        if isinstance(word, dict):
            word = next((word[key] for key in ("connectionState", "state", "online") if key in word), None)
        online = self.words.get(as_key(word))
        if online is None and isinstance(word, bool):
            online = word
        if online is None:
            expected = f"expected one of {', '.join(self.words)}, found {shown(word)}"
            return Parsed(refusals=(Refusal("online", expected),))
        return Parsed(online=online)


def _wrong(scheme: Any, code: Any, state: Any) -> Refusal | None:
    if not isinstance(scheme, str) or not is_name(scheme) or scheme in (VIGIL_SCHEME, TEXT_SCHEME):
        return Refusal("scheme", f"expected a code scheme of the device's own, found {shown(scheme)}")
    if not isinstance(code, str) or not code or len(code) > CODE_LENGTH:
        return Refusal("code", f"expected a code of 1 to {CODE_LENGTH} characters, found {shown(code)}")
    if state not in ("on", "off"):
        return Refusal("state", f"expected on or off, found {shown(state)}")
    return None


def _unkeepable(content: Any) -> Refusal | None:
    """Why an event cannot be kept: a record of it could not be written, or not be read, or would be too large."""
    try:
        written = orjson.dumps(content)
        parse(written)
    except (TypeError, RecordError) as error:
        return Refusal("attributes", f"expected what a record can hold, found {error}")
    if len(written) > ATTRIBUTES_BYTES:
        return Refusal("attributes", f"expected at most {ATTRIBUTES_BYTES} bytes, found {len(written)}")
    return None
