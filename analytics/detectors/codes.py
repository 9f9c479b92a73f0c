"""Codes: a device's own faults, events and alarms, by (scheme, code), become findings `code:SCHEME/CODE`.

A code of the profile's scheme makes a finding if it has a priority. A code that the scheme does not know makes one too,
marked unknown, because a device that reports a fault we have no name for still reports a fault; it is cleared by its end
or after UNKNOWN_HOLD_S. It makes none where it does not print or is longer than MAX_CODE. Schemes that the profile does
not have (texts, Vigil's own) make none. A momentary code clears `hold_s` after its last occurrence, on the log's time.
An event behind the newest of its code changes nothing live.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson

from analytics.detectors import keys
from analytics.detectors.contract import Arrays, Bool, Subject
from analytics.detectors.latch import NEVER_US
from analytics.rules import US_PER_S, Catalogue
from telemetry.messages import Event, Finding

UNKNOWN_HOLD_S: Final = 3600.0
MAX_UNKNOWN: Final = 32
"""Unknown codes that may stand at once for one equipment: a device gone mad floods nobody."""

MAX_CODE: Final = 64
"""Characters of a code that the scheme does not know."""
MAX_ATTRIBUTES: Final = 4096
"""Bytes of an event's attributes that become evidence; more stay with the event in the store."""

Key = tuple[str, str, str]


@dataclass(slots=True)
class _Code:
    """State of one (equipment, scheme, code)."""

    onset_us: int
    """NEVER_US: not active."""
    until_us: int
    """When it clears by itself; NEVER_US: only by its end."""
    last_us: int
    named_us: int = NEVER_US
    """The newest onset: it names a finding, so no later one may equal it."""


class Codes:
    """All codes of a catalogue's equipment. State only for codes that have occurred."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._codes: dict[Key, _Code] = {}
        self.late = 0

    def update(self, events: Iterable[Event]) -> list[Finding]:
        """Takes events, in the order of the log."""
        return [finding for event in events for finding in self._event(event)]

    def advance(self, time_us: int, equipment: Bool) -> list[Finding]:
        """Clears what is over by `time_us` of the equipment in the mask (Q,)."""
        index = self._catalogue.equipment
        over = [
            (key, code)
            for key, code in self._codes.items()
            if code.until_us != NEVER_US and code.until_us <= time_us and equipment[index[key[0]]]
        ]
        return [self._clear(key, code, code.until_us, {"reason": "held"}) for key, code in over]

    def snapshot(self) -> Arrays:
        """All state, copied."""
        times = [(c.onset_us, c.until_us, c.last_us, c.named_us) for c in self._codes.values()]
        names = keys.column(["\x1f".join(key) for key in self._codes])
        return {"key": names, "time_us": np.array(times, np.int64).reshape(-1, 4)}

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> list[Finding]:
        """See Detector."""
        gone = []
        for name, times in zip(keys.listed(arrays["key"]), arrays["time_us"].tolist(), strict=True):
            equipment, scheme, code_id = name.split("\x1f")
            key, state = (equipment, scheme, code_id), _Code(*times)
            self._codes[key] = state
            if self._hold_s(key) is None:
                if state.onset_us != NEVER_US:
                    gone.append(self._clear(key, state, state.last_us, {"reason": "the code was changed or removed"}))
                self._codes.pop(key, None)
        return gone

    def _event(self, event: Event) -> Iterable[Finding]:
        key = (event.equipment, event.scheme, event.code)
        hold_s = self._hold_s(key)
        code = self._codes.get(key)
        if hold_s is None or (code is None and (not event.on or self._refuses(key))):
            return
        if code is None:
            code = self._codes[key] = _Code(NEVER_US, NEVER_US, NEVER_US)
        if event.time_us < code.last_us:
            self.late += 1
            return
        if code.onset_us != NEVER_US and code.until_us != NEVER_US and code.until_us <= event.time_us:
            yield self._clear(key, code, code.until_us, {"reason": "held"})
            code = self._codes.setdefault(key, code)
        code.last_us = event.time_us
        if event.on:
            code.until_us = event.time_us + round(hold_s * US_PER_S) if hold_s else NEVER_US
            if code.onset_us == NEVER_US:
                code.onset_us = code.named_us = max(event.time_us, code.named_us + 1)
                yield self._finding(key, True, code.onset_us, code.onset_us, _evidence(event))
        elif code.onset_us != NEVER_US:
            yield self._clear(key, code, max(event.time_us, code.onset_us), _evidence(event))

    def _hold_s(self, key: Key) -> float | None:
        """None: makes no finding. 0: stands until its end. Else: clears after so many seconds."""
        equipment, scheme_id, code_id = key
        scheme = self._catalogue.schemes.get(equipment, {}).get(scheme_id)
        if scheme is None:
            return None
        code = scheme.codes.get(code_id)
        if code is None:
            return UNKNOWN_HOLD_S
        if code.priority is None:
            return None
        return code.hold_s if code.momentary else 0.0

    def _is_unknown(self, key: Key) -> bool:
        return key[2] not in self._catalogue.schemes[key[0]][key[1]].codes

    def _refuses(self, key: Key) -> bool:
        if not self._is_unknown(key):
            return False
        if not key[2].isprintable() or len(key[2]) > MAX_CODE:
            return True
        return sum(k[0] == key[0] and self._is_unknown(k) for k in self._codes) >= MAX_UNKNOWN

    def _clear(self, key: Key, code: _Code, time_us: int, evidence: dict[str, Any]) -> Finding:
        finding = self._finding(key, False, code.onset_us, time_us, evidence)
        code.onset_us = code.until_us = NEVER_US
        code.last_us = max(code.last_us, time_us)
        if self._hold_s(key) is not None and self._is_unknown(key):
            del self._codes[key]
        return finding

    def _finding(self, key: Key, raised: bool, onset_us: int, time_us: int, evidence: dict[str, Any]) -> Finding:
        equipment, scheme, code = key
        unknown = self._hold_s(key) is not None and self._is_unknown(key)
        return Subject(equipment, "", f"code:{scheme}/{code}").finding(
            raised,
            onset_us=onset_us,
            time_us=time_us,
            score=1.0,
            evidence={**evidence, **({"unknown": True} if unknown else {})},
        )


def _evidence(event: Event) -> dict[str, Any]:
    attributes = dict(event.attributes)
    encoded = orjson.dumps(attributes)
    if len(encoded) <= MAX_ATTRIBUTES and b"\\u0000" not in encoded:  # which no database takes
        return attributes
    return {"attributes": "not shown; see the event"}
