"""Comms-loss and staleness, on the log's time."""

from __future__ import annotations

import numpy as np

from analytics.detectors.presence import Presence
from telemetry.messages import Finding, Heartbeat
from tests.analytics.plants import T0, S, catalogue, profile
from tests.analytics.streams import Row, readings

CATALOGUE = catalogue("a", "b", of=profile(stale_after_s=5.0))
SIGNALS = CATALOGUE.signals


class Story:
    """Seconds in, brief findings out."""

    def __init__(self) -> None:
        self.presence = Presence(CATALOGUE)

    def read(
        self, second: float, signal: str = "a/plain", known: bool = True
    ) -> list[tuple[str, str, bool, float, float]]:
        row = Row(SIGNALS[signal], T0 + round(second * S), 1.0, known)
        return brief(self.presence.update(readings([row])))

    def beat(self, second: float, lost: dict[str, float] | None = None) -> list[tuple[str, str, bool, float, float]]:
        since = {name: T0 + round(s * S) for name, s in (lost or {}).items()}
        found, _, _ = self.presence.heartbeat(Heartbeat("e", T0 + round(second * S), ("a", "b"), since))
        return brief(found)

    def beats(self, first: int, last: int) -> list[tuple[str, str, bool, float, float]]:
        return [f for second in range(first, last + 1) for f in self.beat(second)]


def brief(findings: list[Finding]) -> list[tuple[str, str, bool, float, float]]:
    return [(f.equipment, f.detector, f.raised, (f.onset_us - T0) / S, (f.time_us - T0) / S) for f in findings]


def test_a_signal_without_samples_while_its_edge_lives_is_stale_and_fresh_with_its_next_sample() -> None:
    story = Story()
    story.beat(0)
    story.read(1)
    assert story.beats(1, 6) == []
    assert story.beats(7, 9) == [("a", "stale", True, 6, 7)]
    assert story.read(9.5) == [("a", "stale", False, 6, 9.5)]
    assert story.beats(10, 14) == []


def test_a_bad_sample_is_a_sign_of_life() -> None:
    story = Story()
    story.beat(0)
    story.read(1)
    story.beats(1, 5)
    story.read(5.5, known=False)
    assert story.beats(6, 10) == []


def test_a_signal_that_was_never_read_is_not_stale() -> None:
    assert Story().beats(0, 60) == []


def test_after_a_pause_in_the_heartbeats_nothing_is_stale_at_once() -> None:
    story = Story()
    story.beat(0)
    story.read(0)
    assert story.beat(3600) == []
    assert story.beats(3601, 3605) == []
    assert story.beats(3606, 3607) == [("a", "stale", True, 3605, 3606)]


def test_after_a_restart_of_the_edge_signals_have_their_time_anew() -> None:
    story = Story()
    story.beat(0)
    story.read(0)
    story.beats(1, 4)
    story.presence.restarted(np.array([True, True]))
    assert story.beats(5, 10) == []
    assert [f[:3] for f in story.beats(11, 12)] == [("a", "stale", True)]


def test_an_unreachable_equipment_is_one_comms_loss_since_when_it_stopped_to_answer() -> None:
    story = Story()
    story.beat(0)
    for name in SIGNALS:
        if name.startswith("a/"):
            story.read(0, name)
    assert story.beat(4, {"a": 2.5}) == [("a", "comms-loss", True, 2.5, 4)]
    assert [f for s in range(5, 60) for f in story.beat(s, {"a": 2.5})] == []
    assert story.beat(60) == [("a", "comms-loss", False, 2.5, 60)]
    assert story.beats(61, 65) == []


def test_a_second_loss_is_another_finding_whatever_its_edge_says_of_since_when() -> None:
    story = Story()
    story.beat(0)
    first = story.beat(4, {"a": 2.5})
    story.beat(5)
    assert (first[0][3], story.beat(6, {"a": 2.5})) == (2.5, [("a", "comms-loss", True, 5, 6)])


def test_comms_loss_takes_the_place_of_staleness() -> None:
    story = Story()
    story.beat(0)
    story.read(0)
    assert story.beats(1, 6) == [("a", "stale", True, 5, 6)]
    assert story.beat(7, {"a": 6.5}) == [("a", "comms-loss", True, 6.5, 7), ("a", "stale", False, 5, 7)]


def test_an_equipment_that_is_only_listed_as_unreachable_is_lost_too() -> None:
    presence = Presence(CATALOGUE)
    found, answers, lost = presence.heartbeat(Heartbeat("e", T0, ("b",), {"a": T0}))
    assert brief(found) == [("a", "comms-loss", True, 0, 0)]
    assert (answers.tolist(), lost.tolist()) == ([False, True], [True, False])


def test_equipment_that_the_plant_does_not_have_is_passed_over() -> None:
    found, answers, _ = Presence(CATALOGUE).heartbeat(Heartbeat("e", T0, ("zz",), {"yy": T0}))
    assert found == []
    assert not answers.any()


def test_stopped_and_restored_at_any_second_it_judges_as_if_it_had_never_stopped() -> None:
    def tell(story: Story, second: int) -> list[tuple[str, str, bool, float, float]]:
        read = story.read(second) if second in (1, 20) else []
        return read + story.beat(second, {"a": second} if 10 <= second < 12 else None)

    steady = Story()
    expected = [tell(steady, second) for second in range(30)]
    assert [f[1:3] for told in expected for f in told] == [
        ("stale", True), ("comms-loss", True), ("stale", False), ("comms-loss", False),
        ("stale", True), ("stale", False), ("stale", True),
    ]  # fmt: skip
    for at in range(30):
        stopped, restored = Story(), Story()
        for second in range(at):
            tell(stopped, second)
        assert restored.presence.restore(stopped.presence.snapshot()) == []
        assert [tell(restored, second) for second in range(at, 30)] == expected[at:]


def test_what_left_the_plant_is_cleared_by_the_restore() -> None:
    story = Story()
    story.beat(0)
    story.read(0)
    story.beats(1, 6)
    story.beat(7, {"b": 7})
    smaller = Presence(catalogue("b", of=profile(stale_after_s=5.0)))
    assert brief(smaller.restore(story.presence.snapshot())) == [("a", "stale", False, 5, 5)]
    assert [f[1:3] for f in brief(smaller.heartbeat(Heartbeat("e", T0 + 8 * S, ("b",), {}))[0])] == [
        ("comms-loss", False)
    ]
