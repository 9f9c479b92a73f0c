"""Children of the supervisor: started again when they die, gone when it goes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.fixtures.processes import gone
from tests.fixtures.waiting import eventually, until
from vigil.processes import BACKOFF_LAST_S, Child, Keeper, backoff_s
from vigil.up import locked

SLEEPER = "import time; print('up', flush=True); time.sleep(600)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
)
SUPERVISOR = """
import asyncio, sys
from pathlib import Path
from vigil.processes import Child, Keeper
code = "import os, time; open('child.pid', 'w').write(str(os.getpid())); time.sleep(600)"
child = Child("child", (sys.executable, "-c", code))
asyncio.run(Keeper(child, Path("logs")).run())
"""


async def until_up(keeper: Keeper, tmp_path: Path, times: int = 1) -> int:
    path = tmp_path / f"{keeper.child.name}.log"
    await until(lambda: path.exists() and path.read_text().count("up") >= times, what=f"start {times}")
    assert keeper.process is not None
    return keeper.process.pid


@pytest.mark.parametrize(("deaths", "seconds"), [(1, 0.5), (2, 1.0), (3, 2.0), (20, BACKOFF_LAST_S)])
def test_a_child_that_keeps_dying_is_started_later_each_time(deaths: int, seconds: float) -> None:
    assert backoff_s(deaths) == seconds


async def test_a_killed_child_is_started_again(tmp_path: Path) -> None:
    keeper = Keeper(Child("child", (sys.executable, "-c", SLEEPER)), tmp_path)
    task = asyncio.create_task(keeper.run())
    first = await until_up(keeper, tmp_path)
    os.kill(first, signal.SIGKILL)
    second = await until_up(keeper, tmp_path, times=2)
    assert second != first
    assert keeper.restarts == 1
    await keeper.stop()
    await task
    assert gone(second)


async def test_each_death_in_a_row_makes_the_pause_before_the_next_start_longer(tmp_path: Path) -> None:
    keeper = Keeper(Child("child", (sys.executable, "-c", "")), tmp_path)
    with capture_logs() as said:
        task = asyncio.create_task(keeper.run())
        await until(lambda: keeper.restarts > 1, what="two deaths")
        await keeper.stop()
        await task
    assert [line["again_in_s"] for line in said if line["event"] == "died"][:2] == [0.5, 1.0]


async def test_a_child_that_does_not_stop_in_time_is_killed(tmp_path: Path) -> None:
    keeper = Keeper(Child("child", (sys.executable, "-c", STUBBORN), stop_within_s=0.2), tmp_path)
    task = asyncio.create_task(keeper.run())
    pid = await until_up(keeper, tmp_path)
    await keeper.stop()
    await task
    assert gone(pid)


async def test_a_command_that_does_not_exist_is_said_in_its_log(tmp_path: Path) -> None:
    keeper = Keeper(Child("child", ("/no/such/command",)), tmp_path)
    task = asyncio.create_task(keeper.run())
    await until(lambda: keeper.restarts > 0, what="a second try")
    await keeper.stop()
    await task
    assert "/no/such/command" in (tmp_path / "child.log").read_text()


def test_children_die_with_a_killed_supervisor(tmp_path: Path) -> None:
    supervisor = subprocess.Popen([sys.executable, "-c", SUPERVISOR], cwd=tmp_path)
    try:
        path = tmp_path / "child.pid"
        pid = int(eventually(lambda: path.exists() and path.read_text(), 20, "the child did not start"))
        assert not gone(pid)
    finally:
        supervisor.kill()
        supervisor.wait(10)
    eventually(lambda: gone(pid), 5, "the child outlived its supervisor")


def test_a_state_directory_has_one_holder_and_says_which(tmp_path: Path) -> None:
    from telemetry.errors import StateLocked

    with locked(tmp_path), pytest.raises(StateLocked, match=str(os.getpid())), locked(tmp_path):
        pass
    with locked(tmp_path):
        assert (tmp_path / "lock").read_text() == str(os.getpid())
