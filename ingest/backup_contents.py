"""What is in a store, counted by the store itself: for a backup's manifest, and to see that a restore brought it all.

A table's checksum is the sum of PostgreSQL's 64-bit hashes of its rows: the order of rows and how they are kept (rows,
columnstore, partitions) change nothing, a bit of a value does.
"""

from __future__ import annotations

from typing import Any, Final, LiteralString

import psycopg
from psycopg import sql

from ingest.backup_manifest import AppliedMigration, Manifest, Place, TableSum
from telemetry.errors import StoreError

Connection = psycopg.Connection[Any]


def tables(connection: Connection) -> dict[str, sql.Identifier]:
    """What holds data of ours, by its name: tables, partitioned tables and hypertables as one, continuous aggregates.

    Of an aggregate the rows that are materialised. Without store_meta.migration, which the manifest holds.
    """
    found = {
        f"{schema}.{name}": sql.Identifier(schema, name)
        for schema, name in connection.execute(_RELATIONS, {"kinds": ["r", "p", "m"]})
    }
    found.pop("store_meta.migration", None)
    if timescale_version(connection) is not None:
        for name, schema, table in connection.execute(_AGGREGATES):
            found[name] = sql.Identifier(schema, table)
    return found


def count(connection: Connection, table: sql.Identifier) -> TableSum:
    """Reads the whole table."""
    query = sql.SQL("SELECT count(*), coalesce(sum(hash_record_extended(t, 0)), 0)::text FROM {} t").format(table)
    ((rows, checksum),) = connection.execute(query)
    return TableSum(rows=rows, checksum=checksum)


def contents(connection: Connection) -> dict[str, TableSum]:
    """Of every table. Call it in a snapshot. Raises StoreError where a table is not to be had in time; psycopg.Error."""
    found = {}
    for name, table in tables(connection).items():
        try:
            found[name] = count(connection, table)
        except psycopg.errors.LockNotAvailable as error:
            raise StoreError(f"{name}: is not to be had in time: somebody holds the table for himself") from error
    return found


def differences(wanted: Manifest, connection: Connection, *, checksums: bool) -> list[str]:
    """Where this database's tables are not what the manifest says; one sentence each."""
    found = contents(connection)
    faults = [f"{name}: is missing" for name in sorted(wanted.tables.keys() - found.keys())]
    for name, table in sorted(wanted.tables.items()):
        here = found.get(name, table)
        if here.rows != table.rows:
            faults.append(f"{name}: expected {table.rows} rows, found {here.rows}")
        elif checksums and here.checksum != table.checksum:
            faults.append(f"{name}: expected rows with the checksum {table.checksum}, found {here.checksum}")
    return faults


def timescale_version(connection: Connection) -> str | None:
    """Of the extension in this database; None on plain PostgreSQL."""
    row = connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'").fetchone()
    return str(row[0]) if row else None


def applied_migrations(connection: Connection) -> tuple[AppliedMigration, ...]:
    """The rows of store_meta.migration, in order; none where there is no such table."""
    row = connection.execute("SELECT to_regclass('store_meta.migration') IS NOT NULL").fetchone()
    if not (row and row[0]):
        return ()
    rows = connection.execute("SELECT version, name, sha256, applied_at FROM store_meta.migration ORDER BY version")
    return tuple(AppliedMigration(version=v, name=n, sha256=s, applied_at=at) for v, n, s, at in rows)


def positions(connection: Connection) -> tuple[Place, ...]:
    """Where every service is on the log."""
    rows = connection.execute("SELECT service, topic, partition, next FROM store.log_position ORDER BY 1, 2, 3")
    return tuple(Place(service=s, topic=t, partition=p, next=n) for s, t, p, n in rows)


def roles(connection: Connection) -> tuple[str, ...]:
    """Whom the rights in this database name, but for the owners."""
    return tuple(str(name) for (name,) in connection.execute(_GRANTEES))


def owners(connection: Connection) -> tuple[str, ...]:
    """Whose the tables, functions and TimescaleDB's jobs are."""
    found = {str(name) for (name,) in connection.execute(_OWNERS)}
    if timescale_version(connection) is not None:
        found |= {str(name) for (name,) in connection.execute(_JOB_OWNERS)}
    return tuple(sorted(found))


def relations(connection: Connection) -> list[str]:
    """Whatever somebody made in this database, of any kind: an empty one has none."""
    kinds = ["r", "p", "m", "v", "S", "f"]
    return [f"{schema}.{name}" for schema, name in connection.execute(_RELATIONS, {"kinds": kinds})]


_RELATIONS: Final[LiteralString] = """
SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname !~ '^(pg_|_?timescaledb|information_schema$)' AND c.relkind = ANY (%(kinds)s) AND NOT c.relispartition
AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY 1, 2
"""
_AGGREGATES: Final[LiteralString] = """
SELECT view_schema || '.' || view_name, materialization_hypertable_schema::text, materialization_hypertable_name::text
FROM timescaledb_information.continuous_aggregates ORDER BY 1
"""
_HELD: Final[LiteralString] = """
WITH held AS (
    SELECT acl, owner FROM (
        SELECT c.relacl, c.relowner, c.relnamespace, c.oid, 'pg_class'::regclass FROM pg_class c
        UNION ALL SELECT p.proacl, p.proowner, p.pronamespace, p.oid, 'pg_proc'::regclass FROM pg_proc p
        UNION ALL SELECT n.nspacl, n.nspowner, n.oid, n.oid, 'pg_namespace'::regclass FROM pg_namespace n
        WHERE n.nspname <> 'public'
    ) AS object(acl, owner, namespace, oid, kind)
    JOIN pg_namespace n ON n.oid = namespace
    WHERE n.nspname !~ '^(pg_|_?timescaledb|information_schema$)'
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = kind AND d.objid = object.oid AND d.deptype = 'e'))
"""
_GRANTEES: Final[LiteralString] = (
    _HELD
    + """
SELECT DISTINCT r.rolname::text FROM held CROSS JOIN aclexplode(acl) AS given JOIN pg_roles r ON r.oid = given.grantee
WHERE given.grantee <> owner AND r.rolname !~ '^pg_' ORDER BY 1
"""
)
_OWNERS: Final[LiteralString] = (
    _HELD
    + """
SELECT DISTINCT r.rolname::text FROM held JOIN pg_roles r ON r.oid = owner
"""
)
_JOB_OWNERS: Final[LiteralString] = """
SELECT DISTINCT owner::text FROM timescaledb_information.jobs WHERE hypertable_name IS NOT NULL OR job_id >= 1000
"""
