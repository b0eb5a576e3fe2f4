"""One thread that owns the model, fed by a bounded queue: images of all clients are read in shared batches."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import ceil
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from serve.problems import ProblemError
from serve.telemetry import Metrics

if TYPE_CHECKING:
    from str_app.reader import Reader, Reading

logger = logging.getLogger("str_app.serve")


class Outcome(NamedTuple):
    """A reading and where its time went."""

    reading: Reading
    queue_s: float
    inference_s: float


@dataclass
class _Item:
    image: npt.NDArray[np.uint8]
    future: Future[Outcome] = field(default_factory=Future)
    since: float = field(default_factory=time.perf_counter)


def buckets(max_batch: int) -> list[int]:
    """Batch sizes that are ever computed: powers of two and `max_batch`. Few shapes keep the memory flat."""
    return sorted({2**k for k in range(max_batch.bit_length()) if 2**k <= max_batch} | {max_batch})


class Batcher:
    """Collects images and reads them in batches on its own thread.

    A batch starts at once when the thread is free and takes the largest bucket that is full, so an idle server adds
    no waiting and a busy one fills its batches by itself. Cancelling the future of an image that has not been
    started (late, or its client has gone) takes it out of the queue uncomputed.

    Args:
        load: makes the reader; called on the thread, whose OpenMP settings the model then lives with.
        max_batch: images read at once.
        max_pending: images admitted at once.
        metrics: where queue, batches and times are recorded.
    """

    def __init__(self, load: Callable[[], Reader], *, max_batch: int, max_pending: int, metrics: Metrics) -> None:
        self.loaded: Future[Reader] = Future()
        self._load = load
        self._buckets = buckets(max_batch)
        self._max_pending = max_pending
        self._metrics = metrics
        self._pending = 0  # touched by the event loop only
        self._waiting: deque[_Item] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._warm = threading.Event()
        self._seconds_per_image = 0.01
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        metrics.queue_depth.set_function(lambda: len(self._waiting))

    def start(self) -> None:
        """Load the model, then warm up, on the thread; `loaded` and `ready` tell how far it is."""
        self._thread.start()

    def close(self) -> None:
        """Finish what is queued and end the thread. Blocks."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    @property
    def ready(self) -> bool:
        """True once every bucket has been computed once."""
        return self._warm.is_set() and self.alive

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def check_room(self, images: int = 1) -> None:
        """Raise the 429 problem when `images` more cannot be admitted."""
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
            ProblemError: 429, with Retry-After by the measured speed.
        """
        self.check_room(images)
        self._pending += images
        try:
            yield
        finally:
            self._pending -= images

    def submit(self, image: npt.NDArray[np.uint8]) -> Future[Outcome]:
        """Queue one decoded image, uint8 (H, W, 3), RGB."""
        item = _Item(image)
        with self._changed:
            self._waiting.append(item)
            self._changed.notify()
        return item.future

    def _run(self) -> None:
        try:
            reader = self._load()
        except BaseException as error:
            self.loaded.set_exception(error)
            return
        self.loaded.set_result(reader)
        # Noise, not a blank: it decodes for several steps.
        height, widths = reader.canvas_sizes
        random = np.random.default_rng(0)
        noise: list[Any] = [random.integers(0, 256, (height, width, 3), dtype=np.uint8) for width in widths]
        for size in self._buckets:
            reader.read_crops([crop for crop in noise for _ in range(size)])
        self._warm.set()
        while batch := self._take():
            self._compute(reader, batch)

    def _take(self) -> list[_Item]:
        """The next batch; blocks while there is nothing to do. Empty when closed and all is done."""
        with self._changed:
            while True:
                abandoned = sum(item.future.cancelled() for item in self._waiting)
                if abandoned:
                    self._waiting = deque(item for item in self._waiting if not item.future.cancelled())
                    self._metrics.images.labels("abandoned").inc(abandoned)
                if self._waiting or self._closed:
                    break
                self._changed.wait()
            size = max((b for b in self._buckets if b <= len(self._waiting)), default=0)
            batch = [self._waiting.popleft() for _ in range(size)]
        # A future cancelled since the count above is still left out; one that runs can no longer be cancelled.
        return [item for item in batch if item.future.set_running_or_notify_cancel()] or (batch and self._take())

    def _compute(self, reader: Reader, batch: list[_Item]) -> None:
        start = time.perf_counter()
        try:
            readings = reader.read_crops([item.image for item in batch])
        except Exception as error:
            if len(batch) == 1:
                batch[0].future.set_exception(error)
            else:
                logger.warning("a batch of %d failed (%r): reading its images one by one", len(batch), error)
                for item in batch:
                    self._compute(reader, [item])
            return
        took = time.perf_counter() - start
        self._seconds_per_image += 0.1 * (took / len(batch) - self._seconds_per_image)
        self._metrics.batch_size.observe(len(batch))
        self._metrics.inference_seconds.observe(took)
        for item, reading in zip(batch, readings, strict=True):
            self._metrics.queue_seconds.observe(start - item.since)
            item.future.set_result(Outcome(reading, start - item.since, took))
