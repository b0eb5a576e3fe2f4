"""Drawing with several processes: their number changes neither what is drawn nor its order."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, TypeVar

import cv2

from str_app.datasets.processes import end_with_parent
from str_app.datasets.sample import DataError

Job = TypeVar("Job")
Result = TypeVar("Result")

AHEAD = 8  # jobs that each process is given before the first of them is awaited

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

    Raises:
        DataError: a process was killed.
    """
    if workers == 1:
        yield from map(make_draw(), jobs)
        return
    # spawn: a fork would copy the caller's locks but not its threads.
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _start_worker, (make_draw,))
    drawn: deque[Future[Result]] = deque()
    try:
        for job in jobs:
            drawn.append(pool.submit(_draw_one, job))
            if len(drawn) > AHEAD * workers:
                yield drawn.popleft().result()
        while drawn:
            yield drawn.popleft().result()
    except BrokenProcessPool:
        raise DataError("a rendering process was killed, probably out of memory: use fewer --workers") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker(make_draw: Callable[[], Callable[[Any], Any]]) -> None:
    global _draw
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops the workers
    end_with_parent()
    cv2.setNumThreads(1)
    _draw = make_draw()


def _draw_one(job: Any) -> Any:
    assert _draw is not None
    return _draw(job)
