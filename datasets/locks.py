"""Keeps processes from writing the same folder at a time."""

from __future__ import annotations

from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows: there they are not kept apart
    fcntl = None  # type: ignore[assignment]


def lock_file(path: Path) -> IO[str]:
    """An open file that no other process can lock until it is closed or this process ends.

    Raises:
        BlockingIOError: another process holds it.
        OSError: it cannot be made.
    """
    file = path.open("w")
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            file.close()
            raise
    return file
