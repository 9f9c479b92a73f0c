"""Keys of messages: what they tell apart, and how many are remembered."""

from __future__ import annotations

from edge.delivered import Delivered, key_of, prefix_of


def test_a_key_tells_apart_equipment_topic_and_payload() -> None:
    said = [("a", "p/s", b"1"), ("b", "p/s", b"1"), ("a", "p/t", b"1"), ("a", "p/s", b"2"), ("ap", "/s", b"1")]
    keys = {key_of(prefix_of(equipment, topic), payload) for equipment, topic, payload in said}
    assert len(keys) == len(said)
    assert {len(key) for key in keys} == {16}


def test_a_key_is_the_same_in_every_run_for_it_is_kept_on_disk() -> None:
    # printf 'e\0p/state\0{}' | b2sum -l 128
    assert key_of(prefix_of("e", "p/state"), b"{}").hex() == "210ae6b4e0ac3420cacac99ade5fb539"


def test_the_oldest_keys_are_forgotten_beyond_the_window() -> None:
    delivered = Delivered(window=3)
    delivered.remember([b"1", b"2", b"3", b"4"])
    assert [delivered.is_new(key) for key in (b"4", b"3", b"2")] == [False, False, False]
    assert delivered.is_new(b"1"), "forgotten: four came"
    assert delivered.is_new(b"2"), "and this made room for it"
    assert not delivered.is_new(b"4")
