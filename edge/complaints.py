"""What payloads get wrong, told once: counted each time, logged and made an event when it begins, and every
REPEAT_US while it goes on, with how often it happened since."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import structlog

from edge import metrics
from edge.payload import Refusal
from telemetry.messages import VIGIL_SCHEME, Event

log = structlog.get_logger()

CODE: Final = "mqtt-payload"
REPEAT_US: Final = 60_000_000


@dataclass(slots=True)
class Complaints:
    """Per (equipment, reason): when it was told last, and how often it happened since."""

    _told: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)

    def about(self, equipment: str, topic: str, refusal: Refusal, now_us: int) -> list[Event]:
        """The event that tells of a refusal, or none where it was told within REPEAT_US."""
        metrics.REFUSED.labels(refusal.reason).inc()
        key = (equipment, refusal.reason)
        told_us, since = self._told.get(key, (None, 0))
        if told_us is not None and now_us - told_us < REPEAT_US:
            self._told[key] = (told_us, since + 1)
            return []
        self._told[key] = (now_us, 0)
        log.warning("payload refused", equipment=equipment, topic=topic, reason=refusal.reason, detail=refusal.detail)
        attributes = {"reason": refusal.reason, "detail": refusal.detail, "topic": topic, "times": since + 1}
        return [Event(equipment, now_us, VIGIL_SCHEME, CODE, True, attributes)]
