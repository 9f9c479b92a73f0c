"""`vigil ingest` as an operator runs it: a process with a login of its own, and what it says about itself.

The database is fresh and migrated for each run; the login is a member of vigil_ingest and nothing more, so the schema is
made by another. fsync and synchronous_commit are on (PostgreSQL's defaults, checked).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from benchmarks.edge.process import Program
from benchmarks.ingest.watch import LOGIN
from telemetry.local import free_port
from tests.fixtures.store import Flavour, StoreServer, execute, fresh_database, make_template

AUDIT_S: Final = 1_200.0
KEPT: Final = ("fsync", "synchronous_commit", "full_page_writes")


@contextmanager
def server(flavour: Flavour = "timescale", *, background: bool = False) -> Iterator[StoreServer]:
    """A database server of this run's own, with a migrated template and the login. Raises RuntimeError where it would not
    keep its promises after a power cut."""
    store = StoreServer(flavour, background=background)
    try:
        store.start()
        for name in KEPT:
            found = execute(store.url, sql.SQL("SHOW {}").format(sql.Identifier(name)))[0][0]
            if found != "on":
                raise RuntimeError(f"{name}: expected on, found {found}")
        make_template(store.url)
        execute(store.url, sql.SQL("CREATE ROLE {} LOGIN IN ROLE vigil_ingest").format(sql.Identifier(LOGIN)))
        yield store
    finally:
        store.remove()


@contextmanager
def database(store: StoreServer) -> Iterator[str]:
    """The superuser's URL of a fresh, migrated database; everything before it is on disk."""
    with fresh_database(store.url) as url:
        execute(url, "CHECKPOINT")
        yield url


def as_login(url: str) -> str:
    """The same database for the service's login."""
    parts = conninfo_to_dict(url)
    return f"postgresql://{LOGIN}@/{parts['dbname']}?host={quote(str(parts['host']), safe='')}"


@dataclass(slots=True)
class Ingest:
    """One writer."""

    folder: Path
    store: str
    """The superuser's URL of its database."""
    log: str
    """VIGIL_LOG."""
    name: str = "ingest"
    state: Path | None = None
    """Of the embedded log."""
    interpreter: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)

    def start(self) -> Program:
        """Starts it. It ends with this process."""
        command = [sys.executable, *self.interpreter, "-m", "vigil", "ingest"]
        return Program(command, self.folder / f"{self.name}.log", environment=self._environment())

    def audit(self) -> dict[str, Any]:
        """What `vigil audit` says: its sums, `clean`, and how many cells' checksums are the same."""
        done = subprocess.run(
            [sys.executable, "-m", "vigil", "audit", "--json"],
            env=self._environment(inherit=True),
            capture_output=True,
            text=True,
            timeout=AUDIT_S,
            check=False,
        )
        if not done.stdout:
            raise RuntimeError(f"vigil audit: {done.stderr[-1000:]}")
        said: dict[str, Any] = json.loads(done.stdout)
        cells = said.pop("equipment")
        said.pop("edges")
        same = sum(cell["checksum"] == "same" for cell in cells)
        return said | {"clean": done.returncode == 0, "cells": len(cells), "checksums_same": same}

    def metrics(self) -> dict[str, float]:
        """Every series of /metrics: name with its labels → value. Empty while it does not listen."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
                lines = answer.read().decode().splitlines()
        except (urllib.error.URLError, ConnectionError):
            return {}
        pairs = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    def _environment(self, *, inherit: bool = False) -> dict[str, str]:
        own = {
            "VIGIL_STORE": as_login(self.store),
            "VIGIL_LOG": self.log,
            "VIGIL_STATE_DIR": str(self.state or self.folder / f"state-{self.name}"),
            "VIGIL_INGEST_LISTEN": f"127.0.0.1:{self.port}",
            **self.environment,
        }
        return {**os.environ, **own} if inherit else own
