"""How long answers of an endpoint usually take, learned as TCP learns its retransmission time-out (RFC 6298)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

LEARNED: Final = 20
"""Answers after which the usual time of an answer is known."""
PATIENCE_MIN_S: Final = 0.05
GRACE: Final = 2.0
"""Patience in usual times."""
SMOOTHING: Final = 0.05
DEVIATIONS: Final = 4.0
"""As TCP's retransmission timer (RFC 6298): mean plus four mean deviations."""


@dataclass(slots=True)
class Usual:
    """How long answers of this endpoint usually take."""

    answers: int = 0
    mean_s: float = 0.0
    deviation_s: float = 0.0

    def note(self, took_s: float) -> None:
        """An answer took so long. One that is unusual counts as just about usual, so that one slow unit is not the rule."""
        took_s = min(took_s, self.patience_s or took_s)
        self.answers += 1
        if self.answers == 1:
            self.mean_s, self.deviation_s = took_s, took_s / 2
            return
        error = took_s - self.mean_s
        self.mean_s += SMOOTHING * error
        self.deviation_s += SMOOTHING * (abs(error) - self.deviation_s)

    @property
    def patience_s(self) -> float | None:
        """How long an answer may take before it is unusual. None until that is known."""
        if self.answers < LEARNED:
            return None
        return max(GRACE * (self.mean_s + DEVIATIONS * self.deviation_s), PATIENCE_MIN_S)
