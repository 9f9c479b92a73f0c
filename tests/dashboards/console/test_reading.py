"""What the API answers of units, alarms, events and readings."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import httpx
import numpy as np
import pytest

from tests.dashboards.console.conftest import RunningConsole
from tests.dashboards.console.seed import Seed


def _ids(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [item["id"] for item in answer.json()["items"]]


def test_the_fleet_is_read_page_by_page_each_unit_once(api: httpx.Client) -> None:
    seen: list[str] = []
    cursor: str | None = None
    for _ in range(10):
        page = api.get("/api/v1/equipment", params={"limit": 5} | ({"cursor": cursor} if cursor else {})).json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert len(seen) == 22
    assert seen == sorted(set(seen))


def test_an_area_counts_with_all_areas_below_it(api: httpx.Client) -> None:
    assert len(_ids(api.get("/api/v1/equipment", params={"area": "minhang"}))) == 22
    street = _ids(api.get("/api/v1/equipment", params={"area": "qibao"}))
    assert 0 < len(street) < 22
    areas = {area["id"]: area["equipment"] for area in api.get("/api/v1/areas").json()["items"]}
    assert areas["minhang"] == 22
    assert areas["qibao"] == len(street)


def test_class_and_search_narrow_the_fleet(api: httpx.Client) -> None:
    assert set(_ids(api.get("/api/v1/equipment", params={"class": "boiler"}))) == {f"boiler-0{n}" for n in range(1, 5)}
    assert _ids(api.get("/api/v1/equipment", params={"q": "3 号热水"})) == ["boiler-03"]
    assert _ids(api.get("/api/v1/equipment", params={"q": "100%_"})) == []
    assert {c["id"]: c["equipment"] for c in api.get("/api/v1/classes").json()["items"]} == {
        "boiler": 4,
        "elevator": 12,
        "forklift": 6,
    }


def test_a_unit_says_where_it_is_whom_to_call_and_what_is_wrong(api: httpx.Client) -> None:
    detail = api.get("/api/v1/equipment/lift-0003").json()
    unit = detail["equipment"]
    assert unit["class"] == "elevator"
    assert unit["address"] == "莘松路 124 弄 4 号"
    assert unit["owner"]["phone"] == "021-5555 0100"
    assert unit["maintainer"]["name"] == {"zh": "安行电梯维保有限公司", "en": "Liftcare Maintenance"}
    assert unit["connection"] == "online"
    assert [alarm["id"] for alarm in detail["alarms"]] == ["a2"]
    assert unit["alarms"]["worst"]["id"] == "a2"
    codes = [(event["scheme"], event["code"], event["state"]) for event in detail["events"]]
    assert codes == [("gbt24476-2017", "4", "on"), ("gbt24476-2017", "43", "off"), ("gbt24476-2017", "43", "on")]
    assert detail["events"][0]["name"]["en"] == "Stopped outside the unlocking zone"


def test_points_come_in_the_profiles_order_with_unit_enum_and_limits(api: httpx.Client) -> None:
    points = api.get("/api/v1/equipment/boiler-01").json()["points"]
    assert [p["point"] for p in points[:3]] == ["demand_source", "outlet_temperature", "firing_rate"]
    outlet = points[1]
    assert (outlet["unit"], outlet["quality"]) == ("°C", "good")
    assert {(limit["name"], limit["limit"]) for limit in outlet["limits"]} == {("high", 90.0), ("high_high", 97.0)}
    state = next(p for p in points if p["enum"] and p["value"] is not None)
    assert state["text"] == state["enum"][str(int(state["value"]))]


def test_key_points_of_a_unit_begin_with_the_point_in_alarm(api: httpx.Client) -> None:
    unit = next(u for u in api.get("/api/v1/equipment").json()["items"] if u["id"] == "boiler-01")
    assert "outlet_temperature" in [p["point"] for p in unit["key_points"]]
    assert len(unit["key_points"]) == 4


def test_a_bad_reading_has_a_word_and_no_number(console: RunningConsole, api: httpx.Client) -> None:
    with console.database() as seed:
        _reading(seed, "boiler-03", "firing_rate", 55.0, quality=24)
        _reading(seed, "boiler-03", "fan_speed", float("inf"), quality=84)
    points = {p["point"]: p for p in api.get("/api/v1/equipment/boiler-03").json()["points"]}
    assert (points["firing_rate"]["value"], points["firing_rate"]["quality"]) == (None, "comms")
    assert (points["fan_speed"]["value"], points["fan_speed"]["quality"]) == (None, "out_of_range")


def test_the_latest_readings_are_paged_by_unit_and_point_each_once(console: RunningConsole, api: httpx.Client) -> None:
    with console.database() as seed:
        stored = seed.connection.execute("SELECT equipment, point FROM latest").fetchall()
    seen: list[tuple[str, str]] = []
    cursor: str | None = None
    while True:
        page = api.get("/api/v1/latest", params={"limit": 37} | ({"cursor": cursor} if cursor else {})).json()
        assert len(page["items"]) <= 37
        seen += [(item["equipment"], item["point"]) for item in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert seen == sorted(stored)
    assert len(seen) > 100


@pytest.mark.parametrize(
    ("query", "units"),
    [
        ({"class": "boiler"}, {"boiler-01", "boiler-02", "boiler-03", "boiler-04"}),
        ({"equipment": ["lift-0002", "boiler-01", "nobody"]}, {"lift-0002", "boiler-01"}),
        ({"area": "nowhere"}, set()),
    ],
)
def test_the_latest_readings_of_some_units_only(api: httpx.Client, query: dict[str, str], units: set[str]) -> None:
    answer = api.get("/api/v1/latest", params=query)
    assert answer.status_code == 200, answer.text
    assert {item["equipment"] for item in answer.json()["items"]} == units


def test_the_latest_readings_of_an_area_are_those_of_the_areas_below_it_too(api: httpx.Client) -> None:
    whole = {
        i["equipment"] for i in api.get("/api/v1/latest", params={"area": "minhang", "limit": 5000}).json()["items"]
    }
    street = {
        i["equipment"] for i in api.get("/api/v1/latest", params={"area": "qibao", "limit": 5000}).json()["items"]
    }
    assert len(whole) == 22
    assert set() < street < whole


def test_a_text_points_value_is_its_last_event(console: RunningConsole, api: httpx.Client) -> None:
    with console.database() as seed:
        seed.connection.execute(
            """INSERT INTO store.signal (name, equipment, point, name_hash, registered, kind, name_zh, name_en)
               VALUES ('boiler-02/firmware', 'boiler-02', 'firmware', 1, true, 'text', '固件', 'Firmware')"""
        )
        for value in ("1.0", "1.1"):
            seed.connection.execute(
                """INSERT INTO store.event (equipment, time, scheme, code, state, attributes, edge)
                   VALUES ('boiler-02', now(), 'text', 'firmware', 'on', %s, 'edge-1')""",
                (json.dumps({"value": value}),),
            )
    detail = api.get("/api/v1/equipment/boiler-02").json()
    assert next(p for p in detail["points"] if p["point"] == "firmware")["text"] == {"zh": "1.1", "en": "1.1"}
    assert detail["events"] == []


def test_a_unit_whose_edge_is_not_heard_is_silent_not_online(console: RunningConsole, api: httpx.Client) -> None:
    with console.database() as seed:
        seed.connection.execute(
            "INSERT INTO store.edge (edge, heartbeat, epoch) VALUES ('edge-2', now() - interval '2 minutes', 1)"
        )
        move = """UPDATE store.equipment_online SET edge = %s, heard = now() - interval '3 minutes'
                  WHERE equipment = 'lift-0012'"""
        seed.connection.execute(move, ("edge-2",))
        unit = api.get("/api/v1/equipment/lift-0012").json()["equipment"]
        seed.connection.execute(move, ("edge-1",))
    assert unit["connection"] == "silent"
    assert datetime.now(UTC) - datetime.fromisoformat(unit["since"]) > timedelta(seconds=110)


def test_active_alarms_come_newest_first_and_those_over_only_when_asked_for(api: httpx.Client) -> None:
    assert _ids(api.get("/api/v1/alarms", params={"state": "active"})) == ["a1", "a2", "a3", "a4"]
    assert _ids(api.get("/api/v1/alarms", params={"state": "all"}))[-1] == "a5"
    alarm = api.get("/api/v1/alarms").json()["items"][0]
    assert alarm["address"] == "七莘路 301 号锅炉房"
    assert alarm["maintainer"]["phone"] == "021-5555 0400"
    assert alarm["state"] == "unacknowledged"


def test_alarms_are_paged_in_order_each_once(api: httpx.Client) -> None:
    seen: list[str] = []
    cursor = ""
    while cursor is not None:
        query = {"state": "all", "limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = api.get("/api/v1/alarms", params=query).json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["next"]
    assert seen == ["a1", "a2", "a3", "a4", "a5"]


def test_an_alarm_tells_its_history(api: httpx.Client) -> None:
    history = api.get("/api/v1/alarms/a5").json()["history"]
    assert [h["transition"] for h in history] == ["raise", "acknowledge", "clear"]
    assert history[1]["actor"] == "李师傅"


def test_events_are_paged_newest_first(api: httpx.Client) -> None:
    first = api.get("/api/v1/events", params={"equipment": "lift-0003", "limit": 2}).json()
    rest = api.get("/api/v1/events", params={"equipment": "lift-0003", "limit": 2, "cursor": first["next"]}).json()
    times = [e["time"] for e in first["items"] + rest["items"]]
    assert len(times) == 3
    assert times == sorted(times, reverse=True)
    assert rest["next"] is None


def test_the_summary_counts_connections_and_active_alarms(api: httpx.Client) -> None:
    summary = api.get("/api/v1/summary").json()
    assert summary["equipment"] == sum(summary["connections"].values()) == 22
    assert summary["connections"]["offline"] == 1
    assert summary["alarms"] == {"critical": 1, "high": 1, "medium": 1, "low": 1}
    assert summary["unacknowledged"] == 3


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/api/v1/equipment/nobody", 404, "unknown-equipment"),
        ("/api/v1/equipment/nobody/samples?point=x", 404, "unknown-equipment"),
        ("/api/v1/equipment/lift-0001/samples?point=nothing", 404, "unknown-point"),
        ("/api/v1/equipment/lift-0001/samples?point=speed&from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", 422, ""),
        ("/api/v1/equipment/lift-0001/samples?point=speed&from=2026-01-02T00:00:00", 422, "invalid-request"),
        ("/api/v1/equipment?cursor=garbage", 422, "invalid-request"),
        ("/api/v1/latest?cursor=WzEsMl0", 422, "invalid-request"),
        ("/api/v1/latest?limit=5001", 422, "invalid-request"),
        ("/api/v1/alarms?state=open", 422, "invalid-request"),
        ("/api/v1/alarms?cursor=WzEsMl0", 422, "invalid-request"),
        ("/api/v1/alarms/none", 404, "unknown-alarm"),
        ("/api/v1/nothing", 404, "not-found"),
        ("/api/v1/equipment?q=%00", 200, ""),
        ("/api/v1/equipment/LIFT%00", 422, "invalid-request"),
    ],
)
def test_a_bad_request_is_told_as_a_problem(api: httpx.Client, path: str, status: int, code: str) -> None:
    answer = api.get(path)
    assert answer.status_code == status, answer.text
    if status != 200:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == status
        assert code in answer.json()["code"]


START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def spiky(console: RunningConsole) -> list[tuple[datetime, float | None, int]]:
    """Ten thousand readings with spikes, a gap and bad ones, stored for boiler-04/return_temperature."""
    random = np.random.default_rng(5)
    values = random.normal(60, 1, 10_000)
    values[random.integers(0, 10_000, 20)] += random.choice([-40, 40], 20)
    rows: list[tuple[datetime, float | None, int]] = [
        (START + timedelta(seconds=i), float(v), 192) for i, v in enumerate(values) if not 4000 <= i < 6000
    ]
    rows[1000:1010] = [(time, None, 24) for time, _, _ in rows[1000:1010]]
    with console.database() as seed:
        seed.connection.execute("SELECT store.ensure_sample_partitions(%s, %s)", (START, START + timedelta(hours=3)))
        row = seed.connection.execute(
            "SELECT signal_id FROM store.signal WHERE name = 'boiler-04/fan_speed'"
        ).fetchone()
        assert row is not None
        with seed.connection.cursor().copy("COPY store.sample (signal_id, time, value, quality) FROM STDIN") as copy:
            for line in rows:
                copy.write_row((row[0], *line))
    return rows


def _samples(api: httpx.Client, **query: object) -> dict[str, object]:
    asked = {"point": "fan_speed", "from": START.isoformat(), "to": (START + timedelta(hours=3)).isoformat()}
    answer = api.get("/api/v1/equipment/boiler-04/samples", params=asked | {k: str(v) for k, v in query.items()})
    assert answer.status_code == 200, answer.text
    content: dict[str, object] = answer.json()
    return content


def test_thinned_readings_keep_every_buckets_extremes(
    api: httpx.Client, spiky: list[tuple[datetime, float | None, int]]
) -> None:
    answer = _samples(api, max_points=300)
    items, bucket_s = answer["items"], answer["bucket_s"]
    assert isinstance(items, list)
    assert isinstance(bucket_s, float)
    assert 6 < len(items) <= 300
    kept = {(datetime.fromisoformat(i["time"]), i["value"]) for i in items if i["value"] is not None}
    buckets: dict[int, list[tuple[float, datetime]]] = {}
    for time, value, _ in spiky:  # the oracle, in plain loops
        if value is not None:
            buckets.setdefault(int((time - START).total_seconds() // bucket_s), []).append((value, time))
    for bucket in buckets.values():
        assert (min(bucket)[1], min(bucket)[0]) in kept
        assert max(value for value, _ in bucket) in {value for _, value in kept}
    assert kept <= {(time, value) for time, value, _ in spiky}
    times = [i["time"] for i in items]
    assert times == sorted(times)


def test_thinning_fills_no_gap_and_shows_what_was_not_read_or_is_bad_as_null(
    api: httpx.Client, spiky: list[tuple[datetime, float | None, int]]
) -> None:
    answer = _samples(api, max_points=300)
    items, bucket_s = answer["items"], answer["bucket_s"]
    assert isinstance(items, list)
    assert isinstance(bucket_s, float)
    seconds = [(datetime.fromisoformat(i["time"]) - START).total_seconds() for i in items]
    ((at, item),) = [(s, i) for s, i in zip(seconds, items, strict=True) if 4000 <= s < 6000]
    assert at == pytest.approx((4000 // bucket_s + 1) * bucket_s)
    assert (item["value"], item["quality"]) == (None, "no_reading")
    assert [i["quality"] for i in items if i["value"] is None] == ["comms", "no_reading"]


def test_few_readings_come_as_they_are(api: httpx.Client, spiky: list[tuple[datetime, float | None, int]]) -> None:
    answer = _samples(api, max_points=500, to=(START + timedelta(seconds=100)).isoformat())
    assert answer["bucket_s"] is None
    assert isinstance(answer["items"], list)
    assert [i["value"] for i in answer["items"]] == [value for _, value, _ in spiky[:100]]


def test_raw_readings_are_paged_each_once(
    console: RunningConsole, api: httpx.Client, spiky: list[tuple[datetime, float | None, int]]
) -> None:
    values: list[float | None] = []
    cursor = ""
    while cursor is not None:
        answer = _samples(api, limit=3000, **({"cursor": cursor} if cursor else {}))
        assert isinstance(answer["items"], list)
        values += [i["value"] for i in answer["items"]]
        cursor = answer["next"]  # type: ignore[assignment]
    assert values == [value for _, value, _ in spiky]


def test_readings_of_one_moment_are_paged_too(console: RunningConsole, api: httpx.Client) -> None:
    moment = START + timedelta(days=-1)
    with console.database() as seed:
        seed.connection.execute("SELECT store.ensure_sample_partitions(%s, %s)", (moment, moment))
        seed.connection.execute(
            """INSERT INTO store.sample (signal_id, time, value, quality)
               SELECT (SELECT signal_id FROM store.signal WHERE name = 'boiler-04/fan_speed'), %s, n, 192
               FROM generate_series(1, 7) n""",
            (moment,),
        )
    values: list[float] = []
    cursor: object = ""
    while cursor is not None:
        query = {"from": moment.isoformat(), "to": START.isoformat(), "limit": 2} | (
            {"cursor": cursor} if cursor else {}
        )
        answer = _samples(api, **query)
        assert isinstance(answer["items"], list)
        values += [i["value"] for i in answer["items"]]
        cursor = answer["next"]
    assert values == [1, 2, 3, 4, 5, 6, 7]


def _reading(seed: Seed, equipment: str, point: str, value: float, *, quality: int) -> None:
    row = seed.connection.execute(
        "SELECT signal_id FROM store.signal WHERE name = %s", (f"{equipment}/{point}",)
    ).fetchone()
    assert row is not None
    seed.latest(row[0], value, quality=quality)
