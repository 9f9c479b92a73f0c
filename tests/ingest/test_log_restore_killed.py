"""A restore of the embedded log that is killed, wherever, leaves none of it or all, and is simply run again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ingest.backup import backup
from ingest.backup_log import restore_log, topic_files
from telemetry.log.protocol import TOPICS
from telemetry.settings import Settings
from tests.ingest.backups import TOOLS
from tests.ingest.line import Edge, batch, producing


@pytest.mark.parametrize("prior", ["", "vigil.telemetry.making"], ids=["no directory", "a directory with leavings"])
async def test_a_restore_of_the_log_that_is_killed_at_any_step_leaves_all_or_nothing_and_is_run_again(
    plain_store: Settings, tmp_path: Path, prior: str
) -> None:
    async with producing(plain_store) as producer:
        edge = Edge(producer)
        await edge.send_samples(*(batch(["a/x"]) for _ in range(7)))
        await edge.send_ledger()
        manifest = backup(plain_store, tmp_path / "backup", tools=TOOLS)
    kills = killed(tmp_path / "backup" / "log", tmp_path / "new-disk" / "log", prior)
    steps = [kill["step"] for kill in kills]
    assert {"half a file", "sqlite3.connect", "fsync", "os.rename"} <= set(steps)
    assert len(steps) > 5 * len(TOPICS), "a kill in every step"
    whole: list[list[Any]] = [
        [p.topic, p.partition, p.first, p.end, p.end - p.first] for p in sorted(manifest.log, key=str)
    ]
    assert sum(records for *_, records in whole) >= 8
    for at, kill in enumerate(kills):
        assert kill["topics"] in (0, len(TOPICS)), (at, kill)
        assert kill["again"] is (kill["topics"] == 0), (at, kill)
        assert sorted(kill["holds"]) == sorted(whole), (at, kill)
    assert [kill["topics"] for kill in kills].count(len(TOPICS)) > 0, "killed after it has its name, too"


def killed(folder: Path, directory: Path, prior: str) -> list[dict[str, Any]]:
    arguments = ["-m", "tests.ingest.killed_log_restore", str(folder), str(directory), prior]
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def made(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_text(name)
    return folder


def test_what_a_directory_without_a_log_holds_is_moved_aside_and_never_deleted(tmp_path: Path) -> None:
    for turn in (1, 2):
        place = made(tmp_path / "log", f"{TOPICS[0]}.0123456789abcdef.sqlite-wal", f"a note {turn}")
        assert restore_log(made(tmp_path / f"empty copy {turn}"), place) is True
        assert list(place.iterdir()) == []
        assert (tmp_path / f"log.before-restore-{turn}" / f"a note {turn}").read_text() == f"a note {turn}"
        place.rmdir()


def test_a_link_to_another_disk_stays_one(tmp_path: Path) -> None:
    place = made(tmp_path / "other disk" / "vigil-log")
    (tmp_path / "log").symlink_to(place)
    assert restore_log(made(tmp_path / "copy"), tmp_path / "log") is True
    assert (tmp_path / "log").is_symlink()
    assert [path.name for path in (tmp_path / "other disk").iterdir()] == ["vigil-log"]


def test_a_topic_that_is_there_keeps_the_whole_log(tmp_path: Path) -> None:
    place = made(tmp_path / "log", f"{TOPICS[-1]}.0123456789abcdef.sqlite")
    assert restore_log(made(tmp_path / "copy", f"{TOPICS[0]}.0123456789abcdef.sqlite"), place) is False
    assert [path.name for path in topic_files(place)] == [f"{TOPICS[-1]}.0123456789abcdef.sqlite"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "log"]
