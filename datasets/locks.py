"""Keeps processes from writing the same folder at a time."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows: there they are not kept apart
    fcntl = None  # type: ignore[assignment]


# What file systems without locks answer: there, too, processes are not kept apart.
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


def lock_file(path: Path) -> IO[str]:
    """An open file that no other process can lock until it is closed, or this process and those forked from it end.

    Raises:
        BlockingIOError: another process holds it.
        OSError: it cannot be made.
    """
    file = path.open("w")
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in WITHOUT_LOCKS:
                file.close()
                raise
    return file
