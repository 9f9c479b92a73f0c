"""Columns that travel as binary arrays arrive as the values that they are, on a real PostgreSQL."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from typing import Any, LiteralString

import numpy as np
import psycopg
import pytest
from psycopg import sql

from telemetry.pg_array import EPOCH_2000_US, Float8s, Int2s, Int4s, Int8s, PgArray, Times
from telemetry.settings import Settings
from telemetry.store import OWNER, connect
from tests.fixtures.store import StoreServer

Connection = psycopg.AsyncConnection[Any]
KINDS: list[tuple[type[PgArray], LiteralString, np.ndarray[Any, Any]]] = [
    (Int2s, "smallint", np.array([-(2**15), -1, 0, 1, 2**15 - 1], np.int16)),
    (Int2s, "smallint", np.array([0, 192, 255], np.uint8)),
    (Int4s, "integer", np.array([-(2**31), -1, 0, 1, 2**31 - 1], np.int32)),
    (Int8s, "bigint", np.array([-(2**63), -1, 0, 1, 2**63 - 1], np.int64)),
    (Float8s, "float8", np.array([-math.inf, -1.7976931348623157e308, -0.0, 5e-324, 0.1, math.inf])),
]


@pytest.fixture
async def connection(plain_server: StoreServer) -> AsyncIterator[Connection]:
    async with await connect(Settings(store=plain_server.url), OWNER, autocommit=True) as found:
        yield found


async def back(connection: Connection, sent: PgArray, element: LiteralString) -> list[Any]:
    """What the server has, one by one, as it says it."""
    statement = sql.SQL("SELECT v FROM unnest(%s::{}[]) WITH ORDINALITY AS u(v, n) ORDER BY n")
    cursor = await connection.execute(statement.format(sql.SQL(element)), (sent,))
    return [value for (value,) in await cursor.fetchall()]


@pytest.mark.parametrize(("kind", "element", "values"), KINDS)
async def test_values_of_every_kind_arrive_with_their_extremes(
    connection: Connection, kind: type[PgArray], element: LiteralString, values: np.ndarray[Any, Any]
) -> None:
    assert list(map(repr, await back(connection, kind(values), element))) == list(map(repr, values.tolist()))


@pytest.mark.parametrize(("kind", "element", "values"), KINDS)
async def test_what_is_absent_is_null_and_nothing_else(
    connection: Connection, kind: type[PgArray], element: LiteralString, values: np.ndarray[Any, Any]
) -> None:
    for absent in (np.zeros(len(values), np.bool_), np.arange(len(values)) % 2 == 0, np.ones(len(values), np.bool_)):
        expected = [None if gone else value for gone, value in zip(absent, values.tolist(), strict=True)]
        assert await back(connection, kind(values, absent), element) == expected


@pytest.mark.parametrize(("kind", "element", "values"), [*KINDS, (Times, "timestamptz", np.empty(0, np.int64))])
async def test_an_array_may_be_empty(
    connection: Connection, kind: type[PgArray], element: LiteralString, values: np.ndarray[Any, Any]
) -> None:
    assert await back(connection, kind(values[:0]), element) == []
    assert await back(connection, kind(values[:0], np.empty(0, np.bool_)), element) == []


async def test_times_are_counted_from_1970_to_the_microsecond(connection: Connection) -> None:
    times = np.array(
        [-210_866_803_200_000_000, -1, 0, 1, EPOCH_2000_US, 1_800_000_000_123_456, 253_370_764_800_000_000]
    )
    cursor = await connection.execute(
        "SELECT (extract(epoch FROM v) * 1000000)::bigint FROM unnest(%s) WITH ORDINALITY AS u(v, n) ORDER BY n",
        (Times(times),),
    )
    assert [at for (at,) in await cursor.fetchall()] == times.tolist()
    cursor = await connection.execute(
        "SELECT %s = ARRAY[NULL, '1969-12-31 23:59:59.999999+00'::timestamptz]",
        (Times(times[:2], np.array([True, False])),),
    )
    assert await cursor.fetchone() == (True,)


async def test_many_rows_of_several_arrays_stay_together(connection: Connection) -> None:
    n = 100_000
    numbers = np.arange(n, dtype=np.int32)
    columns = (
        Int4s(numbers),
        Int8s(numbers.astype(np.int64)),
        Float8s(numbers + 0.5),
        Int2s((numbers % 100).astype(np.int8), numbers % 3 == 0),
    )
    cursor = await connection.execute(
        "SELECT count(*), bool_and(a = b AND c = b + 0.5 AND (d IS NULL) = (a %% 3 = 0) AND coalesce(d = a %% 100, true))"
        " FROM unnest(%s, %s, %s, %s) AS u(a, b, c, d)",
        columns,
    )
    assert await cursor.fetchone() == (n, True)


@pytest.mark.parametrize(
    "sent",
    [
        Int4s(np.array([2**31])),
        Int2s(np.array([40_000], np.uint16)),
        Int8s(np.array([1.5])),
        Times(np.array([0, -(2**63)])),
    ],
)
async def test_a_value_that_its_element_cannot_hold_is_refused_and_never_changed(
    connection: Connection, sent: PgArray
) -> None:
    with pytest.raises(OverflowError):
        await connection.execute("SELECT %s", (sent,))
    assert await back(connection, Int4s(np.array([2**31 - 1])), "integer") == [2**31 - 1]
