"""Maps shards over processes of this machine that may die: what a dead one was at is given to another."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from typing import Any, Protocol, TypeVar

from str_app.datasets.processes import end_with_parent
from str_app.errors import StrAppError


class Numbered(Protocol):
    """A shard."""

    @property
    def number(self) -> int: ...


S = TypeVar("S", bound=Numbered)
R = TypeVar("R", bound=Numbered)

MAX_FAILURES = 3  # pools that may break in a row without a single shard done in between

_task: Callable[[Any], Any] | None = None  # of a worker process, set by its initialiser


def in_processes(task: Callable[[S], R], shards: Sequence[S], workers: int) -> Iterator[R]:
    """The results of `task`, in the order in which they are done.

    Args:
        task: pickles; each process has one for all its shards.
        shards: what it is called with; doing one twice must not harm.
        workers: number of processes.

    Raises:
        StrAppError: processes die again and again.
        Exception: the first that `task` raises.
    """
    remaining = {shard.number: shard for shard in shards}
    failures = 0
    while remaining:
        # spawn: a fork would copy the caller's locks but not its threads.
        context = multiprocessing.get_context("spawn")
        lifeline, ours = context.Pipe(duplex=False)
        pool = ProcessPoolExecutor(min(workers, len(remaining)), context, _start, (task, lifeline))
        done = False
        try:
            for result in _results(pool, list(remaining.values()), 2 * workers):
                del remaining[result.number]
                failures = 0
                yield result
            done = True
        except BrokenProcessPool:
            failures += 1
            if failures == MAX_FAILURES:
                at = ", ".join(map(str, sorted(remaining)[:workers]))
                raise StrAppError(
                    f"processes were killed {failures} times without finishing a shard, most likely at shards {at}: "
                    "out of memory (fewer --workers), or an image that crashes its decoder"
                ) from None
        finally:
            if not done:
                ours.close()  # they need not finish their shards
            pool.shutdown(wait=True, cancel_futures=True)
            ours.close()
            lifeline.close()


def _results(pool: ProcessPoolExecutor, shards: Sequence[S], most: int) -> Iterator[Any]:
    """Submit `most` shards at a time: a part of a folder is a list of names, and there may be thousands."""
    queue = iter(shards)
    running: set[Future[Any]] = set()
    while True:
        while len(running) < most and (shard := next(queue, None)) is not None:
            running.add(pool.submit(_call, shard))
        if not running:
            return
        done, running = wait(running, return_when=FIRST_COMPLETED)
        # Those that are done before those that are lost with the pool.
        for future in sorted(done, key=lambda each: each.exception() is not None):
            yield future.result()


def _start(task: Callable[[Any], Any], lifeline: Connection) -> None:
    global _task
    _task = task
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops the workers
    end_with_parent(lifeline)


def _call(shard: Any) -> Any:
    assert _task is not None
    return _task(shard)
