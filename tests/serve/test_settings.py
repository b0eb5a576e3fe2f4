from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from serve import cpu
from serve.settings import Settings
from str_app.cli import app
from str_app.cli.serve import serve


def test_arguments_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STR_APP_PORT", "9000")
    monkeypatch.setenv("STR_APP_MAX_BATCH", "8")
    settings = Settings(port=9001)
    assert (settings.port, settings.max_batch) == (9001, 8)


def test_help_names_every_setting() -> None:
    options = inspect.signature(serve).parameters
    assert not [
        name for name in Settings.model_fields if name not in options and f"STR_APP_{name.upper()}" not in serve.__doc__
    ]
    assert set(options) <= set(Settings.model_fields)


def test_wrong_setting_is_wrong_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STR_APP_MAX_IMAGES", "many")
    outcome = CliRunner().invoke(app, ["serve"])
    assert outcome.exit_code == 2
    assert "max_images" in outcome.output


def test_a_full_request_must_fit_the_queue() -> None:
    with pytest.raises(ValidationError, match="max_pending"):
        Settings(max_pending=10, max_images=64)


def test_a_full_body_must_fit_the_memory() -> None:
    with pytest.raises(ValidationError, match="max_upload_bytes"):
        Settings(max_body_bytes=2**30)


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
