"""A plausible database for looking at the console and for its tests: written by SQL, as the owner."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from telemetry.files import load_profile
from telemetry.ledger import name_hash
from telemetry.names import signal_name
from telemetry.profile import Profile
from telemetry.registry import describe_point

EDGE = "edge-1"
LIFT, BOILER, FORKLIFT = "lift-monitor", "sola-boiler", "forklift-terminal"
AREAS = (
    ("minhang", None, "district", "闵行区", "Minhang"),
    ("xinzhuang", "minhang", "street", "莘庄镇", "Xinzhuang"),
    ("qibao", "minhang", "street", "七宝镇", "Qibao"),
    ("hongqiao", "minhang", "street", "虹桥镇", "Hongqiao"),
)
ORGANISATIONS = (
    ("acme", "用安物业管理有限公司", "Acme Property", "021-5555 0100"),
    ("steamco", "申汽热力有限公司", "Steamco Heating", "021-5555 0200"),
    ("liftcare", "安行电梯维保有限公司", "Liftcare Maintenance", "021-5555 0300"),
    ("boilercare", "恒温锅炉服务站", "Boilercare Service", "021-5555 0400"),
)


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit to put into the register."""

    id: str
    profile: str
    area: str
    name_zh: str
    name_en: str
    address: str


def units() -> list[Unit]:
    """Twelve lifts, six forklifts, four boilers in three areas."""
    streets = [a[0] for a in AREAS[1:]]
    lifts = [
        Unit(
            f"lift-{n:04}",
            LIFT,
            streets[n % 3],
            f"{1 + n % 6} 号楼 {n} 号电梯",
            f"Building {1 + n % 6}, lift {n}",
            f"莘松路 {100 + 8 * n} 弄 {1 + n % 6} 号",
        )
        for n in range(1, 13)
    ]
    forklifts = [
        Unit(f"forklift-{n:02}", FORKLIFT, streets[n % 2], f"{n} 号叉车", f"Forklift {n}", "沪闵路 6088 号仓库")
        for n in range(1, 7)
    ]
    boilers = [
        Unit(f"boiler-{n:02}", BOILER, streets[-n % 3], f"{n} 号热水锅炉", f"Boiler {n}", f"七莘路 {300 + n} 号锅炉房")
        for n in range(1, 5)
    ]
    return [*lifts, *forklifts, *boilers]


class Seed:
    """Fills a migrated database. `random` and `now` make it the same every time."""

    def __init__(self, connection: psycopg.Connection[Any], *, now: datetime, seed: int = 7) -> None:
        self.connection = connection
        self.now = now
        self.random = random.Random(seed)
        self.profiles: dict[str, Profile] = {}

    def fill(self, *, minutes: int = 60, step_s: int = 10) -> None:
        """The whole demonstration: register, readings, events and some alarms."""
        self.register()
        for unit in units():
            self.unit(unit)
            self.readings(unit, minutes=minutes, step_s=step_s)
        self.events("lift-0003")
        self.alarm("a1", "boiler-01", "outlet_temperature", "limit:high_high", priority="critical", age_s=95)
        self.alarm("a2", "lift-0003", "", "code:gbt24476-2017/4", priority="high", age_s=610)
        self.alarm("a3", "forklift-02", "", "comms-loss", priority="medium", age_s=3900)
        self.alarm("a4", "lift-0007", "", "stale", priority="low", age_s=7300)
        self.acknowledged("a4", by="王师傅", note="已派人前往")
        self.alarm("a5", "boiler-02", "outlet_temperature", "limit:high", priority="high", age_s=90_000)
        self.normal("a5")
        self.online("forklift-02", online=False, since=self.now - timedelta(seconds=3900))
        self.connection.commit()

    def register(self) -> None:
        """Areas, organisations and the edge."""
        for area, parent, level, zh, en in AREAS:
            self.connection.execute(
                """INSERT INTO register.area (id, parent_id, level, name_zh, name_en)
                   VALUES (%s, (SELECT area_id FROM register.area WHERE id = %s), %s, %s, %s)""",
                (area, parent, level, zh, en),
            )
        for organisation, zh, en, phone in ORGANISATIONS:
            self.connection.execute(
                "INSERT INTO register.organisation (id, name_zh, name_en, phone) VALUES (%s, %s, %s, %s)",
                (organisation, zh, en, phone),
            )
        self.heartbeat()

    def heartbeat(self) -> None:
        """The edge lives."""
        self.connection.execute(
            """INSERT INTO store.edge (edge, heartbeat, epoch) VALUES (%s, %s, 1)
               ON CONFLICT (edge) DO UPDATE SET heartbeat = excluded.heartbeat""",
            (EDGE, self.now),
        )

    def profile(self, name: str) -> Profile:
        """A profile of the package."""
        if name not in self.profiles:
            self.profiles[name] = load_profile(name)
        return self.profiles[name]

    def unit(self, unit: Unit) -> None:
        """One unit with its parties, area, status and signals; online."""
        profile = self.profile(unit.profile)
        row = self.connection.execute(
            """INSERT INTO register.equipment (id, class, class_name_zh, class_name_en, profile, profile_version, edge,
                                               name_zh, name_en, registration_code, model, address)
               VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING equipment_id""",
            (
                unit.id,
                profile.equipment_class,
                profile.class_name.zh,
                profile.class_name.en,
                profile.profile,
                profile.version,
                EDGE,
                unit.name_zh,
                unit.name_en,
                f"3130310109200604{self.random.randrange(10_000):04}",
                "",
                unit.address,
            ),
        ).fetchone()
        assert row is not None
        owner, maintainer = ("steamco", "boilercare") if unit.profile == BOILER else ("acme", "liftcare")
        for role, organisation in (("owner", owner), ("user", owner), ("maintainer", maintainer)):
            self.connection.execute(
                """INSERT INTO register.equipment_party (equipment_id, organisation_id, role, valid_from)
                   SELECT %s, organisation_id, %s, %s FROM register.organisation WHERE id = %s""",
                (row[0], role, self.now - timedelta(days=400), organisation),
            )
        self.connection.execute(
            """INSERT INTO register.equipment_area (equipment_id, area_id, valid_from)
               SELECT %s, area_id, %s FROM register.area WHERE id = %s""",
            (row[0], self.now - timedelta(days=400), unit.area),
        )
        self.connection.execute(
            "INSERT INTO register.equipment_status (equipment_id, status, valid_from) VALUES (%s, 'in_use', %s)",
            (row[0], self.now - timedelta(days=400)),
        )
        self.online(unit.id, online=True, since=self.now - timedelta(hours=5))
        for point in profile.points:
            self.signal(unit.id, profile, point)

    def signal(self, equipment: str, profile: Profile, point: str) -> None:
        """The signal of a point, as ingest registers it."""
        said = describe_point(profile.points[point])
        self.connection.execute(
            """INSERT INTO store.signal (name, equipment, point, name_hash, registered, kind, unit, "group", name_zh,
                                         name_en, enum, low, high, limits)
               VALUES (%s, %s, %s, %s, true, %s, %s, %s, %s, %s, %s, %s, %s, %s)""",
            (
                signal_name(equipment, point),
                equipment,
                point,
                name_hash(signal_name(equipment, point)) - (1 << 63),
                said["kind"],
                said["unit"],
                said["group"],
                said["name"]["zh"],
                said["name"]["en"],
                Jsonb(said["enum"]),
                said["low"],
                said["high"],
                Jsonb(said["limits"]),
            ),
        )

    def online(self, equipment: str, *, online: bool, since: datetime) -> None:
        """A unit's connection state."""
        self.connection.execute(
            """INSERT INTO store.equipment_online (equipment, edge, online, since, heard) VALUES (%s, %s, %s, %s, %s)
               ON CONFLICT (equipment) DO UPDATE SET online = excluded.online, since = excluded.since""",
            (equipment, EDGE, online, since, self.now),
        )

    def readings(self, unit: Unit, *, minutes: int, step_s: int) -> None:
        """A period of plausible readings, and the latest ones."""
        start = self.now - timedelta(minutes=minutes)
        self.connection.execute("SELECT store.ensure_sample_partitions(%s, %s)", (start, self.now))
        signals = self.connection.execute(
            "SELECT signal_id, point FROM store.signal WHERE equipment = %s AND kind <> 'text'", (unit.id,)
        ).fetchall()
        steps = max(1, minutes * 60 // step_s)
        with self.connection.cursor().copy("COPY store.sample (signal_id, time, value, quality) FROM STDIN") as copy:
            for signal_id, point in signals:
                for step in range(steps):
                    time = self.now - timedelta(seconds=(steps - 1 - step) * step_s)
                    copy.write_row((signal_id, time, self.plausible(unit, point, step), 192))
        for signal_id, point in signals:
            self.latest(signal_id, self.plausible(unit, point, steps - 1))

    def latest(self, signal_id: int, value: float | None, *, quality: int = 192) -> None:
        """A signal's latest reading."""
        self.connection.execute(
            """INSERT INTO store.latest (signal_id, time, value, quality) VALUES (%s, %s, %s, %s)
               ON CONFLICT (signal_id) DO UPDATE SET time = excluded.time, value = excluded.value,
                    quality = excluded.quality, changed_at = clock_timestamp()""",
            (signal_id, self.now, value, quality),
        )

    def plausible(self, unit: Unit, point: str, step: int) -> float:
        """A value within the point's range: states hold, counters grow, the rest swings a little."""
        said = self.profile(unit.profile).points[point]
        phase = step / 30 + sum(map(ord, unit.id + point))
        if said.enum:
            keys = sorted(said.enum)
            return float(keys[min(1, len(keys) - 1)] if step % 40 < 30 else keys[0])
        if said.kind == "counter":
            return 18_000.0 + step // 3
        if point == "outlet_temperature":
            rise = max(0.0, 1 - abs(step - 340) / 40) if unit.id == "boiler-01" else 0.0
            return round(78 + 3 * math.sin(phase) + 21 * rise + self.random.random(), 1)
        limits = [alarm.limit for alarm in said.alarms.values()]
        low = said.range.low if math.isfinite(said.range.low) else 0.0
        high = min(
            [said.range.high if math.isfinite(said.range.high) else low + 100, *(x for x in limits if x > max(low, 0))]
        )
        if low < 0 < high:
            return round(0.01 * (high - low) * math.sin(phase), 2)
        return round(low + (high - low) * (0.45 + 0.12 * math.sin(phase) + 0.04 * self.random.random()), 2)

    def events(self, equipment: str) -> None:
        """Some events of a lift."""
        for code, state, age_s in (("43", "on", 9000), ("43", "off", 8000), ("4", "on", 612)):
            self.event(equipment, "gbt24476-2017", code, state=state, age_s=age_s)

    def event(self, equipment: str, scheme: str, code: str, *, state: str = "on", age_s: float = 0) -> int:
        """One event. Returns its id."""
        row = self.connection.execute(
            """INSERT INTO store.event (equipment, time, scheme, code, state, edge) VALUES (%s, %s, %s, %s, %s, %s)
               RETURNING event_id""",
            (equipment, self.now - timedelta(seconds=age_s), scheme, code, state, EDGE),
        ).fetchone()
        assert row is not None
        return int(row[0])

    def alarm(
        self, alarm_id: str, equipment: str, point: str, detector: str, *, priority: str, age_s: float = 0
    ) -> None:
        """An active, unacknowledged alarm, as alerting writes it."""
        at = self.now - timedelta(seconds=age_s)
        text = self._alarm_text(equipment, point, detector)
        self.connection.execute(
            """INSERT INTO alarm.alarm (alarm_id, equipment, point, detector, state, priority, text_zh, text_en,
                   consequence_zh, consequence_en, action_zh, action_en, onset, raised_at, evidence, class, area_id,
                   owner_id, user_id, maintainer_id)
               SELECT %(id)s, e.id, %(point)s, %(detector)s, 'unacknowledged', %(priority)s, %(zh)s, %(en)s,
                      %(c_zh)s, %(c_en)s, %(a_zh)s, %(a_en)s, %(at)s, %(at)s, %(evidence)s, e.class,
                      (SELECT area_id FROM register.equipment_area a WHERE a.equipment_id = e.equipment_id),
                      (SELECT organisation_id FROM register.equipment_party p
                       WHERE p.equipment_id = e.equipment_id AND role = 'owner'),
                      (SELECT organisation_id FROM register.equipment_party p
                       WHERE p.equipment_id = e.equipment_id AND role = 'user'),
                      (SELECT organisation_id FROM register.equipment_party p
                       WHERE p.equipment_id = e.equipment_id AND role = 'maintainer')
               FROM register.equipment e WHERE e.id = %(equipment)s""",
            {
                "id": alarm_id,
                "equipment": equipment,
                "point": point,
                "detector": detector,
                "priority": priority,
                "at": at,
                "evidence": Jsonb({"value": 98.4, "limit": 97.0} if point else {}),
                **text,
            },
        )
        self.transition(alarm_id, "raise", "normal", "unacknowledged", actor="analyze", at=at)

    def _alarm_text(self, equipment: str, point: str, detector: str) -> dict[str, str]:
        profile = next((self.profile(u.profile) for u in units() if u.id == equipment), None)
        kind, _, name = detector.partition(":")
        if profile and kind == "limit" and name in profile.points[point].alarms:
            alarm = profile.points[point].alarms[name]
            consequence, action = alarm.consequence, alarm.action
            return {
                "zh": alarm.text.zh,
                "en": alarm.text.en,
                "c_zh": consequence.zh if consequence else "",
                "c_en": consequence.en if consequence else "",
                "a_zh": action.zh if action else "",
                "a_en": action.en if action else "",
            }
        known = {
            "code": ("停在开锁区域外", "Stopped outside the unlocking zone"),
            "comms-loss": ("设备通信中断", "The unit does not answer"),
            "stale": ("数据过时", "Readings are stale"),
        }
        zh, en = known.get(kind, (detector, detector))
        return {"zh": zh, "en": en, "c_zh": "", "c_en": "", "a_zh": "", "a_en": ""}

    def transition(self, alarm_id: str, transition: str, before: str, after: str, **more: Any) -> None:
        """One entry of the history, and the notification that alerting sends with it."""
        self.connection.execute(
            """INSERT INTO alarm.history (alarm_id, at, transition, from_state, to_state, actor, note)
               VALUES (%s, %s, %s, %s, %s, %s, %s)""",
            (alarm_id, more.get("at", self.now), transition, before, after, more["actor"], more.get("note", "")),
        )
        self.connection.execute(
            "SELECT pg_notify('vigil_alarm', json_build_object('alarm_id', %s::text, 'transition', %s::text)::text)",
            (alarm_id, transition),
        )

    def acknowledged(self, alarm_id: str, *, by: str, note: str = "") -> None:
        """Somebody acknowledged it."""
        self.connection.execute(
            """UPDATE alarm.alarm SET state = 'acknowledged', acknowledged_at = %s, acknowledged_by = %s,
                      acknowledge_note = %s WHERE alarm_id = %s""",
            (self.now, by, note, alarm_id),
        )
        self.transition(alarm_id, "acknowledge", "unacknowledged", "acknowledged", actor=by, note=note)

    def normal(self, alarm_id: str) -> None:
        """It cleared, and was acknowledged before."""
        self.acknowledged(alarm_id, by="李师傅")
        self.connection.execute(
            "UPDATE alarm.alarm SET state = 'normal', cleared_at = %s WHERE alarm_id = %s", (self.now, alarm_id)
        )
        self.transition(alarm_id, "clear", "acknowledged", "normal", actor="analyze")


def utc_now() -> datetime:
    """The machine's time."""
    return datetime.now(UTC)
