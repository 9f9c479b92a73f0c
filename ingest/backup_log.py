"""The embedded log's part of a backup: copies of its topics that a restored database can be read on from.

Invariant: the copy is made after the database's snapshot, so whatever that has stored was on the log before, and what it
has not stored is in the copy: nothing between the two is missing. (The log keeps what everybody has read for a day, so it
is not trimmed in between; `gaps` says so where it was.) A copy is one reading transaction of SQLite: writers go on.
"""

from __future__ import annotations

import itertools
import shutil
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from ingest.backup_manifest import LogPart, Place, sync
from telemetry.errors import LogUnavailable
from telemetry.log.protocol import TOPICS

RESTORING: Final = ".restoring"
"""What the name of a log's directory ends with until it is whole."""


def topic_files(directory: Path) -> list[Path]:
    """The topics that are in a log's directory."""
    return sorted(path for topic in TOPICS for path in directory.glob(f"{topic}.????????????????.sqlite"))


def copy_log(directory: Path, into: Path) -> tuple[LogPart, ...]:
    """Copies every topic, and says what the copies hold. Raises LogUnavailable."""
    parts: list[LogPart] = []
    into.mkdir()
    for path in topic_files(directory):
        copy = into / path.name
        try:
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)) as source:
                source.execute("VACUUM INTO ?", (str(copy),))
            with closing(sqlite3.connect(copy, isolation_level=None)) as made:
                parts += _parts(made)
        except sqlite3.Error as error:
            raise LogUnavailable(f"{path}: {error}") from error
    return tuple(parts)


def gaps(parts: Iterable[LogPart], positions: Sequence[Place]) -> list[str]:
    """Services whose place in the log the copy does not continue; one sentence each."""
    by_partition = {(part.topic, part.partition): part for part in parts}
    faults = []
    for place in positions:
        part = by_partition.get((place.topic, place.partition))
        if part is None or not part.first <= place.next <= part.end:
            held = f"{part.first}..{part.end}" if part else "nothing"
            faults.append(f"{place.service}: {place.topic}/{place.partition}: next {place.next}, the log holds {held}")
    return faults


def restore_log(folder: Path, directory: Path) -> bool:
    """Puts the copies into an empty log's place. False, and nothing done, where a log is there already: it goes on.

    All of it or nothing: the topics are copied beside the log's directory, which then gets its name by one rename, so a
    restore that is killed anywhere is run again. Raises OSError (where the directory is a mount point, say); sqlite3.Error.
    """
    place = directory.resolve()
    if topic_files(place):
        return False
    half = place.with_name(place.name + RESTORING)
    _copy_topics(folder, half)
    if place.exists():
        _out_of_the_way(place)
    half.rename(place)
    sync(place.parent)
    return True


def _copy_topics(folder: Path, half: Path) -> None:
    """The folder `half`, with every topic in it, on the disk. What a killed restore left there is cleared away."""
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir(parents=True)
    for path in topic_files(folder):
        copy = half / path.name
        shutil.copyfile(path, copy)
        with closing(sqlite3.connect(copy, isolation_level=None)) as made:
            made.execute("PRAGMA journal_mode = WAL")
        sync(copy)
    sync(half)


def _out_of_the_way(place: Path) -> None:
    """A directory without a topic: empty, or with lock files and what is left of a log, of which nothing is deleted."""
    if next(place.iterdir(), None) is None:
        place.rmdir()
        return
    names = (place.with_name(f"{place.name}.before-restore-{n}") for n in itertools.count(1))
    place.rename(next(name for name in names if not name.exists()))


def _parts(made: sqlite3.Connection) -> list[LogPart]:
    (topic,) = made.execute("SELECT topic FROM meta").fetchone()
    rows = made.execute("SELECT number, first, next FROM partition ORDER BY 1").fetchall()
    return [LogPart(topic=topic, partition=number, first=first, end=end) for number, first, end in rows]
