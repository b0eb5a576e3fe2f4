"""Drawing in several processes, one of which may be killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from str_app.datasets.renderer.worker_pool import draw_all
from str_app.datasets.sample import DataError


def doubler() -> Callable[[int], int]:
    return double


def double(job: int) -> int:
    if job == 70:
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * job


def test_order_is_that_of_the_jobs() -> None:
    assert list(draw_all(doubler, iter(range(60)), workers=2)) == [2 * job for job in range(60)]


def test_a_killed_process_is_an_error() -> None:
    with pytest.raises(DataError, match="was killed, probably out of memory: use fewer --workers"):
        list(draw_all(doubler, range(100), workers=2))
