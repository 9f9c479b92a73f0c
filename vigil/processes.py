"""Child processes that cannot outlive their parent, and are started again with back-off when they die.

Invariant: whatever ends the supervisor, SIGKILL included, ends its children (PR_SET_PDEATHSIG); a child that dies alone
is started again, sooner at first, later when it keeps dying.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, Final

import structlog

from telemetry.service import wait_until

log = structlog.get_logger()

BACKOFF_FIRST_S: Final = 0.5
BACKOFF_LAST_S: Final = 30.0
HEALTHY_AFTER_S: Final = 60.0
"""A child that lived so long starts again at the first back-off."""
LOG_BYTES: Final = 10 << 20
_LIBC: Final = ctypes.CDLL(None)
_PR_SET_PDEATHSIG: Final = 1


@dataclass(frozen=True, slots=True)
class Child:
    """What to run."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    popen: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of the start (user, group, cwd)."""
    stop_signal: signal.Signals = signal.SIGTERM
    death_signal: signal.Signals = signal.SIGKILL
    """What the kernel sends it when the supervisor is gone."""
    stop_within_s: float = 3.0


def die_with_parent(death_signal: signal.Signals) -> Callable[[], None]:
    """For preexec_fn: asks the kernel for `death_signal` when the parent is gone, also when it went just now."""
    parent = os.getpid()

    def ask() -> None:
        follow_parent(death_signal)
        if os.getppid() != parent:
            os.kill(os.getpid(), death_signal)

    return ask


def follow_parent(death_signal: signal.Signals) -> None:
    """Asks the kernel to send this process `death_signal` when its parent (the thread that started it) is gone."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)


def backoff_s(deaths: int) -> float:
    """Seconds to wait before start number `deaths` + 1 in a row."""
    return min(BACKOFF_FIRST_S * 2.0 ** max(deaths - 1, 0), BACKOFF_LAST_S)


class Keeper:
    """Keeps one child running until told to stop."""

    def __init__(self, child: Child, log_dir: Path) -> None:
        self.child = child
        self.process: asyncio.subprocess.Process | None = None
        self.restarts = 0
        self._log = _log_file(log_dir / f"{child.name}.log")
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Starts the child, and again when it dies, until `stop`."""
        deaths = 0
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            started = loop.time()
            status = await self._once()
            if self._stopping.is_set():
                break
            deaths = 1 if loop.time() - started > HEALTHY_AFTER_S else deaths + 1
            self.restarts += 1
            pause = backoff_s(deaths)
            log.warning("died", process=self.child.name, status=status, again_in_s=pause, log=self._log.baseFilename)
            await wait_until(self._stopping, pause)
        self._log.close()

    async def stop(self) -> None:
        """Asks the child to stop, and makes it when it does not in time."""
        self._stopping.set()
        process = self.process
        if process is None or process.returncode is not None:
            return
        process.send_signal(self.child.stop_signal)
        try:
            async with asyncio.timeout(self.child.stop_within_s):
                await process.wait()
        except TimeoutError:
            log.warning("killed", process=self.child.name, why=f"did not stop within {self.child.stop_within_s} s")
            process.kill()
            await process.wait()

    async def _once(self) -> int:
        child = self.child
        try:
            self.process = await asyncio.create_subprocess_exec(
                *child.command,
                env={**os.environ, **child.environment},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent(child.death_signal),
                limit=1 << 20,
                **child.popen,
            )
        except OSError as error:
            self._write(f"could not be started: {error}")
            return -1
        if self.process.stdout is not None:
            await self._pump(self.process.stdout)
        return await self.process.wait()

    async def _pump(self, stream: asyncio.StreamReader) -> None:
        while True:
            try:
                line = await stream.readline()
            except ValueError:  # a line longer than the limit: what was read of it is gone, the rest follows
                continue
            if not line:
                return
            self._write(line.decode(errors="replace").rstrip("\n"))

    def _write(self, line: str) -> None:
        self._log.emit(logging.LogRecord(self.child.name, logging.INFO, "", 0, line, None, None))


def _log_file(path: Path) -> RotatingFileHandler:
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = RotatingFileHandler(path, maxBytes=LOG_BYTES, backupCount=1, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(message)s"))
    return handler
