"""Report by exception of one signal, reading by reading in plain Python: the oracle of edge.report."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from edge.report import Policy
from edge.swinging_door import SLACK

Reading = tuple[int, float, int]
"""(time_us, value, quality)"""


@dataclass(slots=True)
class NaiveReporter:
    """One signal with one policy. `read` and `flush` give what is reported now, in order."""

    policy: Policy
    said: Reading | None = None
    """The last reported reading that later ones are held against; None: the next is reported."""
    seen_us: int | None = None
    held: Reading | None = None
    between: list[Reading] = field(default_factory=list)
    """Readings since `said`, the held one too."""

    def read(self, reading: Reading) -> list[Reading]:
        time_us = reading[0]
        if self.seen_us is not None and self.seen_us - self.policy.beat_us < time_us <= self.seen_us:
            reported = [*self.flush(), reading]
            self.said = None
            return reported
        seen_us, self.seen_us = self.seen_us, time_us
        if not self._goes_on(reading, seen_us):
            return [*self.flush(), *self._say(reading)]
        assert self.said is not None
        if math.isnan(reading[1]):
            return self._say(reading) if self._due(reading) else []
        return self._band(reading) if self.policy.swinging_door is None else self._door(reading)

    def flush(self) -> list[Reading]:
        held, self.held = self.held, None
        return [] if held is None else self._say(held)

    def _goes_on(self, reading: Reading, seen_us: int | None) -> bool:
        if self.said is None or seen_us is None or reading[0] <= seen_us:
            return False
        if self.policy.swinging_door is not None and reading[0] - seen_us >= self.policy.beat_us:
            return False
        return reading[2] == self.said[2] and math.isnan(reading[1]) == math.isnan(self.said[1])

    def _due(self, reading: Reading) -> bool:
        assert self.said is not None
        return reading[0] - self.said[0] >= self.policy.beat_us

    def _say(self, reading: Reading) -> list[Reading]:
        self.said, self.held, self.between = reading, None, []
        return [reading]

    def _band(self, reading: Reading) -> list[Reading]:
        assert self.said is not None
        band = self.policy.deadband
        if band is None:
            assert self.policy.deadband_percent is not None
            band = self.policy.deadband_percent * abs(self.said[1]) / 100
        if math.isinf(band):
            return self._say(reading)
        return self._say(reading) if not abs(reading[1] - self.said[1]) <= band or self._due(reading) else []

    def _door(self, reading: Reading) -> list[Reading]:
        reported: list[Reading] = []
        if not self._passes(reading):
            reported = self.flush()
            if not reported:
                return self._say(reading)
        if self._due(reading):
            return [*reported, *self._say(reading)]
        self.held = reading
        self.between.append(reading)
        return reported

    def _passes(self, reading: Reading) -> bool:
        """Whether the line from `said` to a reading misses none between by more than the deviation, with SLACK to spare."""
        assert self.said is not None
        assert self.policy.swinging_door is not None
        start_us, start, _ = self.said
        slope = (reading[1] - start) / (reading[0] - start_us)
        for time_us, value, _ in self.between:
            rise, run_us = value - start, time_us - start_us
            reach = self.policy.swinging_door * (1 - SLACK) - SLACK * abs(rise)
            if not (rise - reach) / run_us <= slope <= (rise + reach) / run_us:
                return False
        return not math.isnan(slope)
