"""What is learned of a device by reading it, each rule by itself."""

from __future__ import annotations

import math
from typing import Any

import pytest

from edge.driver import Outcome
from edge.learned import SHORTEST, Learned, read_learned
from edge.modbus import REFUSED_S, plan_key
from edge.plan import Limits, Request, plan
from telemetry.profile import Profile
from telemetry.quality import BAD_COMMS, BAD_CONFIG, GOOD
from tests.edge.build import make_profile, points_of, values
from tests.edge.learning import Memory, Reader, reader_of


def profile_of(*addresses: int, **more: Any) -> Profile:
    """A profile with a register at each address."""
    return make_profile({f"p{a}": {"modbus": {"address": a}} for a in addresses}, **more)


def read(reader: Reader) -> dict[str, tuple[float, int]]:
    """What a cycle reads."""
    outcome = reader.cycle()
    return values(outcome.source.decode([outcome.received]).columns)


def good(reader: Reader) -> set[str]:
    return {name for name, (value, quality) in read(reader).items() if quality == GOOD and value == int(name[1:])}


# ---- where a refused request is broken


def split(learned: Learned, *addresses: int) -> list[tuple[int, int]]:
    """(address, count) of the requests of registers at these addresses after they were refused as one request."""
    points = points_of(profile_of(*addresses))
    [whole] = plan(points, Limits())
    assert learned.split(whole, points)
    return [(r.address, r.count) for r in plan(points, learned.apply(Limits(), points))]


def test_a_refused_request_is_broken_at_its_widest_gap() -> None:
    assert split(Learned(), 0, 1, 4, 5, 12, 13) == [(0, 6), (12, 2)]


def test_of_equal_gaps_the_one_nearest_the_middle_is_taken_and_without_gaps_the_middle() -> None:
    assert split(Learned(), 0, 3, 6, 9) == [(0, 4), (6, 4)]
    assert split(Learned(), *range(8)) == [(0, 4), (4, 4)]


def test_a_break_is_of_its_table_only() -> None:
    points = points_of(
        make_profile({f"{t}{a}": {"modbus": {"address": a, "table": t}} for t in ("input", "holding") for a in (0, 1)})
    )
    learned = Learned({("holding", 1)})
    assert [(r.table, r.address, r.count) for r in plan(points, learned.apply(Limits(), points))] == [
        ("input", 0, 2),
        ("holding", 0, 1),
        ("holding", 1, 1),
    ]


def test_a_wide_value_is_never_broken_in_two() -> None:
    points = points_of(
        make_profile({"a": {"modbus": {"address": 0, "type": "u32"}}, "b": {"modbus": {"address": 2, "type": "f64"}}})
    )
    learned = Learned()
    [whole] = plan(points, Limits())
    assert learned.split(whole, points)
    assert [(r.address, r.count) for r in plan(points, learned.apply(Limits(), points))] == [(0, 2), (2, 4)]


# ---- a device that lacks registers


def test_one_gap_that_the_device_lacks_costs_one_more_request_and_nothing_else() -> None:
    reader = reader_of(profile_of(0, 1, 2, 10, 11), Memory(set(range(3, 10))))
    assert good(reader) == set(), "the first cycle is refused whole"
    assert good(reader) == {"p0", "p1", "p2", "p10", "p11"}
    assert reader.memory.asked == [(0, 3), (10, 2)]


def test_breaks_on_the_way_to_a_missing_gap_are_taken_back_once_it_is_found() -> None:
    """The widest gap, 12 … 27, is there; 3 … 9 is what the device lacks."""
    reader = reader_of(profile_of(0, 1, 2, 10, 11, 28, 29), Memory(set(range(3, 10))))
    asked = []
    for _ in range(4):
        reader.cycle()
        asked.append([*reader.memory.asked])
    assert asked == [
        [(0, 30)],  # refused: broken at the widest gap
        [(0, 12), (28, 2)],  # refused again: that was not it, perhaps
        [(0, 3), (10, 2), (28, 2)],  # all is answered, so the first break is tried
        [(0, 3), (10, 20)],
    ]
    assert reader.settle(5) == 0
    assert reader.device.learned.breaks == {("holding", 10)}


def test_a_break_that_was_needed_after_all_costs_one_refused_request_and_stays() -> None:
    missing = {*range(3, 10), *range(12, 28)}
    reader = reader_of(profile_of(0, 1, 2, 10, 11, 28, 29), Memory(missing))
    reader.settle(10)
    assert good(reader) == {"p0", "p1", "p2", "p10", "p11", "p28", "p29"}
    assert reader.memory.asked == [(0, 3), (10, 2), (28, 2)]
    for _ in range(20):
        assert good(reader) == {"p0", "p1", "p2", "p10", "p11", "p28", "p29"}, "it is not tried again"
    assert not reader.device.learned.doubtful


@pytest.mark.parametrize("cycles", range(5))
def test_what_is_doubtful_is_still_so_after_a_restart(cycles: int) -> None:
    profile, missing, state = profile_of(0, 1, 2, 10, 11, 28, 29), set(range(3, 10)), dict[str, str]()
    reader = reader_of(profile, Memory(missing), state=state)
    for _ in range(cycles):
        reader.cycle()
    reader = reader_of(profile, Memory(missing), state=dict(state))
    reader.settle(10)
    reader.cycle()
    assert reader.memory.asked == [(0, 3), (10, 20)]


def test_of_points_that_overlap_only_the_one_that_the_device_lacks_is_refused() -> None:
    """A counter of two registers at 0, its lower word by itself at 1, and one that reaches beyond what there is."""
    wide: dict[str, Any] = {"a": {"modbus": {"address": 0, "type": "u32"}}, "b": {"modbus": {"address": 1}}}
    beyond: dict[str, Any] = {"c": {"modbus": {"address": 1, "type": "u32"}}, "d": {"modbus": {"address": 1}}}
    reader = reader_of(make_profile({**wide, **beyond}), Memory({2}))
    assert reader.settle(5) == 2
    assert {name: q for name, (_, q) in read(reader).items()} == {
        "a": GOOD,
        "b": GOOD,
        "c": BAD_CONFIG,
        "d": GOOD,
    }
    assert reader.memory.asked == [(0, 2)], "the others are read together again"
    reader.memory.missing.clear()
    reader.clock.s += REFUSED_S
    reader.cycle()
    assert {q for _, q in read(reader).values()} == {GOOD}
    assert reader.memory.asked == [(0, 3)]


def test_what_an_earlier_build_learned_is_read() -> None:
    kept = '{"for": "f", "breaks": [["holding", 10]], "refused": ["p"], "longest": 8}'
    assert read_learned(kept, "f") == Learned({("holding", 10)}, {"p"}, 8)


def test_a_missing_register_is_found_and_the_others_are_read_as_before_it() -> None:
    reader = reader_of(profile_of(*range(16)), Memory({5}))
    assert reader.settle(10) <= 5, "four halvings and the point alone"
    assert good(reader) == {f"p{a}" for a in range(16) if a != 5}
    assert reader.memory.asked == [(0, 5), (6, 10)], "what was broken on the way is whole again"
    assert read(reader)["p5"][1] == BAD_CONFIG


def test_two_missing_registers_are_both_found_and_what_is_known_of_the_first_is_not_lost_with_the_second() -> None:
    reader = reader_of(profile_of(*range(16)), Memory({3, 12}))
    reader.settle(20)
    assert good(reader) == {f"p{a}" for a in range(16) if a not in (3, 12)}
    assert reader.memory.asked == [(0, 3), (4, 8), (13, 3)]


def test_a_device_without_any_of_the_registers_is_asked_nothing_but_once_a_minute() -> None:
    """Six hundred of them: nor does the stack grow with those that are not asked."""
    profile = profile_of(*range(600))
    device = reader_of(profile, Memory()).device
    known = Learned({("holding", a) for a in range(600)}, {f"p{a}" for a in range(600)})
    kept = {plan_key("e"): known.spell(device.fingerprint)}
    reader = reader_of(profile, Memory(set(range(600))), state=kept)
    outcome = reader.cycle()
    assert reader.memory.asked == []
    assert (outcome.answered, outcome.unanswered) == (0, 0)
    assert {q for _, q in read(reader).values()} == {BAD_CONFIG}
    reader.clock.s += REFUSED_S
    reader.cycle()
    assert len(reader.memory.asked) == 600


@pytest.mark.parametrize("missing", [{0}, {2}, {7}, {0, 2, 7}, {6, 7}, {3, 4}])
def test_refused_points_are_all_asked_for_once_a_minute_wherever_they_lie(missing: set[int]) -> None:
    reader = reader_of(profile_of(*range(8)), Memory(missing))
    reader.settle(20)
    for _ in range(3):
        reader.cycle()
        assert not missing & {address for address, _ in reader.memory.asked}
        reader.clock.s += REFUSED_S / 3
    reader.cycle()
    assert missing <= {address for address, _ in reader.memory.asked}
    reader.cycle()
    assert not missing & {address for address, _ in reader.memory.asked}, "once"


def test_a_point_that_the_device_has_after_all_is_read_with_the_others_again() -> None:
    reader = reader_of(profile_of(*range(8)), Memory({2, 3}))
    reader.settle(20)
    reader.memory.missing.discard(2)
    reader.clock.s += REFUSED_S
    outcome = reader.cycle()
    [event] = outcome.received.events
    assert (event.code, event.attributes["refused"]) == ("plan-learned", ["p3"])
    assert values(outcome.source.decode([outcome.received]).columns)["p2"] == (2.0, GOOD)
    assert good(reader) == {"p0", "p1", "p2", "p4", "p5", "p6", "p7"}
    assert reader.memory.asked == [(0, 3), (4, 4)]


def test_a_silent_device_whose_points_were_all_refused_is_asked_when_it_is_probed() -> None:
    """Else nothing would ever leave, and nobody would ever find out that it is back."""
    reader = reader_of(profile_of(0, 1), Memory({0, 1}))
    reader.settle(5)
    reader.memory.silent = True
    outcome = reader.cycle(probe=True)
    assert reader.memory.asked
    assert outcome.unanswered > 0
    reader.memory.silent = False
    assert reader.cycle(probe=True).answered > 0


def test_an_exception_that_is_no_refusal_teaches_nothing() -> None:
    reader = reader_of(profile_of(0, 1), Memory())
    reader.memory.silent = True
    for _ in range(5):
        reader.cycle()
    assert not reader.device.learned


# ---- a device for which requests are too long


def test_a_request_that_goes_unanswered_twice_in_a_row_while_others_are_answered_is_halved() -> None:
    reader = reader_of(profile_of(*range(40), 100), Memory(most_answered=20))
    assert good(reader) == {"p100"}
    assert good(reader) == {"p100"}
    assert good(reader) == {f"p{a}" for a in (*range(40), 100)}
    assert [count for _, count in reader.memory.asked] == [20, 20, 1]


def test_two_time_outs_with_an_answer_between_are_chance_and_teach_nothing() -> None:
    reader = reader_of(profile_of(*range(40), 100), Memory())
    for _ in range(10):
        reader.memory.most_answered = 20
        reader.cycle()
        reader.memory.most_answered = 125
        reader.cycle()
    assert not reader.device.learned


def test_a_device_that_falls_silent_after_it_was_probed_is_not_taken_for_one_that_takes_short_requests() -> None:
    reader = reader_of(profile_of(*range(40)), Memory())
    assert reader.cycle(probe=True).answered == 1
    assert reader.memory.asked == [(0, 1), (0, 40)]
    reader.memory.silent = True
    for _ in range(6):
        reader.cycle()
    assert not reader.device.learned


def test_a_device_that_answers_probes_but_no_long_request_is_read_by_shorter_ones() -> None:
    reader = reader_of(profile_of(*range(64)), Memory(most_answered=16))
    for _ in range(4):
        reader.cycle(probe=True)
    assert good(reader) == {f"p{a}" for a in range(64)}
    assert {count for _, count in reader.memory.asked} == {16}


def test_what_cannot_be_shorter_is_left_as_it_is_and_not_told_again_and_again() -> None:
    points: dict[str, Any] = {
        "wide": {"modbus": {"address": 0, "type": "string", "length": 30}, "kind": "text"},
        "x": {"modbus": {"address": 90}},
    }
    points |= {f"c{a}": {"modbus": {"address": a, "table": "coil", "type": "bool"}} for a in range(40)}
    reader = reader_of(make_profile(points), Memory(most_answered=SHORTEST))
    assert [bool(reader.cycle().received.state) for _ in range(12)].count(True) == 0
    reader = reader_of(profile_of(*range(40), 100), Memory(most_answered=1))
    assert [bool(reader.cycle(probe=True).received.state) for _ in range(30)].count(True) == 3, (
        "40 → 20 → 10 → 8, and no less"
    )


# ---- while other groups are under way


def test_what_one_group_learns_leaves_the_cycle_of_another_that_is_under_way_as_it_was_begun() -> None:
    points: dict[str, Any] = {f"p{a}": {"modbus": {"address": a}, "poll_s": 60} for a in range(20)}
    points |= {f"p{a}": {"modbus": {"address": a}} for a in (5, 40, 80, 120)}
    reader = reader_of(make_profile(points, poll_s=1), Memory({0}))
    device, over, taught = reader.device, list[Outcome](), list[Outcome]()
    fast, slow = (next(n for n, s in enumerate(device.intervals_s) if s == wanted) for wanted in (1, 60))
    assert device.begin(fast, over.append)
    reader.memory.work(steps=2)
    assert not over
    assert device.begin(slow, taught.append)
    reader.memory.work(steps=2)
    assert taught
    assert not over
    reader.memory.work()
    assert taught[0].received.state, "it was refused, and planned anew"
    [outcome] = over
    assert values(outcome.source.decode([outcome.received]).columns) == {
        f"p{a}": (float(a), GOOD) for a in (5, 40, 80, 120)
    }


# ---- kept, told, forgotten


def test_what_was_learned_is_told_as_an_event_and_kept_over_a_restart() -> None:
    profile, state = profile_of(*range(16)), {"code/e/x/y": "1"}
    reader = reader_of(profile, Memory({5}), state=state)
    outcomes = [reader.cycle() for _ in range(8)]
    told = [event for outcome in outcomes for event in outcome.received.events]
    assert {(e.equipment, e.scheme, e.code, e.on) for e in told} == {("e", "vigil", "plan-learned", True)}
    assert told[-1].attributes == {"requests": 3, "breaks": ["holding 5", "holding 6"], "refused": ["p5"], "longest": 0}
    assert [bool(o.received.state) for o in outcomes] == [bool(o.received.events) for o in outcomes], (
        "each with its state"
    )
    kept = {key: text for outcome in outcomes for key, text in outcome.received.state.items()}
    assert kept == {plan_key("e"): state[plan_key("e")]}
    again = reader_of(profile, Memory({5}), state=dict(state))
    assert good(again) == {f"p{a}" for a in range(16) if a != 5}
    assert again.memory.asked == [(0, 5), (6, 10)], "nothing is asked twice"


@pytest.mark.parametrize(
    ("rule", "changed", "endpoint"),
    [
        ("a point that moved", profile_of(*range(15), 30), {}),
        ("another version", profile_of(*range(16), version=2), {}),
        ("what the endpoint can take", profile_of(*range(16)), {"max_gap": 3}),
    ],
)
def test_it_is_forgotten_when_the_map_changes(rule: str, changed: Profile, endpoint: dict[str, int]) -> None:
    state: dict[str, str] = {}
    reader_of(profile_of(*range(16)), Memory({5}), state=state).settle(10)
    assert not reader_of(changed, Memory(), state=dict(state), **endpoint).device.learned
    assert reader_of(profile_of(*range(16)), Memory(), state=dict(state)).device.learned, "and only then"


@pytest.mark.parametrize("text", [None, "", "{", "[]", "null", '{"for": "x"}', '{"for": "x", "breaks": 7}'])
def test_what_is_kept_and_cannot_be_read_is_nothing_learned(text: str | None) -> None:
    assert read_learned(text, "x") == Learned()


def test_what_is_spelled_is_read_again() -> None:
    learned = Learned({("coil", 3), ("holding", 70)}, {"a", "b"}, 20)
    assert read_learned(learned.spell("x"), "x") == learned
    assert read_learned(learned.spell("x"), "y") == Learned()


def test_a_point_that_is_refused_alone_has_no_value_and_its_reason() -> None:
    reader = reader_of(profile_of(0), Memory({0}))
    for _ in range(3):
        value, quality = read(reader)["p0"]
        assert math.isnan(value)
        assert quality == BAD_CONFIG
    reader.memory.silent = True
    reader.clock.s += REFUSED_S
    assert read(reader)["p0"][1] == BAD_COMMS


def test_limits_that_were_learned_never_widen_what_the_profile_allows() -> None:
    points = points_of(profile_of(*range(10)))
    assert Learned(longest=60).apply(Limits(max_registers=20), points).max_registers == 20
    own = Learned(longest=10).apply(Limits(max_per_table={"holding": 60, "coil": 500}), points).max_per_table
    assert own == {"holding": 10, "coil": 500}
    assert Request("holding", 0, 10, ()).payload_bytes == 20
