"""The connection to the store. Each service connects under a role of its own, with no more rights than it needs.

`VIGIL_STORE=postgresql://…` is used as it is; with `embedded:` the supervisor (`vigil up`) runs the server and leaves the
connection string in STATE/store.url.
"""

from __future__ import annotations

from typing import Final, LiteralString

import psycopg
from psycopg.conninfo import make_conninfo

from telemetry.errors import StoreUnavailable
from telemetry.settings import Settings

URL_FILE: Final = "store.url"
CONNECT_TIMEOUT_S: Final = 5

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
    """The connection string in force, with its password. Raises StoreUnavailable while the embedded one is not up."""
    if settings.store != "embedded:":
        password = settings.secret("store_password")
        extra = {"password": password} if password is not None else {}
        return make_conninfo(settings.store, connect_timeout=CONNECT_TIMEOUT_S, **extra)
    path = settings.state_dir / URL_FILE
    try:
        return make_conninfo(path.read_text(encoding="utf-8").strip(), connect_timeout=CONNECT_TIMEOUT_S)
    except OSError as error:
        raise StoreUnavailable(f"embedded store: {path}: {error.strerror}; is `vigil up` running?") from error


async def connect(settings: Settings, role: str, *, autocommit: bool = False) -> psycopg.AsyncConnection:
    """A connection under `role` (OWNER: as logged in), times in UTC. Raises StoreUnavailable."""
    try:
        connection = await psycopg.AsyncConnection.connect(
            conninfo(settings), autocommit=True, options="-c timezone=UTC", application_name=role or "vigil"
        )
        if role:
            await connection.execute(psycopg.sql.SQL("SET ROLE {}").format(psycopg.sql.Identifier(role)))
        await connection.set_autocommit(autocommit)
    except psycopg.Error as error:
        raise StoreUnavailable(str(error).strip()) from error
    return connection
