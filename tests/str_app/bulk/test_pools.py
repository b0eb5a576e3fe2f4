"""Pools give every shard a result, whoever dies; errors of a task reach the caller as they are."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from str_app.bulk.processes import in_processes
from str_app.bulk.ray_pool import RayOptions, on_ray
from str_app.errors import StrAppError
from tests.str_app.bulk.tasks import Done, Given, Work

Pool = Callable[[Work, Sequence[Given]], Iterator[Done]]
SHARDS = [Given(number) for number in range(12)]


def ray(task: Work, shards: Sequence[Given]) -> Iterator[Done]:
    pytest.importorskip("ray", reason="pip install -e '.[ray]' brings it")
    return on_ray(task, shards, RayOptions(actors=2, memory=2**28))


def processes(task: Work, shards: Sequence[Given]) -> Iterator[Done]:
    return in_processes(task, shards, 2)


@pytest.fixture(params=[processes, pytest.param(ray, marks=pytest.mark.slow)])
def pool(request: Any) -> Pool:
    return request.param


def test_every_shard_once_though_processes_are_killed(pool: Pool, tmp_path: Path) -> None:
    results = list(pool(Work(tmp_path, killed=(0, 5, 11)), SHARDS))
    assert sorted(result.number for result in results) == list(range(12))
    assert os.getpid() not in {result.pid for result in results}


def test_an_error_of_the_task_ends_the_run(pool: Pool, tmp_path: Path) -> None:
    with pytest.raises(StrAppError, match="shard 3 has another model"):
        list(pool(Work(tmp_path, wrong=(3,)), SHARDS))


def test_nobody_waits_for_shards_that_nobody_wants(tmp_path: Path) -> None:
    results = processes(Work(tmp_path, endless=(3,)), SHARDS)
    assert next(results).number in (0, 1, 2)
    results.close()  # type: ignore[attr-defined]
    with pytest.raises(StrAppError, match="shard 4"):
        list(processes(Work(tmp_path, endless=(3,), wrong=(4,)), SHARDS))


def test_processes_that_are_always_killed(tmp_path: Path) -> None:
    with pytest.raises(StrAppError, match=r"killed 3 times without finishing a shard, most likely at shards 4"):
        list(processes(Work(tmp_path, deadly=(4,)), SHARDS))


def test_workers_end_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    program = (
        "import os, signal\n"
        "from pathlib import Path\n"
        "from str_app.bulk.processes import in_processes\n"
        "from tests.str_app.bulk.tasks import Given, Work\n"
        "if __name__ == '__main__':\n"
        "    results = in_processes(Work(Path()), [Given(k) for k in range(9)], 2)\n"
        "    print(next(results).pid, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    (tmp_path / "driver.py").write_text(program)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    driver = subprocess.run([sys.executable, tmp_path / "driver.py"], capture_output=True, text=True, env=environment)
    worker = int(driver.stdout)
    deadline = time.monotonic() + 30
    while Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{worker}").exists()
