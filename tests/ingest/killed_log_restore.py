"""A restore of a log, killed at its first step, its second, and so on, each time run again. A process of its own: it forks.

`python -m tests.ingest.killed_log_restore FOLDER DIRECTORY PRIOR` prints a JSON object a kill: at which step, how many
topics were in the log's place then, and what the log holds after a second restore. PRIOR: what is in the place before, a
file's name or ''.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from ingest.backup_log import restore_log, topic_files

_STEPS: Final = ("open", "os.mkdir", "os.rename", "os.rmdir", "os.remove", "sqlite3.connect", "shutil.copyfile")


def killed_at(step: int, folder: Path, directory: Path) -> str | None:
    """Restores in a child that is killed before its step of this number. What that was; None where it has fewer."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        _count_steps(step, write)
        restore_log(folder, directory)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as said:
        what = said.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return what
    assert status == 0, status
    return None


def _count_steps(step: int, write: int) -> None:
    """Kills this process before the step: what Python audits, a flush to the disk, and in the middle of a file's bytes."""
    steps = itertools.count()

    def one(what: str) -> None:
        if next(steps) == step:
            os.write(write, what.encode())
            os.kill(os.getpid(), signal.SIGKILL)

    fsync, sendfile = os.fsync, os.sendfile

    def counted_fsync(number: int) -> None:
        one("fsync")
        fsync(number)

    def counted_sendfile(out: int, source: int, offset: int, count: int) -> int:
        sent = sendfile(out, source, offset, min(count, 4096))
        one("half a file")
        return sent

    os.fsync = counted_fsync  # type: ignore[assignment]
    os.sendfile = counted_sendfile  # type: ignore[assignment]
    sys.addaudithook(lambda event, _: one(event) if event in _STEPS else None)


def holds(directory: Path) -> list[Any]:
    """[topic, partition, first offset, end, records of the topic], in order."""
    found: list[Any] = []
    for path in topic_files(directory):
        with closing(sqlite3.connect(path)) as db:
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            (topic,) = db.execute("SELECT topic FROM meta").fetchone()
            found += db.execute(
                "SELECT ?, p.number, p.first, p.next, (SELECT count(*) FROM record) FROM partition p ORDER BY 2",
                (topic,),
            ).fetchall()
    return found


def kills(folder: Path, directory: Path, prior: str) -> Iterator[dict[str, Any]]:
    """One after the other, until the restore has no further step."""
    for step in itertools.count():
        shutil.rmtree(directory.parent, ignore_errors=True)
        if prior:
            directory.mkdir(parents=True)
            (directory / prior).write_text("left over")
        what = killed_at(step, folder, directory)
        if what is None:
            return
        there = len(topic_files(directory))
        again = restore_log(folder, directory)
        yield {"step": what, "topics": there, "again": again, "holds": holds(directory)}


if __name__ == "__main__":
    for line in kills(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]):
        sys.stdout.write(json.dumps(line) + "\n")
