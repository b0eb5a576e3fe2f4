"""How many CPU cores this process may really use."""

from __future__ import annotations

import os
from pathlib import Path


def usable_cores(root: Path = Path("/")) -> int:
    """Smaller of the CPU affinity and the cgroup's CPU quota (v2 or v1), at least 1.

    A container with `--cpus 1` still sees every core of its host; one thread for each of them gets throttled.
    A quota of 1.5 counts as 1: threads that wait for each other lose more to throttling than half a core gives.

    Args:
        root: where `proc` and `sys` are mounted (tests).
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cores, *(int(quota) for quota in _quotas(root))]))


def _quotas(root: Path) -> list[float]:
    """Quotas, in cores, of this process's cgroup and of the groups it lies in."""
    quotas = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
        # Inside a container the path may be the host's while the mount shows the group itself: the mount counts too.
        place = Path(group.lstrip("/"))
        for folder in [mount, *(mount / part for part in (place, *place.parents))]:
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
