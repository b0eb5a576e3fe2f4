"""Memory goes back to the system."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROBE = """
import ctypes, os
from pathlib import Path
from str_app.serve.operations import memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

{release}
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
size = 24 * 2**20
libc.free(libc.malloc(size))  # glibc takes it as a hint to keep blocks of this size
blocks = [libc.malloc(size) for _ in range(4)]
for block in blocks:
    ctypes.memset(block, 1, size)
kept = libc.malloc(2**20)  # lies above them, if they are in the heap
before = resident()
for block in blocks:
    libc.free(block)
print((before - resident()) // size)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
@pytest.mark.parametrize(("release", "returned"), [("", 0), ("memory.release_large_blocks()", 4)])
def test_large_blocks_are_returned_when_freed(release: str, returned: int) -> None:
    probe = PROBE.format(release=release)
    output = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout
    assert int(output) in (returned, returned - 1)
