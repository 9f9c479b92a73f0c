"""What the endpoints work with, found from the request."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import Depends, Path, Query
from starlette.requests import HTTPConnection

from dashboards.console.codes import CodeNames
from dashboards.console.hub import Hub
from dashboards.console.session import Sessions
from dashboards.console.store import Store
from telemetry.clock import Clock
from telemetry.service import Health
from telemetry.settings import Settings


@dataclass(frozen=True, slots=True)
class Console:
    """The running console."""

    settings: Settings
    health: Health
    clock: Clock
    store: Store
    codes: CodeNames
    hub: Hub
    sessions: Sessions

    def now(self) -> datetime:
        """The clock's time."""
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=self.clock.now_us())


def console_of(connection: HTTPConnection) -> Console:
    """The console that serves this request."""
    console: Console = connection.app.state.console
    return console


Here = Annotated[Console, Depends(console_of)]
EquipmentId = Annotated[str, Path(pattern=r"^[a-z0-9_.-]{1,64}$", description="The unit's id.")]
AlarmId = Annotated[str, Path(pattern=r"^[A-Za-z0-9_.:-]{1,128}$", description="The alarm's id.")]
Cursor = Annotated[str | None, Query(max_length=512, description="`next` of the page before.")]
