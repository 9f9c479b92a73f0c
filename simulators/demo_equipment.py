"""What stands in the demonstration plant: a made-up part of 闵行区 with its streets, organisations and equipment.

Nothing here is a real company, address or telephone number. Invariant: identities never change between versions, for
history hangs on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

COUNTY: Final = "310112"
SITE: Final[dict[str, Any]] = {
    "id": "minhang",
    "name": {"zh": "闵行区", "en": "Minhang"},
    "timezone": "Asia/Shanghai",
    "level": "district",
}
AREAS: Final[list[dict[str, Any]]] = [
    {"id": "xinzhuang", "level": "street", "name": {"zh": "莘庄镇", "en": "Xinzhuang"}},
    {"id": "qibao", "level": "street", "name": {"zh": "七宝镇", "en": "Qibao"}},
    {"id": "jiangchuan", "level": "street", "name": {"zh": "江川路街道", "en": "Jiangchuan Road"}},
]


def _organisation(key: str, kinds: list[str], zh: str, en: str, phone: str, address: str) -> dict[str, Any]:
    return {"id": key, "kinds": kinds, "name": {"zh": zh, "en": en}, "phone": phone, "address": address}


ORGANISATIONS: Final[list[dict[str, Any]]] = [
    _organisation(
        "liftcare",
        ["maintainer"],
        "申维电梯维保（演示）",
        "Shenwei Lift Care (demo)",
        "021-5550-0101",
        "莘庄镇示例路 1 号",
    ),
    _organisation(
        "safework",
        ["maintainer"],
        "安作特种设备维保（演示）",
        "Anzuo Equipment Service (demo)",
        "021-5550-0102",
        "江川路街道示例路 2 号",
    ),
    _organisation(
        "xinyuan", ["use_unit"], "莘苑物业（演示）", "Xinyuan Property (demo)", "021-5550-0201", "莘庄镇示例路 18 号"
    ),
    _organisation(
        "baolong", ["use_unit"], "宝珑商场（演示）", "Baolong Mall (demo)", "021-5550-0202", "七宝镇示例街 66 号"
    ),
    _organisation(
        "qihotel",
        ["use_unit"],
        "七宝示例酒店（演示）",
        "Qibao Sample Hotel (demo)",
        "021-5550-0203",
        "七宝镇示例街 9 号",
    ),
    _organisation(
        "minhospital",
        ["use_unit"],
        "闵南示例医院（演示）",
        "Minnan Sample Hospital (demo)",
        "021-5550-0204",
        "莘庄镇示例路 100 号",
    ),
    _organisation(
        "jiangworks",
        ["use_unit"],
        "江川示例机械厂（演示）",
        "Jiangchuan Sample Works (demo)",
        "021-5550-0205",
        "江川路街道示例路 300 号",
    ),
    _organisation(
        "xinlogistics",
        ["use_unit"],
        "莘庄示例物流（演示）",
        "Xinzhuang Sample Logistics (demo)",
        "021-5550-0206",
        "莘庄镇示例路 77 号",
    ),
]


@dataclass(frozen=True, slots=True)
class Place:
    """Where equipment stands and who uses and maintains it."""

    area: str
    location: str
    position: tuple[float, float]
    user: str
    maintainer: str


YUAN: Final = Place("xinzhuang", "莘庄镇示例路 18 弄", (31.1121, 121.3853), "xinyuan", "liftcare")
HOSPITAL: Final = Place("xinzhuang", "莘庄镇示例路 100 号门诊楼", (31.1078, 121.3790), "minhospital", "liftcare")
LOGISTICS: Final = Place("xinzhuang", "莘庄镇示例路 77 号仓库", (31.1205, 121.3921), "xinlogistics", "safework")
MALL: Final = Place("qibao", "七宝镇示例街 66 号", (31.1558, 121.3532), "baolong", "liftcare")
HOTEL: Final = Place("qibao", "七宝镇示例街 9 号", (31.1533, 121.3497), "qihotel", "safework")
WORKS: Final = Place("jiangchuan", "江川路街道示例路 300 号", (31.0049, 121.4083), "jiangworks", "safework")
TOWER: Final = Place("jiangchuan", "江川路街道示例路 52 号", (31.0093, 121.4127), "xinyuan", "liftcare")


@dataclass(frozen=True, slots=True)
class Unit:
    """One equipment of the plant."""

    id: str
    zh: str
    en: str
    place: Place
    model: str
    year_month: str


def _units(prefix: str, zh: str, en: str, model: str, *rows: tuple[Place, str, str]) -> list[Unit]:
    return [
        Unit(f"{prefix}-{n:02d}", f"{detail} {zh}", f"{en} {n}", place, model, made)
        for n, (place, detail, made) in enumerate(rows, 1)
    ]


ELEVATORS: Final = _units(
    "lift", "电梯", "Lift", "示例 VX-1000",
    (YUAN, "莘苑 1 号楼", "201503"), (YUAN, "莘苑 2 号楼", "201503"), (YUAN, "莘苑 3 号楼", "201504"),
    (HOSPITAL, "医院门诊 1 号", "201809"), (HOSPITAL, "医院住院 2 号", "201809"),
    (MALL, "商场观光 1 号", "201911"), (MALL, "商场货梯 2 号", "201911"),
    (HOTEL, "酒店 1 号", "201206"), (HOTEL, "酒店 2 号", "201206"),
    (WORKS, "厂区办公楼", "201007"), (TOWER, "江川大厦 A 座", "202105"), (TOWER, "江川大厦 B 座", "202105"),
)  # fmt: skip
ESCALATORS: Final = _units(
    "escalator",
    "自动扶梯",
    "Escalator",
    "示例 ES-30",
    (MALL, "商场一层上行", "201911"),
    (MALL, "商场一层下行", "201911"),
)
FORKLIFTS: Final = _units(
    "forklift", "叉车", "Forklift", "示例 CPD30",
    (LOGISTICS, "物流 A 区", "202203"), (LOGISTICS, "物流 B 区", "202203"), (LOGISTICS, "物流装卸口", "202305"),
    (WORKS, "一车间", "202110"), (WORKS, "二车间", "202110"), (WORKS, "成品库", "202401"),
)  # fmt: skip
SOLA_BOILERS: Final = _units(
    "boiler",
    "热水锅炉",
    "Hot-water boiler",
    "示例 SOLA-350",
    (HOSPITAL, "医院 1 号", "201710"),
    (HOTEL, "酒店 1 号", "201805"),
)
STEAM_BOILERS: Final = _units(
    "steam-boiler",
    "蒸汽锅炉",
    "Steam boiler",
    "示例 WNS1-0.7",
    (WORKS, "厂区 1 号", "201612"),
    (WORKS, "厂区 2 号", "202008"),
)
LIFT_DOOR: Final = Unit("lift-door-01", "记录回放 电梯门", "Recorded lift door", HOTEL, "Zenodo 3653909", "201206")
PUMP: Final = Unit("pump-01", "记录回放 循环水泵", "Recorded pump", WORKS, "SKAB valve1/0", "202008")

TYPE_CODES: Final = {
    "elevators": "3110",
    "escalators": "3310",
    "forklifts": "5110",
    "sola-boilers": "1200",
    "steam-boilers": "1100",
}
"""The first four digits of a registration code, by class."""


def registration(kind: str, unit: Unit, serial: int) -> str:
    """A registration code of the right shape: type 4, county 6, year and month 6, serial 4."""
    return f"{TYPE_CODES[kind]}{COUNTY}{unit.year_month}{serial:04d}"
