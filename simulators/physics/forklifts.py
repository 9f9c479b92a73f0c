"""Forklifts: shifts, drivers, driving and lifting, seat belt, impacts, people nearby, battery.

A truck is parked, idle with its key on, driving, or lifting. Invariant: a truck moves only with its key on, and without
an authorised driver only under the fault `unauthorised-start`; the battery stays within 0–100 %.

Faults
    unauthorised-start  the truck is started without a driver's permission: illegal ignition
    overspeed           driven at 22 km/h, which no zone allows
    no-seat-belt        driven with the belt open
    impact              one blow of 3–6 g when it begins; the terminal reports a collision
    pedestrian          somebody within 1.5 m of the moving truck
    overload            a load of 1.15 times the rated capacity
    battery-low         the battery falls to 12 %
    outside-zone        outside the yard where it may drive
    collector-removed   the card of the driver-permission collector was pulled out
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from simulators.physics.fleet import Fleet, Float, Mask, choose

PARKED, IDLE, DRIVING, LIFTING = range(4)

SCHEME: Final = "jt808"
SPEEDING, ILLEGAL_START, COLLISION = "1", "27", "29"
DRIVER_SCHEME, DRIVER_CHANGE = "su-dsm", "11"
LOGIN, LOGOUT = "in", "out"

DRIVERS: Final = ("王建国", "李强", "张伟", "刘洋", "陈静", "赵磊", "周敏", "吴涛", "郑华", "孙丽", "钱勇", "冯军")
ZONE_LIMIT_KMH: Final = (15.0, 10.0, 8.0, 5.0)
OVERSPEED_KMH: Final = 22.0
REVERSE_KMH: Final = 4.5
COLLECTOR_REMOVED: Final = 3.0
ACCELERATION_MS2: Final = 0.9
SHIFT_S: Final = 900.0
BREAK_S: Final = 90.0
TASK_S: Final = 20.0
YARD_M: Final = 70.0
DEGREES_PER_M: Final = 1 / 111_320.0
BATTERY_PER_S: Final = (0.0, 0.0004, 0.004, 0.006)
CHARGE_PER_S: Final = 0.05
IMPACT_TICKS: Final = 2


class Forklifts(Fleet):
    """`count` forklifts. `origin` (count, 2) is where each yard lies: latitude, longitude in degrees."""

    tick_s = 0.2
    kinds = (
        "unauthorised-start",
        "overspeed",
        "no-seat-belt",
        "impact",
        "pedestrian",
        "overload",
        "battery-low",
        "outside-zone",
        "collector-removed",
    )

    def __init__(self, count: int, rng: np.random.Generator, *, origin: Float | None = None) -> None:
        super().__init__(count, rng)
        self.origin = np.tile((31.1128, 121.3817), (count, 1)) if origin is None else origin
        self.rated_kg = choose(rng, count, (2000.0, 2500.0, 3000.0))
        self.activity = np.full(count, IDLE)
        self.activity[rng.random(count) < 0.2] = PARKED
        self.task_s = rng.uniform(1.0, TASK_S, count)
        self.shift_s = rng.uniform(0.2, 1.0, count) * np.where(self.activity == PARKED, BREAK_S, SHIFT_S)
        self.driver = np.where(self.activity == PARKED, -1, np.arange(count) % len(DRIVERS))
        self.belt = self.activity != PARKED
        self.zone = rng.integers(0, len(ZONE_LIMIT_KMH), count)
        self.target_ms = np.zeros(count)
        self.speed_ms = np.zeros(count)
        self.reverse = np.zeros(count, bool)
        self.heading = rng.uniform(0.0, 2 * np.pi, count)
        self.east_m = rng.uniform(-YARD_M, YARD_M, count) / 2
        self.north_m = rng.uniform(-YARD_M, YARD_M, count) / 2
        self.load_kg = np.zeros(count)
        self.mast_m = np.zeros(count)
        self.battery = rng.uniform(45.0, 98.0, count)
        self.hours = rng.uniform(500.0, 9000.0, count)
        self.distance_m = self.hours * rng.uniform(2000.0, 4000.0, count)
        self.idle_hours = self.hours * rng.uniform(0.2, 0.4, count)
        self.licence_days = rng.integers(60, 1400, len(DRIVERS))
        self.steering_deg = np.zeros(count)
        self.pedestrian_m = np.full(count, 20.0)
        self.impact_g = np.zeros(count)
        self.impacts = rng.integers(0, 40, count)
        self._blow = np.zeros(count, np.int64)
        self._told = {code: np.zeros(count, bool) for code in (SPEEDING, ILLEGAL_START)}

    @property
    def key_on(self) -> Mask:
        """Which trucks are switched on."""
        on: Mask = self.activity != PARKED
        return on

    @property
    def limit_kmh(self) -> Float:
        """(count,) limit of the zone in which each truck is, km/h."""
        return np.asarray(ZONE_LIMIT_KMH)[self.zone]

    def _tick(self) -> None:
        chance = self.rng.random((6, self.count))
        self._shifts(chance)
        self._tasks(chance)
        self._drive(chance)
        self._surroundings(chance)
        self._tell()

    def _shifts(self, chance: Float) -> None:
        """Drivers come and go; a fault keeps or puts a truck in motion."""
        needed = self.active["overspeed"] | self.active["no-seat-belt"] | self.active["pedestrian"]
        needed |= self.active["overload"] | self.active["impact"] | self.active["outside-zone"]
        needed |= self.active["collector-removed"]
        stolen = self.active["unauthorised-start"]
        self.shift_s = self.shift_s - self.tick_s
        ends = (self.shift_s <= 0.0) & (self.driver >= 0) & ~needed & (self.activity == IDLE)
        comes = (self.driver < 0) & ((self.shift_s <= 0.0) | needed) & ~stolen & ~self._told[ILLEGAL_START]
        self._log(ends, LOGOUT)
        self.driver[ends] = -1
        who = np.floor(chance[0] * len(DRIVERS)).astype(np.int64)
        self.driver = np.where(comes, who, self.driver)
        self._log(comes, LOGIN)
        length_s = np.where(comes, SHIFT_S, BREAK_S) * (0.5 + chance[1])
        self.shift_s = np.where(ends | comes, length_s, self.shift_s)
        self.activity[ends] = PARKED
        self.activity[comes] = IDLE
        self.activity[stolen & (self.activity == PARKED)] = DRIVING
        abandoned = ~stolen & (self.driver < 0) & self.key_on
        self.activity[abandoned & (self.speed_ms <= 0.0)] = PARKED
        self.target_ms[abandoned] = 0.0
        self.belt = np.where(comes, True, self.belt & (self.driver >= 0))
        self.belt = np.where(self.active["no-seat-belt"], False, self.belt | ((self.driver >= 0) & (chance[5] < 0.02)))

    def _log(self, units: Mask, action: str) -> None:
        for unit in np.flatnonzero(units):
            name = DRIVERS[self.driver[unit]]
            only = np.arange(self.count) == unit
            self._report(only, DRIVER_SCHEME, DRIVER_CHANGE, on=True, driver=name, action=action)

    def _tasks(self, chance: Float) -> None:
        """Idle, drive, lift, drive …"""
        self.task_s = self.task_s - self.tick_s
        working = self.key_on & ((self.driver >= 0) | self.active["unauthorised-start"])
        done = working & (self.task_s <= 0.0)
        still = self.speed_ms <= 0.05
        following = np.select(
            [chance[0] < 0.55, (chance[0] < 0.85) & still],
            [np.full(self.count, DRIVING), np.full(self.count, LIFTING)],
            IDLE,
        )
        tiring = (self.shift_s <= 0.0) & (self.driver >= 0)
        following = np.where(tiring, IDLE, following)
        self.activity = np.where(done, following, self.activity)
        self.task_s = np.where(done, TASK_S * (0.4 + 1.2 * chance[1]), self.task_s)
        urged = self.active["overspeed"] | self.active["no-seat-belt"] | self.active["pedestrian"]
        urged |= self.active["outside-zone"] | self.active["unauthorised-start"]
        self.activity[working & urged] = DRIVING
        begins = done & (self.activity == LIFTING)
        lifted = np.where(self.load_kg > 0.0, 0.0, self.rated_kg * (0.25 + 0.65 * chance[2]))
        self.load_kg = np.where(begins, lifted, self.load_kg)
        self.load_kg = np.where(self.active["overload"], self.rated_kg * 1.15, self.load_kg)
        self.load_kg = np.where(~self.active["overload"] & (self.load_kg > self.rated_kg), 0.0, self.load_kg)
        enters = done & (self.activity == DRIVING) & (chance[3] < 0.3)
        zone = np.floor(chance[4] * len(ZONE_LIMIT_KMH)).astype(np.int64)
        slow_enough = self.speed_ms * 3.6 <= 0.9 * np.asarray(ZONE_LIMIT_KMH)[zone]
        self.zone = np.where(enters & slow_enough & ~self.active["overspeed"], zone, self.zone)
        slow = self.speed_ms * 3.6 <= REVERSE_KMH
        self.reverse = np.where(done & slow, chance[5] < 0.2, self.reverse & slow) & ~urged
        self.target_ms = np.where(done, self.limit_kmh / 3.6 * (0.45 + 0.45 * chance[2]), self.target_ms)

    def _drive(self, chance: Float) -> None:
        limit_ms = self.limit_kmh / 3.6
        target = np.minimum(self.target_ms, 0.92 * limit_ms)
        target = np.maximum(target, 0.4 * limit_ms)
        target = np.where(self.reverse, np.minimum(target, REVERSE_KMH / 3.6), target)
        target = np.where(self.active["overspeed"], OVERSPEED_KMH / 3.6, target)
        target = np.where(self.activity == DRIVING, target, 0.0)
        target = np.where((self.driver < 0) & ~self.active["unauthorised-start"], 0.0, target)
        step = ACCELERATION_MS2 * self.tick_s
        self.speed_ms = np.where(self.key_on, self.speed_ms + np.clip(target - self.speed_ms, -2 * step, step), 0.0)
        self.speed_ms = np.maximum(self.speed_ms, 0.0)
        moved_m = self.speed_ms * self.tick_s
        self.heading = self.heading + (chance[3] - 0.5) * 0.3 * (moved_m > 0)
        sense = np.where(self.reverse, -1.0, 1.0) * moved_m
        self.east_m, self.north_m = (
            self.east_m + sense * np.sin(self.heading),
            self.north_m + sense * np.cos(self.heading),
        )
        outside = np.hypot(self.east_m, self.north_m) > YARD_M
        inward = np.arctan2(-self.east_m, -self.north_m) + np.where(self.reverse, np.pi, 0.0)
        self.heading = np.where(outside, inward, self.heading) % (2 * np.pi)
        rise = np.where(self.activity == LIFTING, 0.25, -0.4) * self.tick_s
        self.mast_m = np.clip(self.mast_m + rise, 0.0, 4.5)
        self.distance_m = self.distance_m + moved_m
        self.hours = self.hours + self.key_on * self.tick_s / 3600.0
        self.idle_hours = self.idle_hours + (self.activity == IDLE) * self.tick_s / 3600.0
        turn = np.where(moved_m > 0, (chance[3] - 0.5) * 60.0, 0.0)
        self.steering_deg = self.steering_deg + (turn - self.steering_deg) * 0.2
        use = np.asarray(BATTERY_PER_S)[self.activity] * self.tick_s
        charge = np.where(self.activity == PARKED, CHARGE_PER_S * self.tick_s, 0.0)
        self.battery = np.clip(self.battery - use + charge, 8.0, 100.0)
        self.battery = np.where(self.active["battery-low"], np.minimum(self.battery, 12.0), self.battery)

    def _surroundings(self, chance: Float) -> None:
        self.pedestrian_m = np.clip(self.pedestrian_m + (chance[4] - 0.48) * 1.5, 4.0, 25.0)
        near = self.active["pedestrian"]
        self.pedestrian_m = np.where(near, 0.8 + 0.6 * chance[4], self.pedestrian_m)
        self._blow = np.maximum(self._blow - 1, 0)
        bumps = 0.05 + 0.25 * chance[1] * (self.speed_ms > 0.3)
        self.impact_g = np.where(self._blow > 0, self.impact_g, bumps)

    def _tell(self) -> None:
        speeding = self.speed_ms * 3.6 > self.limit_kmh * 1.05
        stolen = self.key_on & (self.driver < 0) & self.active["unauthorised-start"]
        for code, now in ((SPEEDING, speeding), (ILLEGAL_START, stolen)):
            self._report_changes(self._told[code], now, SCHEME, code)
            self._told[code] = now

    def _switched(self, unit: int, kind: str, on: bool) -> None:
        if kind == "unauthorised-start" and on:
            only = np.arange(self.count) == unit
            if self.driver[unit] >= 0:
                self._log(only, LOGOUT)
            self.driver[unit] = -1
            self.belt[unit] = False
        if kind == "impact" and on:
            self.impact_g[unit] = self.rng.uniform(3.0, 6.0)
            self.impacts[unit] += 1
            self._blow[unit] = int(IMPACT_TICKS / self.tick_s) + 1
            self._report(
                np.arange(self.count) == unit, SCHEME, COLLISION, on=True, peak_g=round(float(self.impact_g[unit]), 2)
            )

    def age(self, days: float) -> None:
        """See Fleet."""
        self.hours, self.idle_hours = self.hours + days * 24.0, self.idle_hours + days * 24.0
        self.distance_m = self.distance_m + days * 24.0 * OVERSPEED_KMH * 1000.0

    def texts(self) -> Mapping[str, Sequence[str]]:
        """See Fleet."""
        return {"driver": [DRIVERS[number] if number >= 0 else "" for number in self.driver]}

    def readings(self) -> Mapping[str, Float]:
        """See Fleet."""
        position = self.origin + np.stack(
            [
                self.north_m * DEGREES_PER_M,
                self.east_m * DEGREES_PER_M / np.cos(np.radians(self.origin[:, 0])),
            ],
            axis=1,
        )
        moving = self.speed_ms > 0.05
        work = np.select([self.activity == PARKED, self.activity == LIFTING, moving], [0.0, 3.0, 2.0], 1.0)
        days = self.licence_days[np.maximum(self.driver, 0)].astype(np.float64)
        removed = self.active["collector-removed"] & self.key_on
        return {
            "key_on": self.key_on.astype(np.float64),
            "driver_authorised": (self.driver >= 0).astype(np.float64),
            "collector_status": np.where(removed, COLLECTOR_REMOVED, 0.0),
            "licence_days_left": np.where(self.driver >= 0, days, np.nan),
            "seat_occupied": self.key_on.astype(np.float64),
            "seat_belt": self.belt.astype(np.float64),
            "speed": np.round(self.speed_ms * 3.6, 1),
            "speed_limit": self.limit_kmh.copy(),
            "reversing": (self.reverse & moving).astype(np.float64),
            "park_brake": (~self.key_on).astype(np.float64),
            "steering_angle": np.round(self.steering_deg, 1),
            "work_status": work,
            "load": np.round(self.load_kg),
            "mast_height": np.round(self.mast_m, 2),
            "obstacle_distance": np.round(self.pedestrian_m, 1),
            "impact": np.round(self.impact_g, 2),
            "impact_count": self.impacts.astype(np.float64),
            "zone_state": (~self.active["outside-zone"]).astype(np.float64),
            "battery": np.round(self.battery, 1),
            "main_power": np.ones(self.count),
            "latitude": np.round(position[:, 0], 6),
            "longitude": np.round(position[:, 1], 6),
            "operating_hours": np.round(self.hours, 3),
            "idle_hours": np.round(self.idle_hours, 3),
            "distance": np.round(self.distance_m / 1000.0, 3),
        }
