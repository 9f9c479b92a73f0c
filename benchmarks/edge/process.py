"""A program under measurement, and what it costs: CPU seconds and memory of its whole process tree, from /proc.

It is ended by its id, and ends with this process (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

from benchmarks.machine import cpu_s, memory_mb, tree
from vigil.processes import die_with_parent

STOP_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class Memory:
    """Of a process tree, in MB (10⁶ bytes would flatter: these are MiB as in `benchmarks.machine`)."""

    rss_mb: float
    pss_mb: float
    peak_mb: float
    """The highest resident set since the start, each process's own added up."""


class Program:
    """A process in a session of its own; its output goes to a file."""

    def __init__(
        self,
        command: Sequence[str],
        output: Path,
        *,
        environment: Mapping[str, str] | None = None,
        piped: bool = False,
    ) -> None:
        self.output = output
        pipe = subprocess.PIPE if piped else None
        with output.open("ab") as out:
            self.process = subprocess.Popen(
                list(command),
                stdin=pipe or subprocess.DEVNULL,
                stdout=pipe or out,
                stderr=out,
                text=True,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
                preexec_fn=die_with_parent(signal.SIGKILL),
            )

    def __enter__(self) -> Program:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Of its first process."""
        return self.process.pid

    def said(self) -> str:
        """The end of its output."""
        return self.output.read_text(errors="replace")[-2000:]

    def line(self) -> str:
        """The next line of its standard output (`piped` only)."""
        return self.process.stdout.readline() if self.process.stdout else ""

    def ask(self) -> str:
        """Its answer to an empty line (`piped` only)."""
        if self.process.stdin is not None:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        return self.line()

    def cpu_s(self) -> float:
        """User and system seconds of the whole tree, so far."""
        return sum(map(cpu_s, tree(self.pid)))

    def memory(self) -> Memory:
        """Of the whole tree, now."""
        pids = tree(self.pid)
        return Memory(
            sum(_status_mb(pid, "VmRSS:") for pid in pids),
            sum(map(memory_mb, pids)),
            sum(_status_mb(pid, "VmHWM:") for pid in pids),
        )

    def pause(self) -> None:
        """SIGSTOP."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT."""
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL if it takes too long."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(STOP_S)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


def machine_busy_s() -> float:
    """CPU seconds that all processes of the machine have used, idle and waiting for the disk not counted."""
    user, nice, system, _idle, _wait, irq, softirq, *_ = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    )
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def sleep_until(wall_s: float) -> None:
    """Until a moment of the wall clock."""
    time.sleep(max(wall_s - time.time(), 0.0))


def _status_mb(pid: int, key: str) -> float:
    try:
        text = (Path("/proc") / str(pid) / "status").read_text()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in text.splitlines() if line.startswith(key)), 0.0)
