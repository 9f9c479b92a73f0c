"""PostgreSQL's own pg_dump and pg_restore: which of those on this machine fits a server, and how they are run.

Invariants: no password on a command line, in a log line or in a file (it goes by PGPASSWORD, which only this user can
read); a tool does not outlive whoever started it, where the caller gives `preexec_fn`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from telemetry.errors import StoreError

DEBIAN: Final = Path("/usr/lib/postgresql")
_VERSION: Final = re.compile(r"\(PostgreSQL\) (\d+)")
_LAST_WORDS: Final = 2_000


@dataclass(frozen=True, slots=True)
class Tools:
    """Where to look, and what to do in a child before it runs."""

    directories: Sequence[Path] = ()
    """Looked at first; then PATH, then Debian's /usr/lib/postgresql/*/bin."""
    preexec_fn: Callable[[], None] | None = None
    popen: Mapping[str, object] = field(default_factory=dict)

    def find(self, name: str, major: int) -> tuple[Path, int]:
        """The tool of this major version or the next newer one, and its version. Raises StoreError."""
        found = {version: path for path in reversed(self._candidates(name)) if (version := _version(path))}
        fitting = [version for version in found if version >= major]
        if not fitting:
            older = f", found {', '.join(str(v) for v in sorted(found))}" if found else ", found none"
            raise StoreError(
                f"{name}: expected version {major} or newer{older}: install postgresql-client-{major}, "
                "or name its folder with --tools"
            )
        return found[min(fitting)], min(fitting)

    def start(self, path: Path, arguments: Sequence[str], conninfo: str) -> Running:
        """Starts a tool on a database."""
        public, secret = split_secret(conninfo)
        words = tempfile.TemporaryFile()  # noqa: SIM115 - closed by Running.end
        process = subprocess.Popen(  # noqa: S603 - a tool of PostgreSQL, arguments of ours
            [str(path), f"--dbname={public}", "--no-password", *arguments],
            env={**os.environ, **secret, "PGOPTIONS": "-c timezone=UTC"},
            stdin=subprocess.DEVNULL,
            stdout=words,
            stderr=words,
            preexec_fn=self.preexec_fn,
        )
        return Running(path.name, process, words)

    def _candidates(self, name: str) -> list[Path]:
        on_path = shutil.which(name)
        return [
            *(path for folder in self.directories if (path := folder / name).exists()),
            *([Path(on_path)] if on_path else []),
            *sorted(DEBIAN.glob(f"*/bin/{name}")),
        ]


class Running:
    """A tool that runs."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], words: IO[bytes]) -> None:
        self._name = name
        self._process = process
        self._words = words

    def wait(self) -> None:
        """Until it has done its work. Raises StoreError with its last words."""
        with self._words:
            status = self._process.wait()
            if status:
                self._words.seek(0)
                text = self._words.read().decode(errors="replace").strip()[-_LAST_WORDS:]
                raise StoreError(f"{self._name}: ended with {status}: {text}")

    def failed(self) -> bool:
        """Whether it ended without having done its work."""
        return bool(self._process.poll())

    def end(self) -> None:
        """Ends it where it still runs."""
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait()
        self._words.close()


def split_secret(conninfo: str) -> tuple[str, dict[str, str]]:
    """A connection string without its password, and the environment that carries it.

    Raises StoreError for a password of a client key: there is no safe way to hand it on.
    """
    parameters = conninfo_to_dict(conninfo)
    if parameters.pop("sslpassword", None) is not None:
        raise StoreError("store: sslpassword is not handed on to PostgreSQL's tools: use a key without a password")
    password = parameters.pop("password", None)
    return make_conninfo("", **parameters), {} if password is None else {"PGPASSWORD": str(password)}


def _version(path: Path) -> int:
    try:
        done = subprocess.run([str(path), "--version"], capture_output=True, text=True, timeout=20, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return 0
    match = _VERSION.search(done.stdout)
    return int(match[1]) if match else 0
