"""Feeds are read exactly, and every mistake in one is told with its line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from simulators.feeds import parse_time, read_feed, write_feed
from telemetry.errors import ConfigError
from telemetry.files import load_profile
from tests.fixtures.parts import missing, used

PUMP = load_profile("pump-testbed")
DOOR = load_profile("lift-door")
DATA = Path(__file__).parents[3] / "shared/data"
T0 = 1_583_748_873_000_000
"""2020-03-09T10:14:33Z"""


def feed(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "feed.csv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2020-03-09T10:14:33Z", T0),
        ("2020-03-09T18:14:33+08:00", T0),
        ("2020-03-09 10:14:33.000001+00:00", T0 + 1),
        ("1583748873", T0),
        ("1583748873.5", T0 + 500_000),
        ("1583748873000", T0),
        ("1583748873000001", T0 + 1),
    ],
)
def test_times_of_every_promised_form_are_read(text: str, expected: int) -> None:
    assert parse_time(text) == expected


def test_values_are_those_of_the_file_and_empty_cells_are_no_reading(tmp_path: Path) -> None:
    read = read_feed(feed(tmp_path, "time,pressure,current\n1583748873,0.1,\n1583748874,,-1e-7\n1583748875,,\n"), PUMP)
    assert read.points == ("pressure", "current")
    assert read.time_us.tolist() == [T0, T0 + 1_000_000, T0 + 2_000_000]
    np.testing.assert_array_equal(read.values, [[0.1, np.nan], [np.nan, -1e-7], [np.nan, np.nan]])
    assert [read.row(i) for i in range(3)] == [{"pressure": 0.1}, {"current": -1e-7}, {}]
    assert read.empty == 1


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_delimiter_is_that_of_the_header(tmp_path: Path, delimiter: str) -> None:
    text = "\n".join(delimiter.join(cells) for cells in (("time", "pressure", "current"), ("1583748873", "1", "2")))
    assert read_feed(feed(tmp_path, text), PUMP).values.tolist() == [[1.0, 2.0]]


def test_a_skab_file_is_a_feed_by_the_profiles_columns_and_its_labels_are_not_read(tmp_path: Path) -> None:
    text = (
        "datetime;Accelerometer1RMS;Accelerometer2RMS;Current;Pressure;Temperature;Thermocouple;Voltage;"
        "Volume Flow RateRMS;anomaly;changepoint\n"
        "2020-03-09 10:14:33;0.0265878;0.0401113;1.3302;0.054711;79.3366;26.0199;233.062;32.0;0.0;0.0\n"
    )
    read = read_feed(feed(tmp_path, text), PUMP)
    assert read.time_us.tolist() == [T0]
    assert set(read.points) == set(PUMP.points)
    assert read.row(0)["volume_flow_rms"] == 32.0


def test_the_door_file_without_times_runs_at_four_hertz_and_its_spoiled_cells_are_no_readings(tmp_path: Path) -> None:
    read = read_feed(feed(tmp_path, "ball-bearing;humidity;vibration\n93.7;73.9;18\n93.6;73.8;18. 00\n"), DOOR)
    assert np.diff(read.time_us).tolist() == [250_000]
    assert read.row(1) == {"ball_bearing": 93.6, "humidity": 73.8}
    assert read.unreadable == 1


def test_texts_are_carried_as_texts(tmp_path: Path) -> None:
    read = read_feed(
        feed(tmp_path, "time,driver,speed\n1583748873,王建国,3\n1583748874,,4\n"), load_profile("forklift-terminal")
    )
    assert [read.row(i) for i in range(2)] == [{"speed": 3.0, "driver": "王建国"}, {"speed": 4.0}]


def test_every_mistake_of_a_file_is_told_at_once_with_its_line(tmp_path: Path) -> None:
    path = feed(
        tmp_path,
        "time,pressure,presure\n"
        "2020-03-09T10:14:33,1,2\n"
        "1583748873,high,2\n"
        "1583748872,1,2\n"
        "1583748874,1\n"
        "1583748875,inf,2\n",
    )
    with pytest.raises(ConfigError) as raised:
        read_feed(path, PUMP)
    assert [str(fault).removeprefix(f"{path}:") for fault in raised.value.faults] == [
        "1: presure: expected a point of profile pump-testbed, found 'presure'",
        "2: time: expected ISO 8601 with an offset, or epoch s, ms or µs, found '2020-03-09T10:14:33'",
        "3: pressure: expected a number, or nothing, found 'high'",
        "4: time: expected a time not before that of the row above, found 1583748872",
        "5: (row): expected 3 cells, found 2",
        "6: pressure: expected a number, or nothing, found 'inf'",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected a header that begins with time, found nothing"),
        ("time,pressure\n", "expected at least one row of readings, found none"),
        ("pressure,time\n1,2\n", "expected time as the first column, found 'pressure'"),
    ],
)
def test_a_file_that_is_no_feed_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_feed(feed(tmp_path, text), PUMP)


def test_of_a_file_without_a_feeds_header_only_the_header_is_blamed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        read_feed(feed(tmp_path, "# A document\nwith many\nlines\n"), PUMP)
    assert [fault.line for fault in raised.value.faults] == [1]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.csv:1: \(file\): expected a CSV file that can be read"):
        read_feed(tmp_path / "nowhere.csv", PUMP)


def test_what_is_written_is_read_back_to_the_last_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=(50, 2)) * 10.0 ** rng.integers(-300, 300, (50, 2))
    values[3, 0] = np.nan
    times = T0 + np.arange(50) * 1_000_001
    path = tmp_path / "out.csv"
    assert write_feed(path, ("pressure", "current"), zip(times.tolist(), values.tolist(), strict=True)) == 50
    read = read_feed(path, PUMP)
    np.testing.assert_array_equal(read.values, values)
    np.testing.assert_array_equal(read.time_us, times)


def test_the_recorded_sets_are_feeds_whole() -> None:
    if not DATA.is_dir():
        missing("recorded feeds", not_tried="reading the recorded sets whole", how=str(DATA), obtainable=False)
    used("recorded feeds", str(DATA))
    door = read_feed(DATA / "elevator/elevator-4hz.csv", DOOR)
    assert (len(door), door.empty) == (112_001, 0)
    assert door.unreadable == np.isnan(door.values).sum() == 5_777
    pumps = [read_feed(path, PUMP) for path in sorted((DATA / "skab").glob("*/*.csv"))]
    assert sum(map(len, pumps)) == 46_806
    assert all(set(read.points) == set(PUMP.points) and read.empty == read.unreadable == 0 for read in pumps)
