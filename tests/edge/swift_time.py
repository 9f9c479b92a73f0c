"""An event loop whose clock jumps to its next timer whenever nothing is to be done, over real sockets of this machine.

What a busy machine takes to run the code is not in the measured times: they are those of the policy alone, the same in
each run. Bytes sent over loopback are there at once; GRACE_S of the world is given to the kernel before time moves on.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

GRACE_S = 0.000_1
STUCK_S = 10.0


class _Selector(selectors.SelectSelector):
    """Never waits for time, only for bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        ready = super().select(GRACE_S)
        if ready:
            return ready
        if timeout is None:
            ready = super().select(STUCK_S)
            assert ready, "nothing to do and nothing to wait for"
            return ready
        self.now_s += timeout
        return []


class SwiftLoop(asyncio.SelectorEventLoop):
    """See the module."""

    def __init__(self) -> None:
        self._swift = _Selector()
        super().__init__(self._swift)

    def time(self) -> float:
        return self._swift.now_s


class LoopClock:
    """telemetry.clock.Clock by the running loop's time."""

    speed = 1.0

    def now_us(self) -> int:
        return 1_795_000_000_000_000 + int(self.monotonic_s() * 1e6)

    def monotonic_s(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def run_swiftly(main: Callable[[], Awaitable[T]]) -> T:
    """Runs a coroutine function on a loop of its own."""

    async def wrapped() -> T:
        return await main()

    with asyncio.Runner(loop_factory=SwiftLoop) as runner:
        return runner.run(wrapped())
