"""A lock file has one holder, who may die, and nothing stays open where it could not be had."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from telemetry.lock_file import try_lock

HOLDS_UNTIL_IT_IS_KILLED = """
import sys
from pathlib import Path
from telemetry.lock_file import try_lock
print(try_lock(Path(sys.argv[1])) is not None, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.lock"


def times_open(path: Path) -> int:
    """How many descriptors of this process are of `path`."""
    return sum(number.exists() and number.samefile(path) for number in Path("/proc/self/fd").iterdir())


def held(path: Path) -> int:
    handle = try_lock(path)
    assert handle is not None
    return handle


def test_a_lock_has_one_holder_until_it_is_closed_and_whoever_is_refused_keeps_nothing_open(path: Path) -> None:
    handle = held(path)
    assert try_lock(path) is None
    assert times_open(path) == 1
    os.close(handle)
    os.close(held(path))


def test_a_holder_that_is_killed_holds_nothing(path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS_UNTIL_IT_IS_KILLED, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"True\n"
        assert try_lock(path) is None
        process.kill()
    os.close(held(path))


def test_the_file_is_its_owners_alone_and_no_program_that_is_started_inherits_the_lock(path: Path) -> None:
    handle = held(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert not os.get_inheritable(handle)
    os.close(handle)


def test_the_content_of_the_file_is_left_as_it_is(path: Path) -> None:
    path.write_text("whose")
    os.close(held(path))
    assert path.read_text() == "whose"


def test_a_file_that_is_missing_is_made_only_where_it_is_to_be(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        try_lock(path, create=False)
    assert not path.exists()
    os.close(held(path))
    handle = try_lock(path, create=False)
    assert handle is not None
    os.close(handle)


@pytest.mark.parametrize("error", [OSError(errno.ENOLCK, "no locks available"), KeyboardInterrupt()], ids=repr)
def test_where_locking_fails_the_error_is_told_and_the_file_closed(
    path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(handle: int, operation: int) -> None:
        raise error

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(type(error)) as caught:
        try_lock(path)
    assert caught.value is error
    assert times_open(path) == 0
