"""What processes that share one machine need: ports of their own, and files that are never seen half-written."""

from __future__ import annotations

import os
import socket
from pathlib import Path


def is_free(port: int) -> bool:
    """Whether nothing listens on a loopback port, so that one may. False for 0, which is no port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return port > 0


def free_port() -> int:
    """A loopback port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def write_whole(path: Path, text: str) -> None:
    """Replaces a file in one step, so that a reader sees the old text or the new, also after a power cut."""
    temporary = path.with_suffix(".new")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
