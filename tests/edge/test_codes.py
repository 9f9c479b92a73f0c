"""Events that come of values: code points and string points."""

from __future__ import annotations

from collections.abc import Mapping

from edge.codes import Changes, make_changes
from edge.columns import Columns, join
from telemetry.messages import Event
from telemetry.quality import BAD_COMMS, GOOD, UNCERTAIN_OUT_OF_RANGE
from tests.edge.build import NOW_US, TEXT, make_profile
from tests.edge.readings import block_of, columns_of

PROFILE = make_profile(
    {"lockout": {"modbus": {"address": 0}}, "model": {"kind": "text", "mqtt": {}}, "x": {"modbus": {"address": 1}}},
    schemes={"local": {"name": TEXT, "codes": {"67": {"name": TEXT}}}},
    code_points=[{"point": "lockout", "scheme": "local", "none": [0, 255]}],
)
BLOCK, OTHER = block_of("e", "x", "lockout"), block_of("other", "x", "lockout")


def read(value: float, quality: int = GOOD, n: int = 0) -> Columns:
    return columns_of([(BLOCK, 0, NOW_US + n, 1.0, GOOD), (BLOCK, 1, NOW_US + n, value, quality)])


def changes(state: Mapping[str, str] | None = None) -> Changes:
    made = make_changes(state or {})
    made.watch("e", PROFILE)
    return made


def run(watched: Changes, *values: float) -> list[tuple[str, bool]]:
    found = []
    for value in values:
        events, _ = watched.of_values(read(value))
        found += [(e.code, e.on) for e in events]
    return found


def test_a_change_of_value_ends_the_old_code_and_begins_the_new_one() -> None:
    assert run(changes(), 0, 67, 67, 109, 0, 255, 67) == [
        ("67", True),
        ("67", False),
        ("109", True),
        ("109", False),
        ("67", True),
    ]


def test_the_event_has_the_time_of_its_sample_and_names_its_point() -> None:
    events, _ = changes().of_values(read(67, n=5))
    assert events == [Event("e", NOW_US + 5, "local", "67", True, {"point": "lockout"})]


def test_a_bad_reading_changes_nothing_and_an_uncertain_one_counts() -> None:
    watched = changes()
    run(watched, 67)
    assert watched.of_values(read(float("nan"), BAD_COMMS)) == ([], {})
    events, _ = watched.of_values(read(300, UNCERTAIN_OUT_OF_RANGE))
    assert [(e.code, e.on) for e in events] == [("67", False), ("300", True)]


def test_after_a_restart_an_active_code_is_not_begun_again_and_gets_its_end() -> None:
    watched = changes()
    _, state = watched.of_values(read(67))
    restarted = changes({**state, "code/other/local/lockout": "9"})
    assert run(restarted, 67) == []
    assert run(restarted, 0) == [("67", False)]


def test_the_state_that_is_kept_changes_only_when_a_code_does() -> None:
    watched = changes()
    assert watched.of_values(read(0))[1] == {}
    assert watched.of_values(read(67))[1] == {"code/e/local/lockout": "67"}
    assert watched.of_values(read(67))[1] == {}


def test_a_string_point_is_an_event_of_scheme_text_when_it_changes() -> None:
    watched = changes()
    events, state = watched.of_texts([("e", "model", "A7", NOW_US)])
    assert events == [Event("e", NOW_US, "text", "model", True, {"value": "A7"})]
    assert watched.of_texts([("e", "model", "A7", NOW_US + 1)]) == ([], {})
    assert changes(state).of_texts([("e", "model", "A7", NOW_US + 1)]) == ([], {})


def test_columns_with_several_readings_of_a_code_point_give_an_event_for_each_change() -> None:
    several = join([read(value, n=n) for n, value in enumerate([0.0, 67.0, 67.0, 0.0])])
    events, state = changes().of_values(several)
    assert [(e.time_us - NOW_US, e.on) for e in events] == [(1, True), (3, False)]
    assert state == {"code/e/local/lockout": ""}


def test_each_of_many_equipments_has_its_own_codes_and_one_that_is_not_watched_has_none() -> None:
    watched = changes()
    both = join([columns_of([(OTHER, 1, NOW_US, 67.0, GOOD), (OTHER, 0, NOW_US, 1.0, GOOD)]), read(67)])
    assert [e.equipment for e in watched.of_values(both)[0]] == ["e"]
    watched = changes()
    watched.watch("other", PROFILE)
    assert [e.equipment for e in watched.of_values(both)[0]] == ["other", "e"]


def test_equipment_that_goes_and_comes_back_goes_on_where_it_was() -> None:
    watched = changes()
    assert run(watched, 67) == [("67", True)]
    watched.forget("e")
    assert run(watched, 0) == [], "nobody minds it"
    watched.forget("e")
    watched.watch("e", PROFILE)
    assert run(watched, 67, 0) == [("67", False)]
