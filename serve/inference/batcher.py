"""The threads that have batches read, fed by a bounded queue: images of all clients are read together."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import ceil
from typing import TYPE_CHECKING

from str_app.buckets import bucket_sizes
from str_app.serve.http.problems import ProblemError
from str_app.serve.inference.jobs import Crop, Outcome, deliver
from str_app.serve.operations.telemetry import Metrics

if TYPE_CHECKING:
    from str_app.pipeline import CanvasReader
    from str_app.views import Canvas

logger = logging.getLogger("str_app.serve")
# A fuller batch of another canvas width may go first, but nobody waits longer for that.
OVERTAKEN_S = 0.25


def shares(threads: int) -> tuple[int, int]:
    """How many passes are made at once on as many cores, and the cores of each."""
    return min(2, threads), max(1, threads // 2)


@dataclass
class _Item:
    canvas: Canvas
    reader: CanvasReader
    outcome: asyncio.Future[Outcome]
    since: float = field(default_factory=time.perf_counter)


class Batcher:
    """Collects images and reads them in batches on threads of its own: two, or one where there is one core.

    Each has half the cores, also while the other has nothing to do. Two batches at once lose less than one with all
    cores: what the event loop takes for a moment stops only its own batch, and OpenMP spins while it waits for a core
    only as long as there are no more threads than cores.

    A batch starts at once when a thread is free: of the images of the canvas width that most are of, the largest
    bucket that is full; after `OVERTAKEN_S` the width of the image that has waited longest. So an idle server adds no
    waiting, a busy one fills its batches by itself, and no width starves. Cancelling the future of an image that has
    not been started (late, or its client has gone) takes it out of the queue uncomputed. The event loop is woken once
    for a whole batch.

    Args:
        load: makes the reader; called on a thread of the batcher.
        threads: cores for the model.
        max_batch: images read at once.
        max_pending: images admitted at once.
        max_wait_s: how long a batch that is not full waits for more images.
        metrics: where queue, batches and times are recorded.
    """

    def __init__(
        self,
        load: Callable[[], CanvasReader],
        *,
        max_batch: int,
        max_pending: int,
        max_wait_s: float = 0.0,
        threads: int = 1,
        metrics: Metrics,
    ) -> None:
        self.loaded: Future[None] = Future()
        self._load = load
        self._buckets = bucket_sizes(max_batch)
        self._max_pending = max_pending
        self._max_wait_s = max_wait_s
        self._metrics = metrics
        self._pending = 0  # touched by the event loop only
        self._waiting: list[_Item] = []
        self._changed = threading.Condition()
        self._closed = False
        self._warm = threading.Event()
        self._seconds_per_image = 0.01
        self._reader: CanvasReader | None = None
        self._workers, self._share = shares(threads)
        self._all_warm = threading.Barrier(self._workers)
        self._first = threading.Thread(target=self._run, name="inference", daemon=True)
        self._second = threading.Thread(target=self._work, name="inference-2", daemon=True)
        metrics.queue_depth.set_function(lambda: len(self._waiting))
        metrics.pending.set_function(lambda: self._pending)

    def start(self) -> None:
        """Load the model on one of the threads, then warm up; `loaded` and `ready` tell how far it is."""
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
        """What fits and reads the images of a request that begins now."""
        assert self._reader is not None, "not loaded yet"
        return self._reader

    def reload(self) -> None:
        """Load and warm up a new reader beside the old one, then read new requests with it. Blocks.

        Raises:
            Exception: as `load` does; the old reader then stays.
        """
        reader = self._load()
        self._warm_up(reader)
        self._reader = reader

    def check_room(self, images: int = 1) -> None:
        """Raise the 429 problem when `images` more cannot be admitted, 503 when nothing can be read at all."""
        if not self.ready:
            raise ProblemError(
                503, "warming_up", "The model is not ready to read; try again in 1 s.", {"Retry-After": "1"}
            )
        if self._pending + images > self._max_pending:
            wait = max(1, ceil(self._pending * self._seconds_per_image))
            raise ProblemError(
                429,
                "overloaded",
                f"{self._pending} images are being read and {self._max_pending} are the limit; try again in {wait} s.",
                {"Retry-After": str(wait)},
            )

    @contextmanager
    def admit(self, images: int) -> Iterator[None]:
        """Room for `images`, all or none, until the block ends.

        Raises:
            ProblemError: 413 if there never is room for as many, 429 with Retry-After by the measured speed.
        """
        if images > self._max_pending:
            raise ProblemError(
                413, "too_many_images", f"That is {images} readings; a request may take {self._max_pending}."
            )
        self.check_room(images)
        self._pending += images
        try:
            yield
        finally:
            self._pending -= images

    def submit(self, crop: Crop, reader: CanvasReader) -> None:
        """Queue a crop whose views are on the reader's canvases; from any thread."""
        items = [_Item(canvas, reader, outcome) for canvas, outcome in zip(crop.views, crop.outcomes, strict=False)]
        with self._changed:
            self._waiting += items
            self._changed.notify(len(items))

    def _run(self) -> None:
        try:
            self._reader = self._load()
            if hasattr(self._reader, "usage"):
                self._metrics.model_usage = lambda: self._reader.usage  # of the one that reads then
        except BaseException as error:
            self.loaded.set_exception(error)
            return
        self.loaded.set_result(None)
        if self._workers > 1:
            self._second.start()
        self._work()

    def _work(self) -> None:
        try:
            self._warm_up(self.reader)  # each thread by itself, since it has memory of its own
            self._all_warm.wait()
        except BaseException:
            self._all_warm.abort()  # or the other one would wait for ever
            raise
        self._warm.set()
        while self._read_next():
            pass

    def _read_next(self) -> bool:
        """The next batch. Nothing of it stays: after a reload its reader may be the last that anyone remembers."""
        batch = self._take()
        if batch:
            batch[0].reader.use_threads(self._share)
            self._compute(batch)
        return bool(batch)

    def _warm_up(self, reader: CanvasReader) -> None:
        reader.use_threads(self._share)
        reader.warm_up(self._buckets)

    def _take(self) -> list[_Item]:
        """The next batch; blocks while there is nothing to do. Empty when closed and all is done."""
        with self._changed:
            while True:
                self._drop_abandoned()
                fellows = self._fellows()
                patience = self._max_wait_s if fellows and len(fellows) < self._buckets[-1] else 0.0
                if fellows and not self._closed:
                    patience -= time.perf_counter() - fellows[0].since
                if self._closed or (fellows and patience <= 0):
                    break
                self._changed.wait(patience if fellows else None)
            size = max((bucket for bucket in self._buckets if bucket <= len(fellows)), default=0)
            batch = fellows[:size]
            taken = set(map(id, batch))
            self._waiting = [item for item in self._waiting if id(item) not in taken]
        return batch

    def _fellows(self) -> list[_Item]:
        """What waits and can be read together, the oldest first, as many as a batch may have."""
        if not self._waiting:
            return []
        groups: dict[tuple[int, tuple[int, ...]], list[_Item]] = {}
        for item in self._waiting:
            groups.setdefault((id(item.reader), item.canvas.pixels.shape), []).append(item)
        oldest, *_ = groups.values()
        overdue = time.perf_counter() - oldest[0].since > OVERTAKEN_S
        chosen = oldest if overdue else max(groups.values(), key=len)
        return chosen[: self._buckets[-1]]

    def _drop_abandoned(self) -> None:
        wanted = [item for item in self._waiting if not item.outcome.cancelled()]
        if len(wanted) < len(self._waiting):
            self._metrics.images.labels("abandoned").inc(len(self._waiting) - len(wanted))
            self._waiting = wanted

    def _compute(self, batch: list[_Item]) -> None:
        start = time.perf_counter()
        try:
            readings = batch[0].reader.read_canvases([item.canvas for item in batch], attention=True)
        except Exception as error:
            if len(batch) == 1:
                deliver([(batch[0].outcome, error)])
            else:
                logger.warning("a batch of %d failed (%r): reading its images one by one", len(batch), error)
                for item in batch:
                    self._compute([item])
            return
        took = time.perf_counter() - start
        self._seconds_per_image += 0.1 * (took / len(batch) / self._workers - self._seconds_per_image)
        self._metrics.batch_size.observe(len(batch))
        self._metrics.inference_seconds.observe(took)
        for item in batch:
            self._metrics.queue_seconds.observe(start - item.since)
        deliver(
            [
                (item.outcome, Outcome(reading, start - item.since, took))
                for item, reading in zip(batch, readings, strict=True)
            ]
        )
