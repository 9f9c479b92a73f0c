"""COPY of rows into store.sample, by a thread: rows are encoded and sent while the event loop fetches and decodes the next.

Invariant: nobody else touches the connection while the thread does, however often the caller is cancelled. A COPY that is
cancelled closes its connection: a server that is dead in silence never answers the question to end it.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

import psycopg
from psycopg import pq

from ingest.copy import Rows, encoded

Connection = psycopg.AsyncConnection[Any]

SEND_BUFFER_BYTES: Final = 4 << 20
"""So much lies ready for the server while this process does something else; the system may allow less."""
POLL_MS: Final = 50
"""How soon the thread notices that it is not wanted any more."""


async def copy_rows(connection: Connection, rows: Rows, *, direct: bool) -> None:
    """COPY of rows, which must be ordered. Raises psycopg.Error. When it is cancelled, the connection is closed.

    `client_sorted` and `sort_batches` are off, whatever the server says: design.md, the store.
    """
    if not len(rows):
        return
    if direct:
        await connection.execute(_DIRECT)
    stream = encoded(rows)
    async with connection.cursor() as cursor, cursor.copy(_COPY) as copy:
        await copy.write(next(stream))  # the header by psycopg, so that it knows that data were sent
        await _in_thread(connection.pgconn, stream)
    if direct:
        await connection.execute("SET LOCAL timescaledb.enable_direct_compress_copy = off")


async def _in_thread(pgconn: pq.abc.PGconn, stream: Iterator[bytes | memoryview]) -> None:
    """Runs `_send`. Whoever cancels it waits for the thread, which is some POLL_MS at most."""
    unwanted = threading.Event()
    # No task: the end of a loop cancels all tasks, and one would be done while its thread goes on.
    sending = asyncio.get_running_loop().run_in_executor(None, _send, pgconn, stream, unwanted)
    try:
        await asyncio.shield(sending)
    except asyncio.CancelledError:
        unwanted.set()
        while not sending.done():
            with suppress(asyncio.CancelledError):  # again; the first one goes on below
                await asyncio.wait([sending])
        pgconn.finish()
        raise


def _send(pgconn: pq.abc.PGconn, stream: Iterator[bytes | memoryview], unwanted: threading.Event) -> None:
    """Sends all of the stream, or as much of it as is wanted."""
    with socket.socket(fileno=os.dup(pgconn.socket)) as same:
        same.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    poll = select.poll()
    poll.register(pgconn.socket, select.POLLOUT)
    for part in stream:
        while pgconn.put_copy_data(part) == 0 and not unwanted.is_set():
            poll.poll(POLL_MS)
        while pgconn.flush() and not unwanted.is_set():
            poll.poll(POLL_MS)
        if unwanted.is_set():
            return


_DIRECT: Final = """
SET LOCAL timescaledb.enable_direct_compress_copy = on;
SET LOCAL timescaledb.enable_direct_compress_copy_client_sorted = off;
SET LOCAL timescaledb.enable_direct_compress_copy_sort_batches = off;
"""
_COPY: Final = "COPY store.sample (signal_id, time, value, quality) FROM STDIN (FORMAT binary)"
