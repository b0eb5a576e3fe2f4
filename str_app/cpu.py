"""Number of CPU cores that this process may use."""

from __future__ import annotations

import os
from pathlib import Path


def usable_cores(root: Path = Path("/")) -> int:
    """The minimum of the CPU affinity and the cgroup's CPU quota (v2 or v1), at least 1.

    A container with `--cpus 1` sees all cores of its host, but one thread for each of them would be throttled. A quota
    of 1.5 counts as 1: throttled threads that wait for each other lose more than half a core gains.

    Args:
        root: where `proc` and `sys` are mounted; for tests.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cores, *(int(quota) for quota in _quotas(root))]))


def _quotas(root: Path) -> list[float]:
    """CPU quotas, in cores, of this process's cgroup and of the groups that contain it."""
    quotas = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
        # Inside a container the path may be the host's, while the mount shows the group itself: check the mount too.
        path = Path(group.lstrip("/"))
        for folder in [mount, *(mount / part for part in (path, *path.parents))]:
            if controllers:
                quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
            else:
                quota, _, period = _read(folder / "cpu.max").partition(" ")
            if quota.isdigit() and period.isdigit():
                quotas.append(int(quota) / int(period))
    return quotas


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
