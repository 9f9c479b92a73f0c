"""What the table holds of the soak's devices, as arrays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg

from tests.soak.layout import Place, check
from tests.soak.traced import Floats, Given, Stored, Traced, falls
from tests.soak.world import World


def trace(world: World, file: Path) -> tuple[Traced, Traced, int]:
    """(Modbus, MQTT, totals that went back), from what the fleet reported into `file` and what the table holds.

    The table's rows are kept beside `file`, for who wants to look.
    """
    given = np.load(file)
    modbus, mqtt, totals = Traced(), Traced(), {}
    kept: dict[str, npt.NDArray[Any]] = {}
    with psycopg.connect(world.store.url) as connection:
        for place in world.found:
            blocks = ("a",) if place.kind == "mqtt" else ("a", "b")
            for block in blocks:
                of = f"{place.name}/{block}"
                said = Given(*(given[f"{of}/{array}"] for array in ("at_s", "status", "again")))
                held = _stored(connection, place, block)
                kept |= {f"{of}/{array}": getattr(held, array) for array in ("number", "check", "at_s", "bad_s")}
                checks = _checks(place, len(said.status))
                if place.kind == "mqtt":  # acknowledged by the broker: whatever failed is no excuse
                    mqtt.add(of, said, held, checks, ())
                else:
                    why = [e for e in world.excuses if e.name in ("", place.name)]
                    named = [type(e)(e.begin_s, e.end_s, "", e.why) for e in why]
                    modbus.add(of, said, held, checks, named)
            if place.kind != "mqtt":
                totals[place.name] = np.array(
                    [v for _, v, _ in _rows(connection, place.name, "total") if v is not None]
                )
    np.savez(file.with_name("stored.npz"), **kept)  # type: ignore[arg-type, unused-ignore]
    return modbus, mqtt, falls(totals)


def all_well(url: str, found: list[Place], silent: int) -> bool:
    """Whether the newest reading of every point is good and young, but for devices that never answer."""
    statement = """
        SELECT count(DISTINCT equipment) FROM latest
        WHERE point IN ('a', 'b', 'a_check', 'b_check', 'b_more') AND (quality < 192 OR time < now() - interval '10 seconds')
    """
    try:
        with psycopg.connect(url, connect_timeout=2) as connection:
            row = connection.execute(statement).fetchone()
            devices = connection.execute("SELECT count(DISTINCT equipment) FROM latest WHERE point = 'a'").fetchone()
    except psycopg.Error:
        return False
    assert row is not None
    assert devices is not None
    return int(row[0]) == silent and int(devices[0]) == len(found)


def _stored(connection: psycopg.Connection, place: Place, block: str) -> Stored:
    checks = {at_s: value for at_s, value, _ in _rows(connection, place.name, f"{block}_check") if value is not None}
    number, check_of, good_s, bad_s = [], [], [], []
    for at_s, value, quality in _rows(connection, place.name, block):
        if value is None or quality < 64:
            bad_s.append(at_s)
        else:
            number.append(value)
            check_of.append(checks.get(at_s, -1))
            good_s.append(at_s)
    times = (np.array(times, np.float64) for times in (good_s, bad_s))
    return Stored(np.array(number, np.int64), np.array(check_of, np.int64), *times)


def _rows(connection: psycopg.Connection, equipment: str, point: str) -> Iterator[tuple[float, float | None, int]]:
    """(time, value, quality) by time."""
    yield from connection.execute(
        "SELECT extract(epoch FROM time)::float8, value, quality FROM samples WHERE equipment = %s AND point = %s "
        "ORDER BY time",
        (equipment, point),
    ).fetchall()


def _checks(place: Place, numbers: int) -> npt.NDArray[np.int64]:
    return np.array([check(number, place.index) for number in range(1, numbers + 1)], np.int64)


__all__ = ["Floats", "all_well", "trace"]
