from __future__ import annotations

from typing import Any

import pytest

from alerting import phrases
from alerting.catalogue import Catalogue, Entry, Known
from alerting.phrases import Phrases, Words
from telemetry.files import known_profiles, load_profile
from telemetry.profile import Priority, Profile
from tests.alerting.line import finding

PROFILE = Profile.model_validate(
    {
        "profile": "test-boiler",
        "version": 1,
        "class": "boiler",
        "class_name": {"zh": "锅炉", "en": "Boiler"},
        "name": {"zh": "试验锅炉", "en": "Test boiler"},
        "points": {
            "outlet": {
                "name": {"zh": "出水温度", "en": "Outlet temperature"},
                "unit": "°C",
                "modbus": {"address": 1},
                "alarms": {
                    "high": {
                        "limit": 95,
                        "priority": "high",
                        "text": {"zh": "出水温度高", "en": "Outlet temperature high"},
                        "consequence": {"zh": "汽化", "en": "Steam"},
                        "action": {"zh": "停炉", "en": "Shut down"},
                    }
                },
                "detectors": [{"priority": "low"}, {"priority": "medium"}],
            },
            "door": {
                "name": {"zh": "炉门", "en": "Door"},
                "kind": "state",
                "enum": {0: {"zh": "关", "en": "closed"}, 1: {"zh": "开", "en": "open"}},
                "modbus": {"address": 2},
                "alarms": {
                    "open": {
                        "condition": "equals",
                        "limit": 1,
                        "priority": "low",
                        "text": {"zh": "炉门未关", "en": "Door not closed"},
                    }
                },
            },
        },
        "conditions": {
            "dry": {
                "priority": "critical",
                "text": {"zh": "干烧", "en": "Dry firing"},
                "all": [{"point": "outlet", "condition": "above", "limit": 100}],
            }
        },
        "schemes": {
            "local": {
                "name": {"zh": "本地", "en": "Local"},
                "codes": {
                    "15": {"name": {"zh": "缺水", "en": "Low water"}, "priority": "critical"},
                    "16": {"name": {"zh": "提示", "en": "Hint"}},
                },
            }
        },
    }
)
CATALOGUE = Catalogue({"b1": Known(PROFILE, Words("一号炉", "Boiler 1"))})


def said(
    detector: str, point: str = "", evidence: dict[str, Any] | None = None, *, equipment: str = "b1"
) -> tuple[str, str, str]:
    entry = CATALOGUE.describe(finding(equipment, point, detector, evidence=evidence))
    return entry.priority.value, entry.text.zh, entry.text.en


RULES = [
    (
        "a limit says its point, value, unit and limit",
        "limit:high",
        "outlet",
        {"value": 98.25, "limit": 90.0},
        (
            "high",
            "出水温度高（出水温度 98.25 °C，限值 90 °C）",
            "Outlet temperature high (Outlet temperature 98.25 °C, limit 90 °C)",
        ),
    ),
    (
        "without a limit in the evidence the profile's counts",
        "limit:high",
        "outlet",
        {"value": 98},
        (
            "high",
            "出水温度高（出水温度 98 °C，限值 95 °C）",
            "Outlet temperature high (Outlet temperature 98 °C, limit 95 °C)",
        ),
    ),
    (
        "without a value only the text is said",
        "limit:high",
        "outlet",
        {},
        ("high", "出水温度高", "Outlet temperature high"),
    ),
    (
        "evidence of a wrong type is left out",
        "limit:high",
        "outlet",
        {"value": "98", "limit": None},
        ("high", "出水温度高", "Outlet temperature high"),
    ),
    (
        "a state is said by its word, without a limit",
        "limit:open",
        "door",
        {"value": 1.0, "limit": 1.0},
        ("low", "炉门未关（炉门 开）", "Door not closed (Door open)"),
    ),
    ("a condition says the profile's text", "condition:dry", "", {}, ("critical", "干烧", "Dry firing")),
    (
        "a code says its meaning, scheme and number",
        "code:local/15",
        "",
        {},
        ("critical", "缺水（local 代码 15）", "Low water (local code 15)"),
    ),
    (
        "a code without a priority is taken seriously",
        "code:local/16",
        "",
        {},
        ("medium", "提示（local 代码 16）", "Hint (local code 16)"),
    ),
    (
        "an unknown code is named",
        "code:local/99",
        "",
        {},
        ("medium", "未知代码 99（方案 local）", "Unknown code 99 of scheme local"),
    ),
    (
        "a code of an unknown scheme is named",
        "code:other/a/b",
        "",
        {},
        ("medium", "未知代码 a/b（方案 other）", "Unknown code a/b of scheme other"),
    ),
    (
        "a stale point is named",
        "stale",
        "outlet",
        {},
        ("low", "出水温度长时间没有新数据", "Outlet temperature: no fresh reading"),
    ),
    (
        "lost communication is said of the equipment",
        "comms-loss",
        "",
        {},
        ("medium", "设备通信中断", "The equipment does not answer"),
    ),
    (
        "a silent edge is named",
        "edge-silent",
        "",
        {"edge": "edge-7"},
        ("high", "采集网关 edge-7 没有心跳", "Edge edge-7 is silent"),
    ),
    (
        "a level says the value and has its detector's priority",
        "level",
        "outlet",
        {"value": 60.5},
        (
            "low",
            "出水温度偏离常态水平（出水温度 60.5 °C）",
            "Outlet temperature is away from its usual level (Outlet temperature 60.5 °C)",
        ),
    ),
    (
        "a point's second level detector has its own priority",
        "level:2",
        "outlet",
        {},
        ("medium", "出水温度偏离常态水平", "Outlet temperature is away from its usual level"),
    ),
    (
        "a level detector that the profile has not is said without its priority",
        "level:9",
        "outlet",
        {},
        ("low", "出水温度偏离常态水平", "Outlet temperature is away from its usual level"),
    ),
    (
        "a limit that the profile has not is named",
        "limit:odd",
        "outlet",
        {},
        ("medium", "检测到异常：limit:odd", "Abnormal: limit:odd"),
    ),
    (
        "an unknown detector is named",
        "spectral:x",
        "outlet",
        {},
        ("medium", "检测到异常：spectral:x", "Abnormal: spectral:x"),
    ),
    (
        "braces in a name are only letters",
        "code:{0}/{scheme}",
        "",
        {},
        ("medium", "未知代码 {scheme}（方案 {0}）", "Unknown code {scheme} of scheme {0}"),
    ),
]


@pytest.mark.parametrize(("rule", "detector", "point", "evidence", "expected"), RULES, ids=[r[0] for r in RULES])
def test_it_says_what_happened_in_both_languages(
    rule: str, detector: str, point: str, evidence: dict[str, Any], expected: tuple[str, str, str]
) -> None:
    assert said(detector, point, evidence) == expected, rule


def test_an_equipment_that_nobody_knows_gets_a_text_too() -> None:
    assert said("limit:high", "outlet", equipment="x") == ("medium", "检测到异常：limit:high", "Abnormal: limit:high")
    assert said("stale", "outlet", equipment="x") == ("low", "outlet长时间没有新数据", "outlet: no fresh reading")


def test_consequence_and_action_are_the_profiles() -> None:
    entry = CATALOGUE.describe(finding("b1", "outlet", "limit:high"))
    assert entry == Entry(
        Priority.HIGH,
        Words("出水温度高", "Outlet temperature high"),
        Words("汽化", "Steam"),
        Words("停炉", "Shut down"),
        "boiler",
    )


def test_every_alarm_of_every_profile_has_words_in_both_languages() -> None:
    names = known_profiles()
    for name in names:
        profile = load_profile(name)
        catalogue = Catalogue({"e": Known(profile, Words("e", "e"))})
        detectors = [
            *[(p, f"limit:{a}") for p, point in profile.points.items() for a in point.alarms],
            *[("", f"condition:{c}") for c in profile.conditions],
            *[("", f"code:{s}/{c}") for s, scheme in profile.schemes.items() for c in scheme.codes],
            *[(p, "level") for p, point in profile.points.items() if point.detectors],
        ]
        for point, detector in detectors:
            entry = catalogue.describe(finding("e", point, detector, evidence={"value": 1.0}))
            assert entry.text.zh, (name, point, detector)
            assert entry.text.en, (name, point, detector)
            assert not entry.text.en.startswith(("Unknown code", "Abnormal: ")), (name, point, detector)


def test_own_phrases_are_said_in_both_languages() -> None:
    own = [p for p in vars(phrases).values() if isinstance(p, Phrases)]
    assert len(own) >= 6
    for phrase in own:
        assert phrase.text.zh
        assert phrase.text.en
        for pair in (phrase.consequence, phrase.action):
            assert bool(pair.zh) == bool(pair.en)
