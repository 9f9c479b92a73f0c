"""The connection to the store. Each service connects under a role of its own, with no more rights than it needs.

`VIGIL_STORE=postgresql://…` is used as it is; with `embedded:` the supervisor (`vigil up`) runs the server and leaves the
connection string in STATE/store.url.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, LiteralString

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from telemetry.errors import ConfigError, Fault, StoreError, StoreUnavailable
from telemetry.pg_array import register_arrays
from telemetry.service import Health, wait_until
from telemetry.settings import Settings

SCHEMA_VERSION: Final = 12
"""The last migration that this code was written for (ingest/migrations)."""
SCHEMA_POLL_S: Final = 0.5
URL_FILE: Final = "store.url"
CONNECT_TIMEOUT_S: Final = 5
ANSWER_S: Final = 15.0
"""What a new connection is asked first waits for nobody: no answer in this time, and the connection is half-open."""
_LIVENESS: Final = {
    "connect_timeout": CONNECT_TIMEOUT_S,
    # A server that is gone without a word (power, failover to another address) is noticed within 20 s.
    "keepalives_idle": 10,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}

# Roles, granted in ingest/migrations; a login user for a service is a member of its role.
OWNER: Final = ""
READER: Final = "vigil_reader"
INGEST: Final = "vigil_ingest"
ANALYZE: Final = "vigil_analyze"
ALERT: Final = "vigil_alert"
CONSOLE: Final = "vigil_console"

# Channels of LISTEN and NOTIFY.
ALARM_CHANNEL: Final[LiteralString] = "vigil_alarm"
LATEST_CHANNEL: Final[LiteralString] = "vigil_latest"
EVENT_CHANNEL: Final[LiteralString] = "vigil_event"
COMMAND_CHANNEL: Final[LiteralString] = "vigil_command"


def conninfo(settings: Settings) -> str:
    """The connection string in force, with its password.

    Raises ConfigError for a setting that does not read; StoreUnavailable while the embedded one is not up.
    """
    if settings.store != "embedded:":
        password = settings.secret("store_password")
        extra = {"password": password} if password is not None else {}
        return _read(settings.store, **_LIVENESS, **extra)
    path = settings.state_dir / URL_FILE
    try:
        return make_conninfo(path.read_text(encoding="utf-8").strip(), **_LIVENESS)
    except FileNotFoundError as error:
        raise StoreUnavailable(_nothing_runs(settings)) from error
    except OSError as error:
        raise StoreUnavailable(f"embedded store: {path}: {error.strerror}") from error


async def connect(settings: Settings, role: str, *, autocommit: bool = False) -> psycopg.AsyncConnection:
    """A connection under `role` (OWNER: as logged in), times in UTC. Raises StoreUnavailable."""
    try:
        connection = await psycopg.AsyncConnection.connect(
            conninfo(settings), autocommit=True, options="-c timezone=UTC", application_name=role or "vigil"
        )
    except psycopg.Error as error:
        raise away(settings, error) from error
    try:
        if role:
            await _take(connection, role)
        await connection.set_autocommit(autocommit)
        register_arrays(connection)
    except BaseException as error:
        await connection.close()
        if isinstance(error, psycopg.Error):
            raise StoreUnavailable(str(error).strip()) from error
        raise
    return connection


async def _take(connection: psycopg.AsyncConnection[Any], role: str) -> None:
    try:
        async with answered():
            await connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
    except psycopg.errors.InsufficientPrivilege as error:
        login = connection.info.user
        raise StoreUnavailable(
            f'the login "{login}" is no member of its service\'s role: GRANT {role} TO "{login}" (docs/sql.md, Roles)'
        ) from error


def away(settings: Settings, error: psycopg.Error) -> StoreUnavailable:
    """What is said of a store that cannot be reached: the setting that names it, too."""
    if settings.store != "embedded:":
        return StoreUnavailable(f"the store that VIGIL_STORE names: {str(error).strip()}")
    return StoreUnavailable(str(error).strip() if _listens(settings) else _nothing_runs(settings))


def _read(text: str, **more: Any) -> str:
    """What libpq says of an address that it cannot read, or takes for another one, repeats parts of it, and its password
    may be among them: so none of it is told. Raises ConfigError."""
    try:
        address = make_conninfo(text, **more)
        parts = conninfo_to_dict(address)
    except psycopg.ProgrammingError:
        raise ConfigError([_UNREADABLE]) from None
    ports = str(parts.get("port") or "").split(",")
    if "@" in str(parts.get("host") or "")[1:] or not all(port.isdecimal() for port in ports if port):
        raise ConfigError([_UNREADABLE])  # a password with an @ or a / in it
    return address


_UNREADABLE: Final = Fault(
    "settings",
    0,
    "VIGIL_STORE",
    "embedded: or postgresql://user@host:port/database, with its password in VIGIL_STORE_PASSWORD_FILE"
    " (in the address @ is %40, / %2F, : %3A, % %25)",
    "an address that does not read, not shown: it may hold a password",
)


def _nothing_runs(settings: Settings) -> str:
    return (
        f"embedded store: nothing runs in {settings.state_dir}, or not yet: start it with `vigil up`, or name another"
        " directory (--state, VIGIL_STATE_DIR) or a server (VIGIL_STORE)"
    )


def _listens(settings: Settings) -> bool:
    """Whether the embedded server's socket is anybody's. A file that tells of a server may be of one that has stopped."""
    where = conninfo_to_dict(conninfo(settings))
    if settings.store != "embedded:" or not (folder := str(where.get("host") or "")).startswith("/"):
        return True
    with socket.socket(socket.AF_UNIX) as one:
        one.setblocking(False)  # the event loop waits for nobody; one that is busy is somebody's
        try:
            one.connect(f"{folder}/.s.PGSQL.{where.get('port') or 5432}")
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except OSError:
            pass  # not ours, say: what PostgreSQL says of it is the better text
    return True


@asynccontextmanager
async def answered() -> AsyncIterator[None]:
    """A deadline of ANSWER_S for what the body asks a connection. Raises psycopg.OperationalError."""
    try:
        async with asyncio.timeout(ANSWER_S):
            yield
    except TimeoutError as error:
        raise psycopg.OperationalError(f"the store has not answered for {ANSWER_S:g} s") from error


async def schema_version(connection: psycopg.AsyncConnection[Any]) -> int:
    """The last migration that was applied to this database; 0 before the first. Has a deadline. Raises psycopg.Error."""
    async with answered():
        cursor = await connection.execute("SELECT to_regclass('store_meta.migration') IS NOT NULL")
        row = await cursor.fetchone()
        if not (row and row[0]):
            return 0
        cursor = await connection.execute("SELECT coalesce(max(version), 0) FROM store_meta.migration")
        row = await cursor.fetchone()
        return int(row[0]) if row else 0


def too_new(found: int, known: int = SCHEMA_VERSION) -> str:
    """What is said where a newer Vigil has migrated the database: older code writes nothing to it."""
    return (
        f"schema: expected version {known} or older, found {found}: this Vigil is older than its database; "
        "install the newer one"
    )


@asynccontextmanager
async def migrated(settings: Settings) -> AsyncIterator[None]:
    """For commands that ask the store once: a body that needs the schema, and whose database errors are said.

    Raises StoreUnavailable; StoreError when the database is not migrated, or refuses what the body asks.
    """
    try:
        async with await connect(settings, OWNER, autocommit=True) as connection:
            found = await schema_version(connection)
        if found < SCHEMA_VERSION:
            raise StoreError(f"schema: expected version {SCHEMA_VERSION}, found {found}: `vigil ingest` migrates it")
        if found > SCHEMA_VERSION:
            raise StoreError(too_new(found))
        yield
    except psycopg.OperationalError as error:
        raise StoreUnavailable(str(error).strip()) from error
    except psycopg.Error as error:
        raise StoreError(str(error).strip()) from error


async def wait_for_schema(
    settings: Settings, stop: asyncio.Event, health: Health, *, version: int = SCHEMA_VERSION
) -> bool:
    """Waits until the database is there and migrated at least to `version`. Returns False when told to stop first.

    At a database that is newer than this code it waits, too, until it is stopped.

    Says in `health` what it waits for: `store` or `schema`.
    """
    while not stop.is_set():
        try:
            connection = await connect(settings, OWNER, autocommit=True)
            try:
                found = await schema_version(connection)
            finally:
                await connection.close()
            health.found("store")
            if found > SCHEMA_VERSION:
                health.missing("schema", too_new(found))
            elif found >= version:
                health.found("schema")
                return True
            else:
                health.missing("schema", f"expected version {version}, found {found}: waiting for ingest to migrate")
        except (StoreUnavailable, psycopg.Error) as error:
            health.missing("store", str(error).strip())
        await wait_until(stop, SCHEMA_POLL_S)
    return False
