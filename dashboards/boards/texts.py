"""Every text of the boards, once, in both languages. A key that is missing in one is an error at build time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Lang = Literal["zh", "en"]
LANGS: Final[tuple[Lang, ...]] = ("zh", "en")

TEXTS: Final[dict[str, tuple[str, str]]] = {
    # words of data
    "critical": ("危急", "critical"),
    "high": ("高", "high"),
    "medium": ("中", "medium"),
    "low": ("低", "low"),
    "unacknowledged": ("未确认", "unacknowledged"),
    "acknowledged": ("已确认", "acknowledged"),
    "returned_unacknowledged": ("已恢复未确认", "returned, unacknowledged"),
    "normal": ("已关闭", "closed"),
    "online": ("在线", "online"),
    "offline": ("离线", "offline"),
    "unknown": ("未知", "unknown"),
    "yes": ("是", "yes"),
    "no": ("否", "no"),
    "none": ("（没有设备）", "(no equipment)"),
    "no_area": ("未分区", "no area"),
    "good": ("好", "good"),
    "uncertain": ("可疑", "uncertain"),
    "bad": ("坏", "bad"),
    "limit": ("限值", "limit"),
    "on": ("发生", "on"),
    "off": ("结束", "off"),
    # columns
    "area": ("区域", "Area"),
    "class": ("类别", "Class"),
    "unit": ("设备", "Unit"),
    "priority": ("等级", "Priority"),
    "state": ("状态", "State"),
    "alarm": ("报警", "Alarm"),
    "action": ("处置", "What to do"),
    "since": ("开始", "Since"),
    "for": ("已持续", "For"),
    "address": ("地址", "Address"),
    "maintainer": ("维保单位", "Maintainer"),
    "owner": ("产权单位", "Owner"),
    "user": ("使用单位", "User"),
    "phone": ("电话", "Phone"),
    "units": ("台数", "Units"),
    "online_rate": ("在线率", "Online rate"),
    "alarms": ("报警数", "Alarms"),
    "active": ("当前报警", "Active now"),
    "late": ("超时未确认", "Late"),
    "within": ("30 分钟内确认率", "Within 30 min"),
    "to_acknowledge": ("确认用时（中位）", "Median to ack."),
    "to_clear": ("恢复用时（中位）", "Median to clear"),
    "this_period": ("本期", "this period"),
    "previous_period": ("上一同长时期", "the period before"),
    "target": ("目标线", "target"),
    "registration": ("注册代码", "Registration"),
    "model": ("型号", "Model"),
    "profile": ("设备档案", "Profile"),
    "connection": ("通信", "Connection"),
    "time": ("时间", "Time"),
    "point": ("测点", "Point"),
    "value": ("值", "Value"),
    "measure": ("单位", "Unit of measure"),
    "field": ("项目", "Field"),
    "quality": ("质量", "Quality"),
    "increase": ("本期增量", "Increase"),
    "code": ("代码", "Code"),
    "scheme": ("代码体系", "Scheme"),
    "acknowledged_by": ("确认人", "Acknowledged by"),
    "note": ("备注", "Note"),
    "cleared": ("恢复", "Cleared"),
    # groups of points, as the profiles name them
    "group.burner": ("燃烧器", "burner"),
    "group.combustion": ("燃烧", "combustion"),
    "group.door": ("门", "door"),
    "group.driver": ("司机", "driver"),
    "group.electrical": ("电气", "electrical"),
    "group.energy": ("能源", "energy"),
    "group.environment": ("环境", "environment"),
    "group.hydraulic": ("液压", "hydraulic"),
    "group.load": ("载荷", "load"),
    "group.main": ("主要测点", "main points"),
    "group.motion": ("运行", "motion"),
    "group.position": ("位置", "position"),
    "group.safety": ("安全", "safety"),
    "group.state": ("状态", "state"),
    "group.statistics": ("统计", "statistics"),
    "group.surroundings": ("周边", "surroundings"),
    "group.temperature": ("温度", "temperature"),
    "group.vibration": ("振动", "vibration"),
    # links
    "open_unit": ("查看设备", "Open the unit"),
    "open_fleet": ("查看该区域设备", "Open the area's fleet"),
    "call": ("拨打", "Call"),
    # boards. Grafana up to 9 tells boards and folders apart by what is Latin in their titles, so that all Chinese ones
    # with Vigil in them would be the folder Vigil again.
    "supervision.board": ("监管看板", "Vigil · Supervision"),
    "fleet.board": ("设备看板", "Vigil · Fleet"),
    "unit.board": ("单台设备看板", "Vigil · Unit"),
    # supervision
    "supervision.title": ("监管看板", "Supervision"),
    "supervision.now": ("现在", "Now"),
    "supervision.where": ("哪里最差", "Where it is worst"),
    "supervision.who": ("谁慢了", "Who is late"),
    "supervision.trend": ("是否好转", "Is it getting better"),
    "supervision.online": ("在线率（现在）", "Online rate (now)"),
    "supervision.online.d": ("现在能联系上的在用设备占比", "Share of equipment in use that can be reached now"),
    "supervision.active": ("当前报警（起）", "Active alarms (now)"),
    "supervision.active.d": ("现在未关闭且未恢复的报警数", "Alarms whose condition holds now"),
    "supervision.critical": ("其中危急（起）", "Of them critical (now)"),
    "supervision.critical.d": ("现在危急等级的报警数", "Active alarms of priority critical"),
    "supervision.late": ("超过 30 分钟无人确认（起）", "Unacknowledged > 30 min (now)"),
    "supervision.late.d": ("报警超过 30 分钟仍无人确认", "Alarms that nobody acknowledged for more than 30 minutes"),
    "supervision.areas": ("各区域（本期）", "Area by area (this period)"),
    "supervision.areas.d": (
        "超时未确认：超过 30 分钟无人确认；在线率为本期时间加权；30 分钟内确认率与确认用时中位数按本期发生的报警计算",
        "Late: nobody acknowledged for 30 minutes. Online rate weighted by time over the period. Share acknowledged within "
        "30 minutes and median time to acknowledge: of alarms raised in the period",
    ),
    "supervision.by_class": ("按类别和等级的报警（本期）", "Alarms by class and priority (this period)"),
    "supervision.by_area": ("按区域和等级的报警（本期）", "Alarms by area and priority (this period)"),
    "supervision.count.d": ("本期发生的报警数", "Alarms raised in the period"),
    "supervision.worst": ("最差设备（本期前 20）", "Worst units (20 of this period)"),
    "supervision.worst.d": ("按本期报警数排序", "By alarms raised in the period"),
    "supervision.maintainers": ("维保单位（本期）", "Maintainers (this period)"),
    "supervision.users": ("使用单位（本期）", "Use units (this period)"),
    "supervision.companies.d": (
        "报警按发生时的单位计；30 分钟内确认率为本期发生的报警",
        "Alarms count for whoever stood for the unit when they were raised",
    ),
    "supervision.daily": ("每日报警数，与上期和目标比较", "Alarms a day, against the period before and the target"),
    "supervision.daily.d": (
        "目标线为变量“每日目标”；上一同长时期按日对齐",
        "The target is the variable of that name; the period before is aligned day by day",
    ),
    "supervision.empty.areas": ("没有登记的设备", "No equipment is registered"),
    "supervision.empty.alarms": ("本期没有报警", "No alarm was raised in this period"),
    "supervision.target": ("每日目标（报警数）", "Daily target (alarms)"),
    "supervision.timezone": ("日界时区", "Time zone of the days"),
    # fleet
    "fleet.title": ("设备看板", "Fleet"),
    "fleet.now": ("现在的报警与设备", "Alarms and units now"),
    "fleet.now.d": (
        "未确认：还没有人确认的报警；持续中：条件仍然成立的报警；离线与总数：登记且在用的设备",
        "Unacknowledged: alarms that nobody has acknowledged; active: alarms whose condition still holds; "
        "offline and all: units registered and not retired",
    ),
    "fleet.faults": ("现在的故障（最急 200 条）", "Live faults (the 200 most urgent)"),
    "fleet.faults.d": ("未关闭的报警，先危急后时间", "Alarms not yet closed, most urgent first, then newest"),
    "fleet.empty.faults": ("没有未关闭的报警", "No open alarm"),
    "fleet.offline": ("联系不上的设备", "Units that cannot be reached"),
    "fleet.offline.d": ("最近一次心跳时没有应答的设备", "Units that did not answer at the last heartbeat"),
    "fleet.empty.offline": ("没有联系不上的设备", "No unit is out of reach"),
    "fleet.open": ("未确认：", "Unacknowledged:"),
    "fleet.active": ("持续中：", "Active:"),
    "fleet.offline_count": ("离线：", "Offline:"),
    "fleet.total": ("总数：", "All units:"),
    # unit
    "unit.title": ("单台设备", "Unit"),
    "unit.card": ("设备卡", "Identity"),
    "unit.card.d": ("今天的登记信息", "The register as of today"),
    "unit.values": ("数值与限值", "Values and limits"),
    "unit.values.d": (
        "2 小时以内为原始读数，2 天以内为每分钟均值，更长为每小时均值；虚线为报警限值",
        "Raw readings up to 2 hours, means of a minute up to 2 days, of an hour beyond; dashed: alarm limits",
    ),
    "unit.empty.values": ("本期没有读数", "No reading in this period"),
    "unit.states": ("状态", "States"),
    "unit.states.d": (
        "6 小时以内为每次变化，更长为每分钟末的状态；空白处没有有效读数",
        "Each change up to 6 hours, the state at the end of each minute beyond; a gap has no valid reading",
    ),
    "unit.details": ("计数器、事件、原始读数", "Counters, events, raw readings"),
    "unit.counters": ("计数器", "Counters"),
    "unit.counters.d": ("最新值与本期增量", "Newest value, and how much it grew in the period"),
    "unit.empty.counters": ("该设备没有计数器", "This unit has no counter"),
    "unit.alarms": ("报警（本期）", "Alarms (this period)"),
    "unit.alarms.d": ("本期发生或仍未关闭的报警", "Raised in the period, or still open"),
    "unit.empty.alarms": ("本期没有报警", "No alarm in this period"),
    "unit.events": ("事件（本期，最近 200 条）", "Events (this period, the last 200)"),
    "unit.events.d": ("设备报告的代码", "Codes that the unit reported"),
    "unit.empty.events": ("本期没有事件", "No event in this period"),
    "unit.raw": ("原始读数（本期，最近 500 条）", "Raw readings (this period, the last 500)"),
    "unit.raw.d": ("读到的值，未舍入", "As read, not rounded"),
    "unit.no_values": ("没有测量值", "No measured point"),
    "unit.no_states": ("没有状态测点", "No state point"),
    "unit.group": ("分组", "Group"),
    "unit.state": ("状态测点", "State point"),
    "unit.empty.unit": ("没有这台设备", "No such unit"),
    "annotation.alarms": ("报警", "Alarms"),
    "annotation.events": ("事件", "Events"),
}


@dataclass(frozen=True, slots=True)
class Texts:
    """The texts of one language."""

    lang: Lang

    def __call__(self, key: str) -> str:
        """The text of a key. Raises KeyError for one that does not exist."""
        return TEXTS[key][LANGS.index(self.lang)]

    def column(self, key: str) -> str:
        """A column's name, quoted for SQL."""
        return '"' + self(key).replace('"', '""') + '"'

    def case(self, expression: str, *keys: str) -> str:
        """SQL that says a column's code in words; an unknown code says itself."""
        whens = " ".join(f"WHEN '{key}' THEN '{self.literal(key)}'" for key in keys)
        return f"CASE {expression} {whens} ELSE {expression} END"

    def group_case(self, expression: str) -> str:
        """SQL that says a group of points in words; one that is not known says itself."""
        names = [key.removeprefix("group.") for key in TEXTS if key.startswith("group.")]
        whens = " ".join(f"WHEN '{name}' THEN '{self.literal(f'group.{name}')}'" for name in names)
        return f"CASE {expression} {whens} ELSE {expression} END"

    def literal(self, key: str) -> str:
        """A text as the inside of an SQL string."""
        return self(key).replace("'", "''")
