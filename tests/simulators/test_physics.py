"""What no simulated machine ever does, and that the same seed makes the same life."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simulators.physics.elevators import CLOSING, Elevators
from simulators.physics.fleet import DeviceEvent, Fleet
from simulators.physics.forklifts import Forklifts
from simulators.physics.sola_boilers import LOCKOUT, SolaBoilers
from simulators.physics.steam_boilers import CUT_OFF_MM, SteamBoilers
from simulators.plant import CLASSES, PROFILES
from telemetry.files import load_profile
from telemetry.profile import PointKind

COUNTERS = {
    name: [p for p, point in load_profile(profile).points.items() if point.kind is PointKind.COUNTER]
    for name, profile in PROFILES.items()
}
Switches = list[tuple[float, int, int, bool]]
"""(at s, unit, kind's number, on)"""


def switches(fleet: type[Fleet], units: int, seconds: float) -> st.SearchStrategy[Switches]:
    one = st.tuples(
        st.floats(0, seconds), st.integers(0, units - 1), st.integers(0, len(fleet.kinds) - 1), st.booleans()
    )
    return st.lists(one, max_size=12).map(sorted)


def live(
    fleet: Fleet, planned: Switches, seconds: float, step_s: float, look: Callable[[Fleet], None]
) -> list[DeviceEvent]:
    events: list[DeviceEvent] = []
    waiting = list(planned)
    for at_s in np.arange(0.0, seconds, step_s):
        while waiting and waiting[0][0] <= at_s:
            _, unit, kind, on = waiting.pop(0)
            fleet.switch(unit, fleet.kinds[kind], on)
        events += fleet.advance(float(at_s))
        look(fleet)
    return events


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32), switches(Elevators, 4, 200.0))
def test_a_car_moves_only_with_its_door_closed_unless_that_is_its_fault(seed: int, planned: Switches) -> None:
    fleet = Elevators(4, np.random.default_rng(seed))
    drifts = {unit for _, unit, kind, _ in planned if fleet.kinds[kind] == "unintended-movement"}
    blameless = np.array([unit not in drifts for unit in range(4)])

    def look(_: Fleet) -> None:
        open_and_moving = (fleet.door > 0.0) & fleet.moving & blameless
        open_outside = (fleet.door > 0.0) & ~fleet.in_zone & blameless
        assert not open_and_moving.any()
        assert not open_outside.any()
        assert ((fleet.position_m >= 0.0) & (fleet.position_m <= (fleet.floors - 1) * 3.0 + 0.61)).all()
        assert ((fleet.door >= 0.0) & (fleet.door <= 1.0)).all()
        assert ((fleet.persons >= 0) & (fleet.persons <= 13)).all()

    live(fleet, planned, 200.0, 0.1, look)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32), switches(Forklifts, 4, 200.0))
def test_a_truck_moves_only_with_its_key_on_and_without_a_driver_only_when_stolen(seed: int, planned: Switches) -> None:
    fleet = Forklifts(4, np.random.default_rng(seed))
    stolen = {unit for _, unit, kind, _ in planned if fleet.kinds[kind] == "unauthorised-start"}
    honest = np.array([unit not in stolen for unit in range(4)])

    def look(_: Fleet) -> None:
        moving = fleet.speed_ms > 0.0
        assert not (moving & ~fleet.key_on).any()
        assert not (moving & (fleet.driver < 0) & honest).any()
        assert ((fleet.battery >= 0.0) & (fleet.battery <= 100.0)).all()
        assert (fleet.speed_ms * 3.6 <= 22.01).all()

    live(fleet, planned, 200.0, 0.2, look)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32), switches(SolaBoilers, 4, 900.0))
def test_a_burner_has_a_flame_only_from_pilot_to_run_and_none_in_lockout(seed: int, planned: Switches) -> None:
    fleet = SolaBoilers(4, np.random.default_rng(seed))

    def look(_: Fleet) -> None:
        readings = fleet.readings()
        burning = readings["flame"] == 1.0
        assert np.isin(readings["sequence_state"][burning], (9, 10, 12)).all()
        assert ((fleet.phase == LOCKOUT) == (readings["lockout_code"] > 0)).all()
        assert (readings["firing_rate"][~burning] == 0.0).all()
        assert ((fleet.outlet_c > 5.0) & (fleet.outlet_c < 104.0)).all()

    live(fleet, planned, 900.0, 2.0, look)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32), switches(SteamBoilers, 4, 900.0))
def test_a_steam_boiler_never_fires_below_the_cut_off_level(seed: int, planned: Switches) -> None:
    fleet = SteamBoilers(4, np.random.default_rng(seed))

    def look(_: Fleet) -> None:
        assert not (fleet.firing & (fleet.level_mm <= CUT_OFF_MM)).any()
        assert ((fleet.pressure_mpa >= 0.0) & (fleet.pressure_mpa < 0.9)).all()

    live(fleet, planned, 900.0, 0.5, look)


@pytest.mark.parametrize("name", CLASSES)
def test_counters_never_fall_whatever_goes_wrong(name: str) -> None:
    fleet = CLASSES[name](5, np.random.default_rng(11))
    rng = np.random.default_rng(12)
    last = {point: fleet.readings()[point] for point in COUNTERS[name]}
    for at_s in range(0, 600, 5):
        fleet.switch(int(rng.integers(5)), fleet.kinds[int(rng.integers(len(fleet.kinds)))], bool(rng.integers(2)))
        fleet.advance(float(at_s))
        now = {point: fleet.readings()[point] for point in COUNTERS[name]}
        assert all((now[point] >= last[point]).all() for point in now)
        last = now


@pytest.mark.parametrize("name", CLASSES)
def test_the_same_seed_and_faults_make_the_same_life_however_often_it_is_looked_at(name: str) -> None:
    def life(step_s: float) -> tuple[list[DeviceEvent], dict[str, list[float]]]:
        fleet = CLASSES[name](3, np.random.default_rng(5))
        events = list(fleet.advance(20.0))
        fleet.switch(1, fleet.kinds[0], True)
        for at_s in np.arange(20.0 + step_s, 140.0 + 1e-6, step_s):
            events += fleet.advance(float(at_s))
        fleet.switch(1, fleet.kinds[0], False)
        events += fleet.advance(200.0)
        return events, {point: values.tolist() for point, values in fleet.readings().items()}

    seldom, often = life(60.0), life(0.5)
    assert seldom[0] == often[0]
    np.testing.assert_equal(seldom[1], often[1])


@pytest.mark.parametrize("name", CLASSES)
def test_every_point_of_the_profile_is_simulated_within_its_range_and_enum(name: str) -> None:
    profile = load_profile(PROFILES[name])
    fleet = CLASSES[name](4, np.random.default_rng(3))
    for at_s in range(0, 300, 2):
        fleet.advance(float(at_s))
        readings = fleet.readings()
        for point, described in profile.points.items():
            if described.kind is PointKind.TEXT:
                assert len(fleet.texts()[point]) == 4
                continue
            values = readings[point][~np.isnan(readings[point])]
            assert ((values >= described.range.low) & (values <= described.range.high)).all(), point
            assert not described.enum or np.isin(values, list(described.enum)).all(), point


@pytest.mark.parametrize(
    ("fleet", "kind", "scheme", "code", "within_s"),
    [
        (Elevators, "entrapment", "gbt24476-2017", "90", 60.0),
        (Elevators, "safety-circuit", "gbt24476-2017", "1", 60.0),
        (Elevators, "stopped-outside-zone", "gbt24476-2017", "4", 60.0),
        (Elevators, "door-held-open", "gbt24476-2017", "2", 90.0),
        (Elevators, "unintended-movement", "gbt24476-2017", "5", 60.0),
        (Forklifts, "unauthorised-start", "jt808", "27", 5.0),
        (Forklifts, "overspeed", "jt808", "1", 30.0),
        (Forklifts, "impact", "jt808", "29", 1.0),
    ],
)
def test_a_fault_makes_the_device_report_its_code_and_its_end_ends_it(
    fleet: type[Fleet], kind: str, scheme: str, code: str, within_s: float
) -> None:
    for seed in range(4):
        units = fleet(2, np.random.default_rng(seed))
        units.switch(1, kind, True)
        begun = units.advance(within_s)
        units.switch(1, kind, False)
        ended = units.advance(within_s + 60.0)
        found = [(e.unit, e.on) for e in (*begun, *ended) if (e.scheme, e.code) == (scheme, code)]
        assert found[0] == (1, True)
        assert kind == "impact" or (1, False) in found
        assert all(unit == 1 for unit, _ in found)


def test_an_entrapment_shows_as_the_national_list_derives_it() -> None:
    fleet = Elevators(1, np.random.default_rng(1))
    fleet.switch(0, "entrapment", True)
    fleet.advance(60.0)
    shown = {point: values[0] for point, values in fleet.readings().items()}
    assert (shown["car_status"], shown["door_closed"], shown["occupied"], shown["door_zone"]) == (0, 1, 1, 1)
    assert shown["service_mode"] == 1
    fleet.switch(0, "entrapment", False)
    fleet.advance(64.0)
    assert fleet.phase[0] != CLOSING
    assert fleet.readings()["door_closed"][0] == 0.0


@pytest.mark.parametrize(
    ("kind", "point", "holds"),
    [
        ("ignition-failed", "lockout_code", lambda v: v == 109),
        ("flame-lost", "lockout_code", lambda v: v == 106),
        ("high-outlet", "outlet_temperature", lambda v: v > 97),
        ("stack-drift", "stack_temperature", lambda v: v > 170),
        ("sensor-lost", "inlet_temperature", np.isnan),
        ("short-cycling", "hold_code", lambda v: v == 61),
    ],
)
def test_each_boiler_fault_shows_and_its_neighbour_does_not(
    kind: str, point: str, holds: Callable[[float], bool]
) -> None:
    fleet = SolaBoilers(2, np.random.default_rng(4))
    fleet.switch(0, kind, True)
    seen = [False, False]
    for at_s in range(0, 900, 2):
        fleet.advance(float(at_s))
        seen = [was or bool(holds(value)) for was, value in zip(seen, fleet.readings()[point], strict=True)]
    assert seen == [True, False]


def test_thousands_of_elevators_live_in_one_set_of_arrays() -> None:
    fleet = Elevators(5000, np.random.default_rng(1))
    fleet.advance(10.0)
    assert fleet.readings()["car_position"].shape == (5000,)
    assert len(np.unique(fleet.position_m)) > 30
