"""The threads that have batches read, fed by a bounded queue: images of all clients are read together."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import ceil, inf
from typing import TYPE_CHECKING

from str_app.buckets import bucket_sizes
from str_app.serve.errors import ProblemError
from str_app.serve.inference.jobs import CropJob, ViewResult, set_results
from str_app.serve.operations.metrics import MeasuresUsage, Metrics, Usage

if TYPE_CHECKING:
    from str_app.pipeline import CanvasReader
    from str_app.views import Canvas

logger = logging.getLogger("str_app.serve")
# The canvas width with most images goes first, unless an image has waited this long.
MAX_OVERTAKEN_S = 0.25
# Views of long lines in a batch: a view takes up to 0.1 s, and all others wait for the batch.
MAX_LONG = 4
RECENT = 0.998  # what a crop counts when the next one comes
FIRST_SECONDS = 0.01  # that a view is taken to need until it is known


def split_cores(cores: int) -> tuple[int, int]:
    """How many batches run at the same time, and the cores of each."""
    return min(2, cores), max(1, cores // 2)


@dataclass
class _QueuedView:
    canvas: Canvas
    reader: CanvasReader
    result: asyncio.Future[ViewResult]
    turn: int
    long: bool  # of a line that is read in parts
    since: float = field(default_factory=time.perf_counter)


class Batcher:
    """Collects images and reads them in batches on its own threads: two, or one if there is one core.

    Each thread has half the cores even while the other is idle. Two concurrent batches lose less than one with all
    cores: the event loop interrupts only one of them, and OpenMP threads spin while waiting only as long as there are
    no more threads than cores.

    A batch starts as soon as a thread is free, with the images of the most frequent canvas width, in the largest bucket
    they fill; after `MAX_OVERTAKEN_S` with the width of the first image of the queue. An idle server thus adds no
    latency, a busy one fills its batches, and no width starves. An image whose future is cancelled before its batch
    starts (too late, or its client has disconnected) is not computed. The event loop is woken once per batch.

    Requests take turns (start-time fair queueing): in each, a request has a batch of views, or `MAX_LONG` of long
    lines, so that one with hundreds of views delays others by no more. A new request begins with the turn after the
    latest that has been read: if a turn that has begun could get more views, new requests could keep others waiting.
    Variants follow the other views of their request, whose turn may be over: they do not wait again behind all that
    came meanwhile, or the last of them would miss the deadline under overload.

    Args:
        load: makes the reader; called on a thread of the batcher.
        threads: cores for the model.
        max_batch: most images in a batch.
        max_pending: most images admitted at the same time.
        max_queue_s: no more are admitted while a new request would have to wait for longer, by measured speed.
        max_wait_s: how long an idle thread waits to fill a batch.
        metrics: where queue, batches and times are recorded.

    Attributes:
        loaded: done when the model is loaded; has the exception if that failed.
    """

    def __init__(
        self,
        load: Callable[[], CanvasReader],
        *,
        max_batch: int,
        max_pending: int,
        max_queue_s: float = inf,
        max_wait_s: float = 0.0,
        threads: int = 1,
        metrics: Metrics,
    ) -> None:
        self.loaded: Future[None] = Future()
        self._load = load
        self._buckets = bucket_sizes(max_batch)
        self._max_pending = max_pending
        self._max_queue_s = max_queue_s
        self._max_wait_s = max_wait_s
        self._metrics = metrics
        self._pending = 0  # used on the event loop only
        self._queue: list[_QueuedView] = []  # by turn, then in the order in which they came
        self._turn = 0  # the latest that has been read
        self._ahead_s = 0.0  # how long a new request would wait for views that are queued
        self._changed = threading.Condition()
        self._closed = False
        self._warm = threading.Event()
        self._seconds: dict[tuple[int, ...], float] = {}  # of a view, by the shape of its canvas
        self._views, self._variants = 1.0, 0.0  # how many were queued lately
        self._reader: CanvasReader | None = None
        self._workers, self._cores_each = split_cores(threads)
        self._all_warm = threading.Barrier(self._workers)
        self._first = threading.Thread(target=self._load_and_work, name="inference", daemon=True)
        self._second = threading.Thread(target=self._work, name="inference-2", daemon=True)
        metrics.queue_depth.set_function(lambda: len(self._queue))
        metrics.pending.set_function(lambda: self._pending)
        metrics.model_usage = self._usage

    def start(self) -> None:
        """Load the model on one of the threads, then warm up; see `loaded` and `ready`."""
        if self._first.ident is None:
            self._first.start()

    def close(self) -> None:
        """Finish what is queued and end the threads. Blocks."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._first.join()
        if self._second.ident is not None:
            self._second.join()

    @property
    def ready(self) -> bool:
        """True once every thread has computed every bucket."""
        return self._warm.is_set() and self.alive

    @property
    def alive(self) -> bool:
        return self._first.is_alive() and (self._second.ident is None or self._second.is_alive())

    @property
    def reader(self) -> CanvasReader:
        """The model for requests that begin now."""
        assert self._reader is not None, "not loaded yet"
        return self._reader

    def reload(self) -> None:
        """Load and warm up a new reader beside the old one, then use it for new requests. Blocks.

        Raises:
            Exception: from `load`; the old reader is kept.
        """
        reader = self._load()
        self._warm_up(reader)
        self._reader = reader

    def check_capacity(self, images: int = 1) -> None:
        """Check whether `images` more could be admitted now.

        Raises:
            ProblemError: 429 if not; 503 while the model is not ready.
        """
        if not self.ready:
            raise ProblemError(503, "warming_up", "The model is not ready yet; try again in 1 s.", {"Retry-After": "1"})
        full = self._pending + images > self._max_pending
        if full or self._ahead_s > self._max_queue_s:
            why = f"the limit is {self._max_pending}" if full else "more would not be read in time"
            wait = max(1, ceil(self._ahead_s))
            raise ProblemError(
                429,
                "overloaded",
                f"{self._pending} images are being read and {why}; try again in {wait} s.",
                {"Retry-After": str(wait)},
            )

    @contextmanager
    def admit(self, images: int) -> Iterator[None]:
        """Count `images` as pending until the block ends; all or none are admitted.

        Raises:
            ProblemError: 413 if there are more than could ever be admitted; 429 with Retry-After by measured speed.
        """
        if images > self._max_pending:
            raise ProblemError(
                413, "too_many_images", f"The request needs {images} readings; the limit is {self._max_pending}."
            )
        self.check_capacity(images)
        self._pending += images
        try:
            yield
        finally:
            self._pending -= images

    def submit(self, job: CropJob, reader: CanvasReader) -> None:
        """Queue the views of a decoded crop to be read by `reader`. Thread-safe."""
        with self._changed:
            long = any(canvas.span for canvas in job.views)
            step = 1 / (MAX_LONG if long else self._buckets[-1])
            variants = any(canvas.one_look for canvas in job.views)
            self._views = RECENT * self._views + (0 if variants else len(job.views))
            self._variants = RECENT * self._variants + (len(job.views) if variants else 0)
            first = max(0.0 if variants else self._turn + 1.0, job.share.next_turn)
            job.share.next_turn = first + step * len(job.views)
            self._queue += [
                _QueuedView(canvas, reader, result, int(first + step * index), long)
                for index, (canvas, result) in enumerate(zip(job.views, job.results, strict=False))
            ]
            self._queue.sort(key=lambda view: view.turn)
            self._measure_ahead()
            self._changed.notify(len(job.views))

    def _usage(self) -> Usage:
        return self._reader.usage if isinstance(self._reader, MeasuresUsage) else Usage(0, 0.0)

    def _load_and_work(self) -> None:
        try:
            self._reader = self._load()
        except BaseException as error:
            self.loaded.set_exception(error)
            return
        self.loaded.set_result(None)
        if self._workers > 1:
            self._second.start()
        self._work()

    def _work(self) -> None:
        try:
            self._warm_up(self.reader)  # on each thread, since caches may be per thread
            self._all_warm.wait()
        except BaseException:
            self._all_warm.abort()  # or the other thread would wait forever
            raise
        self._warm.set()
        while self._read_next():
            pass

    def _read_next(self) -> bool:
        """Read the next batch; False when closed. A function, so that no local keeps a reader alive after a reload."""
        batch = self._next_batch()
        if batch:
            batch[0].reader.use_threads(self._cores_each)
            self._read(batch)
        return bool(batch)

    def _warm_up(self, reader: CanvasReader) -> None:
        reader.use_threads(self._cores_each)
        reader.warm_up(self._buckets)

    def _next_batch(self) -> list[_QueuedView]:
        """Wait for the next batch and take it from the queue; empty when closed and the queue is empty."""
        with self._changed:
            while True:
                self._drop_cancelled()
                candidates = self._candidates()
                wait = self._max_wait_s if candidates and len(candidates) < self._buckets[-1] else 0.0
                if candidates and not self._closed:
                    wait -= time.perf_counter() - candidates[0].since
                if self._closed or (candidates and wait <= 0):
                    break
                self._changed.wait(wait if candidates else None)
            size = max((bucket for bucket in self._buckets if bucket <= len(candidates)), default=0)
            batch = candidates[:size]
            taken = set(map(id, batch))
            self._turn = max([self._turn, *(view.turn for view in batch)])
            self._queue = [view for view in self._queue if id(view) not in taken]
            self._measure_ahead()
        return batch

    def _candidates(self) -> list[_QueuedView]:
        """Queued views for one batch: of one reader and canvas width, by turn, at most the largest bucket."""
        if not self._queue:
            return []
        groups: dict[tuple[int, tuple[int, ...]], list[_QueuedView]] = {}
        longs: Counter[tuple[int, tuple[int, ...]]] = Counter()
        for view in self._queue:
            kind = (id(view.reader), view.canvas.pixels.shape)
            longs[kind] += view.long
            if not view.long or longs[kind] <= MAX_LONG:
                groups.setdefault(kind, []).append(view)
        first, *_ = groups.values()
        overdue = time.perf_counter() - first[0].since > MAX_OVERTAKEN_S
        group = first if overdue else max(groups.values(), key=len)
        return group[: self._buckets[-1]]

    def _drop_cancelled(self) -> None:
        remaining = [view for view in self._queue if not view.result.cancelled()]
        if len(remaining) < len(self._queue):
            self._metrics.images.labels("abandoned").inc(len(self._queue) - len(remaining))
            self._queue = remaining
            self._measure_ahead()

    def _measure_ahead(self) -> None:
        """Called whenever the queue has changed."""
        to_come = 1 + self._variants / max(1.0, self._views)  # variants of queued views will be read before others, too
        self._ahead_s = sum(
            self._seconds_of(view.canvas) * (1 if view.canvas.one_look else to_come)
            for view in self._queue
            if view.turn <= self._turn + 1
        )

    def _seconds_of(self, canvas: Canvas) -> float:
        """Seconds that a view takes when batches are full, as measured lately."""
        return self._seconds.get(canvas.pixels.shape, FIRST_SECONDS)

    def _read(self, batch: list[_QueuedView]) -> None:
        start = time.perf_counter()
        try:
            readings = batch[0].reader.read_canvases([view.canvas for view in batch], attention=True)
        except Exception as error:
            if len(batch) == 1:
                set_results([(batch[0].result, error)])
            else:
                logger.warning("batch of %d images failed (%r): reading them one by one", len(batch), error)
                for view in batch:
                    self._read([view])
            return
        seconds = time.perf_counter() - start
        if self._queue:  # in smaller batches, when nothing waits, a view takes longer
            canvas = batch[0].canvas
            before = self._seconds_of(canvas)
            self._seconds[canvas.pixels.shape] = before + 0.1 * (seconds / len(batch) / self._workers - before)
        self._metrics.batch_size.observe(len(batch))
        self._metrics.inference_seconds.observe(seconds)
        for view in batch:
            self._metrics.queue_seconds.observe(start - view.since)
        set_results(
            [
                (view.result, ViewResult(reading, start - view.since, seconds))
                for view, reading in zip(batch, readings, strict=True)
            ]
        )
