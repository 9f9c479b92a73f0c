"""One clock for all services: system time, or a faster one that every service reads alike."""

from __future__ import annotations

import time

import pytest

from telemetry.clock import ScaledClock, SystemClock, iso, parse_clock, time_us


def test_the_system_clock_is_the_machines() -> None:
    clock = parse_clock("system")
    assert isinstance(clock, SystemClock)
    assert abs(clock.now_us() - time.time_ns() // 1000) < 1_000_000
    assert clock.speed == 1.0


def test_a_scaled_clock_reads_its_start_at_its_start_and_runs_n_times_as_fast() -> None:
    start_us = time.time_ns() // 1000 - 60_000_000
    clock = parse_clock(f"scaled:{iso(start_us)},60")
    assert clock.speed == 60.0
    assert clock.now_us() - start_us == pytest.approx(60 * 60_000_000, abs=60 * 1_000_000)
    before, system_before = clock.monotonic_s(), time.monotonic()
    while time.monotonic() - system_before < 0.01:
        pass
    assert clock.monotonic_s() - before == pytest.approx(60 * (time.monotonic() - system_before), rel=0.2)


async def test_a_scaled_clock_sleeps_its_own_seconds() -> None:
    start = time.monotonic()
    await ScaledClock(0, 1000.0).sleep(20.0)
    assert 0.019 <= time.monotonic() - start < 1.0


def test_two_services_with_the_same_setting_read_the_same_time() -> None:
    text = "scaled:2026-01-01T08:00:00+08:00,3600"
    one, two = parse_clock(text), parse_clock(text)
    assert abs(one.now_us() - two.now_us()) < 3600 * 100_000


@pytest.mark.parametrize(
    "text",
    ["", "fast", "scaled", "scaled:", "scaled:2026-01-01T00:00:00Z", "scaled:2026-01-01T00:00:00Z,0",
     "scaled:2026-01-01T00:00:00Z,-2", "scaled:2026-01-01T00:00:00Z,nan", "scaled:2026-01-01T00:00:00Z,inf",
     "scaled:2026-01-01T00:00:00,2", "scaled:yesterday,2", "SYSTEM"],
)  # fmt: skip
def test_what_is_no_clock_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected system or scaled:START,N"):
        parse_clock(text)


@pytest.mark.parametrize(
    ("text", "us"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T08:00:00.000001+08:00", 1),
        ("1969-12-31T23:59:59.999999Z", -1),
        ("2026-01-01T00:00:00Z", 1_767_225_600_000_000),
        ("9999-12-31T23:59:59.999999Z", 253_402_300_799_999_999),
    ],
)
def test_times_are_exact_microseconds(text: str, us: int) -> None:
    assert time_us(text) == us


def test_a_time_without_an_offset_is_refused() -> None:
    with pytest.raises(ValueError, match="with an offset"):
        time_us("2026-01-01T00:00:00")


@pytest.mark.parametrize(
    ("us", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
        (1_767_225_600_123_999, "2026-01-01T00:00:00.123Z"),
        (1 << 62, "4611686018427387904 µs"),
        (-(1 << 62), "-4611686018427387904 µs"),
    ],
)
def test_a_time_is_written_in_utc_and_never_fails(us: int, text: str) -> None:
    assert iso(us) == text
