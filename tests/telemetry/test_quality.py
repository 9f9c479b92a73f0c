"""Quality: one byte, whose top two bits say good, uncertain or bad."""

from __future__ import annotations

import numpy as np

from telemetry import quality


def test_bad_is_what_has_neither_of_the_top_bits_for_all_256_codes() -> None:
    codes = np.arange(256, dtype=np.uint8)
    assert quality.is_bad(codes).tolist() == [code < 64 for code in range(256)]


def test_good_and_uncertain_readings_are_not_bad_and_all_bad_ones_are() -> None:
    good = [quality.GOOD, quality.UNCERTAIN, quality.UNCERTAIN_STALE, quality.UNCERTAIN_OUT_OF_RANGE]
    bad = [quality.BAD, quality.BAD_CONFIG, quality.BAD_DEVICE, quality.BAD_SENSOR, quality.BAD_COMMS]
    assert not quality.is_bad(np.array([*good, quality.UNCERTAIN_CLOCK], np.uint8)).any()
    assert quality.is_bad(np.array(bad, np.uint8)).all()


def test_the_codes_are_those_of_opc_data_access_3_0() -> None:
    named = (quality.GOOD, quality.UNCERTAIN, quality.UNCERTAIN_STALE, quality.UNCERTAIN_OUT_OF_RANGE)
    assert named == (0b11000000, 0b01000000, 0b01000100, 0b01010100)
    bad = (quality.BAD, quality.BAD_CONFIG, quality.BAD_DEVICE, quality.BAD_SENSOR, quality.BAD_COMMS)
    assert bad == (0b00000000, 0b00000100, 0b00001100, 0b00010000, 0b00011000)


def test_every_code_has_a_word_that_agrees_with_is_bad() -> None:
    bad_words = {"bad", "config", "device", "sensor", "comms"}
    for code in range(256):
        assert (quality.name(code) in bad_words) == (code < 64), code
    assert (quality.name(24), quality.name(28), quality.name(193), quality.name(65)) == (
        "comms",
        "bad",
        "good",
        "uncertain",
    )
