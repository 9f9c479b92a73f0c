"""A lock on a file that the kernel drops when its holder dies: who a process is, or that something is its own.

Invariant: a descriptor that `try_lock` gives holds the lock until it is closed; without one nothing stays open.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def try_lock(path: Path, *, create: bool = True) -> int | None:
    """A descriptor that holds the lock of `path`; None where another descriptor does, of whichever process.

    It is not inherited by programs that are started. Raises OSError where the file cannot be opened, FileNotFoundError
    where it is missing and not to be made.
    """
    handle = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    except BaseException:
        os.close(handle)
        raise
    return handle
