"""A store as an earlier Vigil left it: migrated to one of the released versions, with data of every kind in it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg import sql

from ingest.migrate import migrate
from telemetry.settings import Settings

Connection = psycopg.Connection[Any]
Rows = list[tuple[Any, ...]]

HERE: Final = Path(__file__).parent
BASE: Final = "(date_trunc('hour', now()) - interval '4 days')"
"""Samples begin here: their chunk is over, and inside the bound on late data."""


def folder_of(version: int, into: Path) -> Path:
    """The migrations up to a version, as that Vigil had them."""
    into.mkdir()
    for path in (files("ingest") / "migrations").iterdir():
        if path.name.endswith(".sql") and int(path.name[:4]) <= version:
            (into / path.name).write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    return into


async def migrate_to(url: str, version: int, into: Path) -> None:
    """As the Vigil of that version would have."""
    await migrate(Settings(store=url), folder=folder_of(version, into))


def fill(connection: Connection, version: int, *, timescale: bool) -> None:
    """Data of everything that a store of this version can hold (aged.sql). Connection: autocommit."""
    parts = re.split(r"^-- (since \d+|late)$", (HERE / "aged.sql").read_text(encoding="utf-8"), flags=re.MULTILINE)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    for since in range(1, version + 1):
        connection.execute(sections.get(f"since {since}", "").replace("BASE", BASE).encode())
    if version >= 3:
        if timescale:
            bring_up_to_date(connection, timescale=version >= 7)
            connection.execute("SELECT compress_chunk(c) FROM show_chunks('store.sample') c")
        connection.execute(sections["late"].replace("BASE", BASE).encode())


def bring_up_to_date(connection: Connection, *, timescale: bool) -> None:
    """The aggregates, as TimescaleDB's jobs would."""
    if timescale:
        for view in ("sample_1m", "sample_1h"):
            connection.execute(f"CALL refresh_continuous_aggregate('store.{view}', NULL, NULL)".encode())


def snapshot(connection: Connection) -> dict[str, tuple[Sequence[str], Rows]]:
    """Every table's rows by the columns that it has now; what a later migration adds is no part of it."""
    found: dict[str, tuple[Sequence[str], Rows]] = {}
    tables = connection.execute(_TABLES).fetchall()
    for schema, name in tables:
        columns = [c for (c,) in connection.execute(_COLUMNS, (f"{schema}.{name}",))]
        found[f"{schema}.{name}"] = (columns, rows(connection, schema, name, columns))
    return found


def rows(connection: Connection, schema: str, name: str, columns: Sequence[str]) -> Rows:
    """All of them, as text, sorted."""
    picked = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(column)) for column in columns)
    query = sql.SQL("SELECT {} FROM {}").format(picked, sql.Identifier(schema, name))
    return sorted(connection.execute(query).fetchall(), key=repr)


def schema(connection: Connection) -> Rows:
    """Everything that migrations make: columns, views, indexes, functions, rights; of partitions and chunks nothing."""
    return connection.execute((HERE / "aged_schema.sql").read_bytes()).fetchall()


_TABLES: Final = """
SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname IN ('register', 'store', 'alarm') AND c.relkind IN ('r', 'p') AND NOT c.relispartition
AND (n.nspname, c.relname) <> ('store', 'policy') ORDER BY 1, 2
"""
_COLUMNS: Final = """
SELECT attname::text FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""
