"""When an edge counts as silent."""

from __future__ import annotations

from analytics.silence import ABREAST, AFTER_S, Silence


def test_an_edge_is_silent_when_its_heartbeat_is_overdue_and_the_reader_is_abreast() -> None:
    silence = Silence(1.0)
    silence.heard(["e"], 0.0)
    assert silence.due(["e"], lag=0, now_s=1.0) == []
    silence.heard(["e"], 10.0)
    assert silence.due(["e"], lag=0, now_s=10.0 + AFTER_S) == []
    assert silence.due(["e"], lag=0, now_s=10.1 + AFTER_S) == ["e"]


def test_after_a_start_every_edge_has_its_time_anew() -> None:
    silence = Silence(1.0)
    assert silence.due(["e", "f"], lag=0, now_s=1000.0) == []
    assert silence.due(["e", "f"], lag=0, now_s=1000.0 + AFTER_S) == []
    silence.heard(["f"], 1010.0)
    assert silence.due(["e", "f"], lag=0, now_s=1001.0 + AFTER_S) == ["e"]


def test_while_there_is_lag_or_the_log_is_away_nobody_is_silent() -> None:
    silence = Silence(1.0)
    assert silence.due(["e"], lag=0, now_s=0.0) == []
    assert silence.due(["e"], lag=ABREAST + 1, now_s=100.0) == []
    assert silence.due(["e"], lag=0, now_s=101.0) == []
    silence.behind()
    assert silence.due(["e"], lag=0, now_s=200.0) == []
    assert silence.due(["e"], lag=0, now_s=201.0 + AFTER_S) == ["e"]


def test_a_scaled_clock_shortens_the_wait_but_never_below_what_a_machine_needs() -> None:
    silence = Silence(1000.0)
    silence.due(["e"], lag=0, now_s=0.0)
    assert silence.due(["e"], lag=0, now_s=4.0) == []
    assert silence.due(["e"], lag=0, now_s=5.1) == ["e"]
