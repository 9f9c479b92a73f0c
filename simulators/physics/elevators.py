"""Elevators: calls, trips, doors, passengers, and what goes wrong with them.

A car is in one phase at a time: idle at a floor, moving, door opening, open or closing, or stuck under a fault.
Invariant: the car moves only with its door closed, except under the fault `unintended-movement`.

Faults
    door-held-open        the door opens at the next chance and stays open; the terminal reports code 2 after 60 s
    door-reopening        most attempts to close end in a reopening
    stopped-outside-zone  the car stops between two floors; code 4 after 5 s, the alarm button if somebody is inside
    entrapment            the car stops at a floor with somebody inside and the door closed; alarm button after 8 s
    safety-circuit        the safety circuit opens during a trip: code 1 at once, the car stops where it is
    overspeed             the car runs at 1.3 times its rated speed
    unintended-movement   the car drifts from the floor with its door open: code 5
    inspection            service mode 2: code 43, slow, no calls of passengers
    out-of-service        service mode 0: code 42, the car stays where it is
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from simulators.physics.fleet import Fleet, Float, Mask, choose, noise

IDLE, MOVING, OPENING, OPEN, CLOSING, STUCK = range(6)

SCHEME: Final = "gbt24476-2017"
DOOR_CLOSE_FAULT, OUTSIDE_ZONE, SAFETY_CIRCUIT, UNINTENDED = "2", "4", "1", "5"
AUTOMATIC, OUT_OF_SERVICE, INSPECTION, ALARM_BUTTON = "40", "42", "43", "90"

FLOOR_M: Final = 3.0
ZONE_M: Final = 0.15
ACCELERATION_MS2: Final = 0.8
CALLS_PER_S: Final = 1 / 18
BOARDING_S: Final = 1.0
RELEASE_BUTTON_S: Final = 8.0
OUTSIDE_REPORTED_S: Final = 5.0
DOOR_REPORTED_S: Final = 60.0
OVERSPEED_FACTOR: Final = 1.3
INSPECTION_MS: Final = 0.3
DRIFT_MS: Final = 0.2
DRIFT_M: Final = 0.5
REOPEN_CHANCE: Final = 0.02
REOPEN_CHANCE_FAULT: Final = 0.75
PERSON_KG: Final = 70.0
CAPACITY: Final = 13
ENERGY_KWH_M: Final = 0.0015
AGE_RUNS_PER_DAY: Final = 8_000
AGE_TRIP_M: Final = 60.0

STOPPERS: Final = ("stopped-outside-zone", "entrapment", "safety-circuit", "unintended-movement", "out-of-service")


class Elevators(Fleet):
    """`count` elevators."""

    tick_s = 0.1
    kinds = (
        "door-held-open",
        "door-reopening",
        "stopped-outside-zone",
        "entrapment",
        "safety-circuit",
        "overspeed",
        "unintended-movement",
        "inspection",
        "out-of-service",
    )

    def __init__(self, count: int, rng: np.random.Generator) -> None:
        super().__init__(count, rng)
        self.floors = rng.integers(6, 34, count)
        self.rated_ms = choose(rng, count, (1.0, 1.5, 1.75))
        self.open_s = rng.uniform(2.0, 2.8, count)
        self.close_s = rng.uniform(2.6, 3.4, count)
        self.dwell_s = rng.uniform(3.0, 6.0, count)
        self.phase = np.zeros(count, np.int64)
        self.timer_s = rng.uniform(0.0, 5.0, count)
        self.position_m = np.floor(rng.random(count) * self.floors) * FLOOR_M
        self.target_m = self.position_m.copy()
        self.velocity_ms = np.zeros(count)
        self.direction = np.zeros(count, np.int64)
        self.door = np.zeros(count)
        self.persons = np.zeros(count, np.int64)
        self.runs = rng.integers(50_000, 900_000, count)
        self.running_s = self.runs * rng.uniform(9.0, 14.0, count)
        self.travel_m = self.runs * rng.uniform(9.0, 20.0, count)
        self.door_cycles = self.runs + rng.integers(0, 20_000, count)
        self.reopenings = rng.integers(0, 2_000, count)
        self.last_open_s = self.open_s.copy()
        self.last_close_s = self.close_s.copy()
        self.machine_room_c = rng.uniform(22.0, 28.0, count)
        self.car_c = rng.uniform(20.0, 26.0, count)
        self.level_error_m = noise(rng, count, 0.003)
        self._shaking = np.zeros(count)
        self._phase_s = np.zeros(count)
        self._open_for_s = np.zeros(count)
        self._told = {code: np.zeros(count, bool) for code in (DOOR_CLOSE_FAULT, OUTSIDE_ZONE, ALARM_BUTTON)}

    @property
    def in_zone(self) -> Mask:
        """Which cars are where their door may open."""
        return np.abs(self.position_m - np.round(self.position_m / FLOOR_M) * FLOOR_M) <= ZONE_M

    @property
    def moving(self) -> Mask:
        """Which cars move."""
        return self.velocity_ms > 0.0

    def _tick(self) -> None:
        chance = self.rng.random((5, self.count))
        before = self.phase.copy()
        self._serve(chance)
        self._travel(chance)
        self._work_doors(chance)
        self._phase_s = np.where(self.phase == before, self._phase_s + self.tick_s, 0.0)
        self._open_for_s = np.where(self.door > 0.0, self._open_for_s + self.tick_s, 0.0)
        self._drift_weather(chance[4])
        self._tell()

    def _serve(self, chance: Float) -> None:
        """Idle cars answer calls, carry whom they hold, or do what their fault makes them do."""
        active = self.active
        idle = (self.phase == IDLE) & ~active["out-of-service"]
        self.timer_s = np.where(idle, self.timer_s - self.tick_s, self.timer_s)
        ready = idle & (self.timer_s <= 0.0)
        trapped = idle & active["entrapment"] & (self.persons > 0)
        self.phase[trapped] = STUCK
        opens = ready & (active["door-held-open"] | (active["entrapment"] & (self.persons == 0)))
        opens |= ready & active["unintended-movement"]
        here = np.round(self.position_m / FLOOR_M)
        floor = np.floor(chance[1] * self.floors)
        called = (chance[0] < CALLS_PER_S * self.tick_s) & ~active["inspection"]
        called |= (chance[0] < CALLS_PER_S * self.tick_s / 2) & active["inspection"]
        forced = active["stopped-outside-zone"] | active["safety-circuit"]
        leaves = ready & ~trapped & ~opens & (called | forced | (self.persons > 0))
        other = np.where(floor == here, (floor + 1) % self.floors, floor)
        floor = np.where((self.persons > 0) | forced, other, floor)
        astray = idle & ~self.in_zone
        floor = np.where(astray, np.clip(here, 0, self.floors - 1), floor)
        goes = astray | (leaves & (floor != here))
        opens |= leaves & ~astray & (floor == here)
        self._depart(goes, floor * FLOOR_M)
        self.phase[opens & ~goes & self.in_zone] = OPENING

    def _depart(self, cars: Mask, target_m: Float) -> None:
        self.target_m = np.where(cars, target_m, self.target_m)
        self.direction = np.where(cars, np.sign(self.target_m - self.position_m).astype(np.int64), self.direction)
        self.phase[cars] = MOVING
        self.runs = self.runs + cars
        self._shaking = np.where(cars, self.rng.uniform(6.0, 14.0, self.count), self._shaking)

    def _travel(self, chance: Float) -> None:
        """Moving cars follow a trapezoid of speed; drifting cars crawl with their door open."""
        active = self.active
        moving = self.phase == MOVING
        rated = np.where(active["overspeed"], self.rated_ms * OVERSPEED_FACTOR, self.rated_ms)
        rated = np.where(active["inspection"], INSPECTION_MS, rated)
        left_m = np.abs(self.target_m - self.position_m)
        braking = np.sqrt(2.0 * ACCELERATION_MS2 * left_m)
        speed = np.minimum(np.minimum(self.velocity_ms + ACCELERATION_MS2 * self.tick_s, rated), braking)
        step_m = np.where(moving, np.minimum(speed * self.tick_s, left_m), 0.0)
        self.position_m = self.position_m + self.direction * step_m
        arrived = moving & (left_m - step_m < 2e-3)
        self.position_m = np.where(arrived, self.target_m, self.position_m)
        self.velocity_ms = np.where(moving & ~arrived, speed, 0.0)
        self.travel_m = self.travel_m + step_m
        self.running_s = self.running_s + np.where(moving, self.tick_s, 0.0)
        self._arrive(arrived, chance)
        offset = np.abs(self.position_m / FLOOR_M - np.round(self.position_m / FLOOR_M))
        cut = moving & ~arrived & (offset > 0.3) & (active["stopped-outside-zone"] | active["safety-circuit"])
        self._report(cut & active["safety-circuit"], SCHEME, SAFETY_CIRCUIT, on=True)
        self.phase[cut] = STUCK
        self.velocity_ms[cut] = 0.0
        self.persons = np.where(cut & (chance[2] < 0.7), np.maximum(self.persons, 1), self.persons)
        self._crawl()

    def _arrive(self, cars: Mask, chance: Float) -> None:
        trapped = cars & self.active["entrapment"] & (self.persons > 0)
        self.phase[cars] = OPENING
        self.phase[trapped] = STUCK
        self.direction[cars] = 0
        self.level_error_m = np.where(cars, (chance[3] - 0.5) * 0.012, self.level_error_m)

    def _crawl(self) -> None:
        drifting = self.active["unintended-movement"] & (self.phase == OPEN)
        self.direction[drifting] = 1
        self.velocity_ms[drifting] = DRIFT_MS
        self.position_m = self.position_m + np.where(drifting, DRIFT_MS * self.tick_s, 0.0)
        off_m = self.position_m - np.round(self.position_m / FLOOR_M) * FLOOR_M
        caught = drifting & (off_m >= DRIFT_M)
        self._report(caught, SCHEME, UNINTENDED, on=True)
        self.phase[caught] = STUCK
        self.velocity_ms[caught] = 0.0
        self.direction[caught] = 0

    def _work_doors(self, chance: Float) -> None:
        opening, closing, is_open = (self.phase == p for p in (OPENING, CLOSING, OPEN))
        half = self.door > 0.5
        self.door = np.where(opening, np.minimum(self.door + self.tick_s / self.open_s, 1.0), self.door)
        self.door = np.where(closing, np.maximum(self.door - self.tick_s / self.close_s, 0.0), self.door)
        opened, closed = opening & (self.door >= 1.0), closing & (self.door <= 0.0)
        self.phase[opened] = OPEN
        self.timer_s = np.where(opened, self.dwell_s, self.timer_s)
        self.last_open_s = np.where(opened, self.open_s * (0.97 + 0.06 * chance[0]), self.last_open_s)
        self._exchange(opened, chance)
        held = self.active["door-held-open"] | self.active["unintended-movement"] | self.active["out-of-service"]
        self.timer_s = np.where(is_open & ~held, self.timer_s - self.tick_s, self.timer_s)
        self.phase[is_open & ~held & (self.timer_s <= 0.0)] = CLOSING
        likely = np.where(self.active["door-reopening"], REOPEN_CHANCE_FAULT, REOPEN_CHANCE)
        reopens = closing & half & (self.door <= 0.5) & (chance[1] < likely)
        self.phase[reopens] = OPENING
        self.reopenings = self.reopenings + reopens
        self.phase[closed] = IDLE
        self.timer_s = np.where(closed, BOARDING_S, self.timer_s)
        self.last_close_s = np.where(closed, self.close_s * (0.97 + 0.06 * chance[2]), self.last_close_s)
        self.door_cycles = self.door_cycles + closed

    def _exchange(self, cars: Mask, chance: Float) -> None:
        """Passengers leave and enter where the door has just opened."""
        stay = np.where(chance[2] < 0.85, 0, self.persons // 2)
        enter = np.where(chance[3] < 0.6, 1 + np.floor(chance[0] * 4).astype(np.int64), 0)
        enter = np.where(self.active["inspection"], 0, enter)
        persons = np.minimum(stay + enter, CAPACITY)
        persons = np.where(self.active["entrapment"], np.maximum(persons, 1), persons)
        self.persons = np.where(cars, persons, self.persons)

    def _drift_weather(self, chance: Float) -> None:
        """Machine room and car warm and cool slowly with use."""
        warm = np.where(self.phase == MOVING, 0.004, -0.0015)
        self.machine_room_c = np.clip(self.machine_room_c + warm + (chance - 0.5) * 0.01, 18.0, 36.0)
        self.car_c = np.clip(self.car_c + (chance - 0.5) * 0.02 + (23.0 - self.car_c) * 1e-4, 16.0, 32.0)

    def _tell(self) -> None:
        """What the terminal reports after its own timers."""
        stuck = self.phase == STUCK
        outside = stuck & ~self.in_zone & (self._phase_s >= OUTSIDE_REPORTED_S) & (self.door == 0.0)
        pressed = stuck & (self.persons > 0) & (self.door == 0.0) & (self._phase_s >= RELEASE_BUTTON_S)
        pressed |= self._told[ALARM_BUTTON] & stuck
        for code, now in (
            (OUTSIDE_ZONE, outside),
            (ALARM_BUTTON, pressed),
            (DOOR_CLOSE_FAULT, self._open_for_s >= DOOR_REPORTED_S),
        ):
            self._report_changes(self._told[code], now, SCHEME, code)
            self._told[code] = now

    def _switched(self, unit: int, kind: str, on: bool) -> None:
        only = np.arange(self.count) == unit
        if kind == "inspection":
            self._report(only, SCHEME, INSPECTION, on=on)
            if not on:
                self._report(only, SCHEME, AUTOMATIC, on=True)
        elif kind == "out-of-service":
            self._report(only, SCHEME, OUT_OF_SERVICE, on=on)
        if on or kind not in STOPPERS or self.phase[unit] not in (STUCK, OPEN):
            return
        if kind in ("safety-circuit", "unintended-movement") and self.phase[unit] == STUCK:
            self._report(only, SCHEME, SAFETY_CIRCUIT if kind == "safety-circuit" else UNINTENDED, on=False)
        self._release(unit)

    def _release(self, unit: int) -> None:
        """A stuck car goes on: it opens where it stands if it may, else it closes and goes to the next floor."""
        self.velocity_ms[unit] = 0.0
        if self.door[unit] > 0.0:
            self.phase[unit] = CLOSING
        elif self.persons[unit] > 0 and self.in_zone[unit]:
            self.phase[unit] = OPENING
        else:
            self.phase[unit] = IDLE

    def age(self, days: float) -> None:
        """See Fleet."""
        runs = np.full(self.count, round(AGE_RUNS_PER_DAY * days))
        self.runs, self.door_cycles, self.reopenings = self.runs + runs, self.door_cycles + runs, self.reopenings + runs
        self.running_s = self.running_s + days * 86_400.0
        self.travel_m = self.travel_m + runs * AGE_TRIP_M

    def readings(self) -> Mapping[str, Float]:
        """See Fleet."""
        active = self.active
        mode = np.where(active["inspection"], 2.0, 1.0)
        mode = np.where(active["out-of-service"], 0.0, mode)
        moving = self.moving
        door_status = np.select(
            [self.phase == OPENING, self.phase == CLOSING, self.door >= 1.0, self.door <= 0.0],
            [3.0, 1.0, 4.0, 2.0],
            6.0,
        )
        shaking = np.where(moving, self._shaking * (0.5 + 0.5 * self.velocity_ms / self.rated_ms), 0.6)
        return {
            "service_mode": mode,
            "car_status": moving.astype(np.float64),
            "car_direction": np.select([~moving, self.direction > 0], [0.0, 1.0], 2.0),
            "door_zone": self.in_zone.astype(np.float64),
            "car_position": np.round(self.position_m / FLOOR_M) + 1.0,
            "door_closed": (self.door <= 0.0).astype(np.float64),
            "occupied": (self.persons > 0).astype(np.float64),
            "alarm_button": self._told[ALARM_BUTTON].astype(np.float64),
            "overload": (self.persons > CAPACITY).astype(np.float64),
            "door_status": door_status,
            "speed": np.round(self.velocity_ms, 2),
            "leveling_error": np.round(self.level_error_m * 1000.0, 1),
            "car_temperature": np.round(self.car_c, 1),
            "machine_room_temperature": np.round(self.machine_room_c, 1),
            "run_hours": np.round(self.running_s / 3600.0, 2),
            "run_count": self.runs.astype(np.float64),
            "door_open_count": self.door_cycles.astype(np.float64),
            "rope_bend_count": self.runs * 2.0,
            "mileage": np.round(self.travel_m, 1),
            "energy": np.round(self.travel_m * ENERGY_KWH_M, 2),
            "load": self.persons * PERSON_KG,
            "people": self.persons.astype(np.float64),
            "reopen_count": self.reopenings.astype(np.float64),
            "door_open_time": np.round(self.last_open_s, 2),
            "door_close_time": np.round(self.last_close_s, 2),
            "vibration": np.round(shaking, 1),
        }
