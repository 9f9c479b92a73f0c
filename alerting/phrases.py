"""What alarms of Vigil's own detectors say to people, in both languages: one source, as a profile is for its limits.

`{point}`, `{edge}`, `{scheme}`, `{code}` and `{detector}` are filled in by alerting.catalogue.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from telemetry.profile import Priority, Text


@dataclass(frozen=True, slots=True)
class Words:
    """A text in both languages; empty where there is nothing to say."""

    zh: str
    en: str


@dataclass(frozen=True, slots=True)
class Phrases:
    """What is said of an alarm."""

    priority: Priority
    text: Words
    consequence: Words
    action: Words


def words(text: Text | None) -> Words:
    """A profile's text."""
    return Words(text.zh, text.en) if text else NOTHING


NOTHING: Final = Words("", "")

STALE: Final = Phrases(
    Priority.LOW,
    Words(zh="{point}长时间没有新数据", en="{point}: no fresh reading"),
    Words(zh="该测点失去监视。", en="This point is not being watched."),
    Words(zh="检查传感器、接线及设备的上报设置。", en="Check the sensor, its wiring and the device's reporting."),
)
COMMS_LOSS: Final = Phrases(
    Priority.MEDIUM,
    Words(zh="设备通信中断", en="The equipment does not answer"),
    Words(
        zh="设备失去监视，其故障和报警收不到。",
        en="The equipment is not being watched; its faults and alarms do not arrive.",
    ),
    Words(zh="检查设备电源、网络和监测终端。", en="Check the equipment's power, network and monitoring terminal."),
)
EDGE_SILENT: Final = Phrases(
    Priority.HIGH,
    Words(zh="采集网关 {edge} 没有心跳", en="Edge {edge} is silent"),
    Words(
        zh="该网关下的全部设备失去监视。",
        en="None of the equipment behind this edge is being watched.",
    ),
    Words(zh="检查网关电源、网络和采集服务。", en="Check the edge's power, network and service."),
)
LEVEL: Final = Phrases(
    Priority.LOW,
    Words(zh="{point}偏离常态水平", en="{point} is away from its usual level"),
    Words(zh="可能是早期故障的征兆。", en="It may be an early sign of a fault."),
    Words(zh="对照近期趋势，必要时安排检查。", en="Compare with the recent trend; arrange a check if it persists."),
)
UNKNOWN_CODE: Final = Phrases(
    Priority.MEDIUM,
    Words(zh="未知代码 {code}（方案 {scheme}）", en="Unknown code {code} of scheme {scheme}"),
    Words(zh="含义未知，应按故障对待。", en="Its meaning is unknown: treat it as a fault."),
    Words(zh="查阅设备手册，并在配置中补充该代码。", en="Look it up in the device's manual and add it to the profile."),
)
UNKNOWN_DETECTOR: Final = Phrases(
    Priority.MEDIUM,
    Words(zh="检测到异常：{detector}", en="Abnormal: {detector}"),
    NOTHING,
    Words(zh="查看该设备的数据。", en="Look at the equipment's data."),
)
CODE_IN_BRACKETS: Final = Words(zh="（{scheme} 代码 {code}）", en=" ({scheme} code {code})")
VALUE_IN_BRACKETS: Final = Words(zh="（{point} {value}）", en=" ({point} {value})")
VALUE_AND_LIMIT_IN_BRACKETS: Final = Words(
    zh="（{point} {value}，限值 {limit}）", en=" ({point} {value}, limit {limit})"
)
