"""TCP links that can be cut, torn, slowed down, and left half-open: what a network does to a connection.

Each link listens on a loopback port and carries every connection to one upstream. Faults are begun and ended from other
threads; the links themselves live on the event loop of one thread.

    cut         every connection is reset, and new ones are, until the fault ends
    tear        as `cut`, but the next bytes of each connection go over in part first: a message is torn in two
    delay       bytes wait `delay_s` before they go on, both ways
    throttle    `bytes_per_s` at most, both ways
    deaf        what the client says arrives, the answers do not: a commit or a record is done, and nobody hears of it. When
                the fault ends the connections that stood are reset
    half-open   connections that stand carry nothing any more, and nobody is told; new ones work. When the fault ends
                they are reset
    black-hole  the same, and they are never reset: whoever sits at their ends has to find out
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

T = TypeVar("T")

CHUNK: Final = 64 << 10
ANSWER_S: Final = 10.0
KINDS: Final = ("cut", "tear", "delay", "throttle", "deaf", "half-open", "black-hole")

Upstream = int | Path
"""A loopback port, or a unix socket."""


@dataclass(slots=True, eq=False)
class Connection:
    """Two streams and their state."""

    writers: list[asyncio.StreamWriter]
    hushed: bool = False
    """Carries nothing any more."""
    deaf: bool = False
    """Carries no answers."""
    tear: bool = False

    def reset(self) -> None:
        """RST both ways: what is buffered is dropped."""
        for writer in self.writers:
            found = writer.get_extra_info("socket")
            if found is not None and found.family != socket.AF_UNIX:
                with suppress(OSError):
                    found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


@dataclass(slots=True, eq=False)
class Link:
    """One way that can fail. Its state belongs to the loop's thread."""

    name: str
    port: int
    upstream: Upstream
    down: bool = False
    delay_s: float = 0.0
    bytes_per_s: float = 0.0
    connections: set[Connection] = field(default_factory=set)
    carried: int = 0
    """Bytes."""
    resets: int = 0
    hushed: int = 0

    def begin(self, kind: str, drawn: random.Random) -> None:
        """What happens to the link, and to the connections that stand."""
        match kind:
            case "cut":
                self.down = True
                self._reset(self.connections)
            case "tear":
                self.down = True
                for connection in self.connections:
                    connection.tear = True
            case "delay":
                self.delay_s = drawn.uniform(0.05, 0.4)
            case "throttle":
                self.bytes_per_s = drawn.uniform(30_000, 150_000)
            case "deaf":
                for connection in self.connections:
                    connection.deaf = True
            case "half-open" | "black-hole":
                for connection in self.connections:
                    connection.hushed = True
                self.hushed += len(self.connections)
            case _:
                raise ValueError(f"kind: expected one of {KINDS}, found {kind!r}")

    def end(self, kind: str) -> None:
        """All is well again, for new connections at least."""
        self.down, self.delay_s, self.bytes_per_s = False, 0.0, 0.0
        if kind == "tear":
            self._reset({connection for connection in self.connections if connection.tear})
        if kind in ("half-open", "deaf"):
            self._reset({connection for connection in self.connections if connection.hushed or connection.deaf})

    def _reset(self, connections: set[Connection]) -> None:
        self.resets += len(connections)
        for connection in list(connections):
            connection.reset()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, from its beginning to its end."""
        connection = Connection([writer])
        if self.down:
            connection.reset()
            return
        try:
            up_reader, up_writer = await _connect(self.upstream)
        except OSError:
            connection.reset()
            return
        connection.writers.append(up_writer)
        self.connections.add(connection)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._carry(connection, reader, up_writer, answers=False))
                group.create_task(self._carry(connection, up_reader, writer, answers=True))
        finally:
            self.connections.discard(connection)
            for one in connection.writers:
                one.transport.abort()

    async def _carry(
        self, connection: Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool
    ) -> None:
        """Bytes one way, until the end. A connection that is hushed swallows them, and their end."""
        with suppress(OSError):
            while data := await reader.read(CHUNK):
                if connection.hushed or (answers and connection.deaf):
                    continue
                if connection.tear:
                    writer.write(data[: len(data) // 2])
                    await writer.drain()
                    self._reset({connection})
                    return
                if wait_s := self.delay_s + (len(data) / self.bytes_per_s if self.bytes_per_s else 0.0):
                    await asyncio.sleep(wait_s)
                writer.write(data)
                await writer.drain()
                self.carried += len(data)
            if not connection.hushed and writer.can_write_eof():
                writer.write_eof()


async def _connect(upstream: Upstream) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if isinstance(upstream, Path):
        return await asyncio.open_unix_connection(str(upstream))
    return await asyncio.open_connection("127.0.0.1", upstream)


class Relay:
    """The links' thread. A context manager."""

    def __init__(self) -> None:
        self.links: dict[str, Link] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay", daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()
        self._servers: list[asyncio.Server] = []

    def __enter__(self) -> Relay:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(ANSWER_S)
        self._loop.close()

    def add(self, name: str, upstream: Upstream, *, port: int = 0) -> Link:
        """A link that listens from now on; on a free port, unless one is given."""
        return self._run(self._add(name, upstream, port))

    def do(self, work: Callable[[], T]) -> T:
        """Runs something on the links' thread."""

        async def answer() -> T:
            return work()

        return self._run(answer())

    async def _add(self, name: str, upstream: Upstream, port: int) -> Link:
        link = Link(name, port, upstream)

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(link.serve(reader, writer), name=name)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        server = await asyncio.start_server(accept, "127.0.0.1", port)
        link.port = server.sockets[0].getsockname()[1]
        self._servers.append(server)
        self.links[name] = link
        return link

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=ANSWER_S)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(ANSWER_S)
