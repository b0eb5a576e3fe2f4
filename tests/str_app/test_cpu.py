"""CPU cores that a process may really use."""

from __future__ import annotations

from pathlib import Path

import pytest

from str_app import cpu

GROUPS = {
    "no cgroup": ({}, 8),
    "no quota": ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "max 100000"}, 8),
    "container": ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "200000 100000"}, 2),
    "container that sees its host's path": (
        {"proc/self/cgroup": "0::/docker/abc", "sys/fs/cgroup/cpu.max": "100000 100000"},
        1,
    ),
    "part of a core": ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "50000 100000"}, 1),
    "unit in a limited slice": (
        {
            "proc/self/cgroup": "0::/system.slice/str.service",
            "sys/fs/cgroup/system.slice/cpu.max": "300000 100000",
            "sys/fs/cgroup/system.slice/str.service/cpu.max": "max 100000",
        },
        3,
    ),
    "version 1": (
        {
            "proc/self/cgroup": "3:cpu,cpuacct:/docker/abc\n2:memory:/docker/abc",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "150000",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
        },
        1,
    ),
    "version 1 without quota": (
        {
            "proc/self/cgroup": "3:cpu,cpuacct:/",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
        },
        8,
    ),
}


@pytest.mark.parametrize("kind", GROUPS)
def test_usable_cores(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, cores = GROUPS[kind]
    monkeypatch.setattr(cpu.os, "sched_getaffinity", lambda pid: set(range(8)))
    for path, content in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content + "\n")
    assert cpu.usable_cores(tmp_path) == cores


def test_affinity_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cpu.os, "sched_getaffinity", lambda pid: {3})
    assert cpu.usable_cores(tmp_path) == 1
