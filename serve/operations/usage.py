"""Memory and CPU time of a server's model processes, counted for as long as the server lives."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from str_app.serve.operations.metrics import Usage


class UsageRecord:
    """What the processes of a server use, and have used: CPU time is a counter, which must never fall.

    The CPU time of processes that have ended stays in it, whether they were killed or a reload replaced them.
    Thread-safe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[int, float] = {}  # CPU seconds by process id, as last seen
        self._ended_cpu_seconds = 0.0
        self._restarts = 0

    def add(self, pid: int) -> None:
        """Count a process that has started."""
        with self._lock:
            self._ended_cpu_seconds += self._running.pop(pid, 0.0)  # another process had the same id
            self._running[pid] = 0.0

    def remove(self, pid: int) -> None:
        """Keep the CPU time of a process that has ended. Call it before `wait`, after which /proc has nothing of it."""
        with self._lock:
            if pid in self._running:
                self._ended_cpu_seconds += self._look(pid).cpu_seconds
                del self._running[pid]

    def count_restart(self) -> None:
        """Count a process that ended unexpectedly and is started again."""
        with self._lock:
            self._restarts += 1

    @property
    def usage(self) -> Usage:
        """Memory of the processes that run, CPU time of these and of all that have ended."""
        with self._lock:
            running = [self._look(pid) for pid in self._running]
            return Usage(
                sum(usage.resident_bytes for usage in running),
                self._ended_cpu_seconds + sum(usage.cpu_seconds for usage in running),
                self._restarts,
            )

    def _look(self, pid: int) -> Usage:
        now = _of_process(pid)
        self._running[pid] = max(self._running[pid], now.cpu_seconds)
        return now._replace(cpu_seconds=self._running[pid])


def _of_process(pid: int) -> Usage:
    """Zeros where /proc does not tell."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    except OSError:
        return Usage(0, 0.0)
    return Usage(pages * os.sysconf("SC_PAGE_SIZE"), sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK"))
