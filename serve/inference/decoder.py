"""Decoding of uploads beside the event loop: from files to small canvases, so that no large picture ever waits."""

from __future__ import annotations

import asyncio
import ctypes
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from str_app.errors import ImageError
from str_app.inputs.images import ImageLimits, load_image
from str_app.serve.inference.jobs import Crop, deliver
from str_app.serve.operations.telemetry import Metrics
from str_app.views import views_of

if TYPE_CHECKING:
    from str_app.inputs.regions import Region
    from str_app.pipeline import CanvasReader
    from str_app.views import Canvas

T = TypeVar("T")
LARGE_S = 0.02  # of a thread's CPU: some millions of pixels, far above any word's crop


class Decoder:
    """A few threads; as many pictures are in memory at once, however many wait for the model.

    Args:
        threads: a picture of 10 KB may hold 75 MB of pixels, and each thread holds one.
        metrics: where times are recorded.
    """

    def __init__(self, threads: int, metrics: Metrics) -> None:
        self._metrics = metrics
        self._threads = ThreadPoolExecutor(threads, "decode")

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` returns, or raises, on one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def timed(self, work: Callable[[], T]) -> tuple[T, float]:
        """The same and its seconds, waiting for a thread left out."""
        return await self.run(lambda: self._measured(work))

    def feed(self, crop: Crop, fit: Callable[[], list[Canvas]], queue: Callable[[Crop], None]) -> None:
        """Fit a crop on one of the threads and queue it from there; the event loop does nothing in between.

        What `fit` raises becomes the crop's outcome.
        """
        self._threads.submit(self._feed, crop, fit, queue)

    def _feed(self, crop: Crop, fit: Callable[[], list[Canvas]], queue: Callable[[Crop], None]) -> None:
        if crop.cancelled:
            return
        try:
            crop.views, crop.decode_s = self._measured(fit)
        except Exception as error:
            deliver([(crop.outcomes[0], error)])
            return
        queue(crop)

    def _measured(self, work: Callable[[], T]) -> tuple[T, float]:
        result, took = _measured(work)
        self._metrics.decode_seconds.observe(took)
        return result, took

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(cancel_futures=True)


def _measured(work: Callable[[], T]) -> tuple[T, float]:
    start, start_cpu = time.perf_counter(), time.thread_time()
    failure = None
    try:
        result = work()
    except ImageError as error:
        failure = ImageError(error.code, error.message)  # without the frames that led to it, and their pixels
    took = time.perf_counter() - start
    if time.thread_time() - start_cpu > LARGE_S:
        _give_memory_back()
    if failure:
        raise failure
    return result, took


def _give_memory_back() -> None:
    """The C library keeps what large pictures took, in each thread's arena, unless it is asked to return it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's own
    if trim:
        trim(0)


def fit_crop(encoded: bytes, limits: ImageLimits, reader: CanvasReader, rotate: bool) -> list[Canvas]:
    """One crop on its canvas; on four, turned, with `rotate`.

    Raises:
        ImageError: it cannot be decoded, or is over a limit.
    """
    return views_of(load_image(encoded, limits), reader.preprocessing, rotate=rotate, policy=reader.policy)


class MarkedPhoto(NamedTuple):
    """A photograph's regions on their canvases, and its height and width."""

    regions: list[tuple[Region, list[Canvas]] | ImageError]
    size: tuple[int, int]


def fit_regions(
    encoded: bytes, regions: Sequence[Any], limits: ImageLimits, reader: CanvasReader, rotate: bool
) -> MarkedPhoto:
    """The same for each region of one photograph; the error of a region stands in its place.

    Raises:
        ImageError: the photograph cannot be decoded, or is over a limit.
    """
    from str_app.inputs.regions import crops_of_regions

    photo = load_image(encoded, limits)
    fitted: list[tuple[Region, list[Canvas]] | ImageError] = []
    for crop in crops_of_regions(photo, regions, limits):
        if isinstance(crop, ImageError):
            fitted.append(crop)
        else:
            region, pixels = crop
            views = views_of(pixels, reader.preprocessing, rotate=rotate, policy=reader.policy)
            fitted.append((region, views))
    return MarkedPhoto(fitted, (photo.shape[0], photo.shape[1]))
