"""Drawing with several processes: their number changes neither what is drawn nor its order."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import cv2

Job = TypeVar("Job")
Result = TypeVar("Result")

_draw: Callable[[Any], Any] | None = None  # of a worker process, set by its initialiser


def draw_all(
    make_draw: Callable[[], Callable[[Job], Result]], jobs: Iterable[Job], workers: int = 1
) -> Iterator[Result]:
    """What is drawn for each job, in the order of the jobs.

    Args:
        make_draw: called once in every process, for a function that draws what a job says. It must pickle; what it
            returns need not.
        jobs: what to draw; they must pickle.
        workers: number of processes; 1 draws in this process.
    """
    if workers == 1:
        yield from map(make_draw(), jobs)
        return
    # spawn: a fork would copy the caller's locks but not its threads.
    with multiprocessing.get_context("spawn").Pool(workers, _start_worker, (make_draw,)) as pool:
        yield from pool.imap(_draw_one, jobs)


def _start_worker(make_draw: Callable[[], Callable[[Any], Any]]) -> None:
    global _draw
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops the workers
    cv2.setNumThreads(1)
    _draw = make_draw()


def _draw_one(job: Any) -> Any:
    assert _draw is not None
    return _draw(job)
