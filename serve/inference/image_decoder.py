"""Decoding of uploads in threads: from files to small canvases, so that no large image waits in memory."""

from __future__ import annotations

import asyncio
import ctypes
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from str_app.errors import ImageError
from str_app.inputs.images import ImageLimits, load_image
from str_app.serve.inference.jobs import CropJob, set_results
from str_app.serve.operations.metrics import Metrics

if TYPE_CHECKING:
    from str_app.inputs.regions import Region
    from str_app.views import Canvas

MakeViews = Callable[[npt.NDArray[np.uint8]], "list[Canvas]"]  # of a decoded crop; see `str_app.views.views_of`
T = TypeVar("T")
TRIM_AFTER_CPU_S = 0.02  # a few megapixels, far more than a word crop


class ImageDecoder:
    """A small thread pool. Its size limits how many decoded images are in memory, however many wait for the model.

    Args:
        threads: each holds one decoded image; a file of 10 KB may decode to 75 MB of pixels.
        metrics: where decoding times are recorded.
    """

    def __init__(self, threads: int, metrics: Metrics) -> None:
        self._metrics = metrics
        self._threads = ThreadPoolExecutor(threads, "decode")

    async def run(self, function: Callable[[], T]) -> T:
        """Call `function` on one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)

    async def run_timed(self, decode: Callable[[], T]) -> tuple[T, float]:
        """The same for decoding, with its seconds; waiting for a thread does not count."""
        return await self.run(lambda: self._timed(decode))

    def submit(self, job: CropJob, decode: Callable[[], list[Canvas]], enqueue: Callable[[CropJob], None]) -> None:
        """Decode a crop on one of the threads and enqueue it from there, without the event loop in between.

        An exception of `decode` becomes the result of the job.
        """
        self._threads.submit(self._decode, job, decode, enqueue)

    def _decode(self, job: CropJob, decode: Callable[[], list[Canvas]], enqueue: Callable[[CropJob], None]) -> None:
        if job.cancelled:
            return
        try:
            job.views, job.decode_s = self._timed(decode)
        except Exception as error:
            set_results([(job.results[0], error)])
            return
        enqueue(job)

    def _timed(self, decode: Callable[[], T]) -> tuple[T, float]:
        start, start_cpu = time.perf_counter(), time.thread_time()
        failure = None
        try:
            result = decode()
        except ImageError as error:
            failure = ImageError(error.code, error.message)  # without the traceback, whose frames hold the pixels
        seconds = time.perf_counter() - start
        if time.thread_time() - start_cpu > TRIM_AFTER_CPU_S:
            _trim_memory()
        if failure:
            raise failure
        self._metrics.decode_seconds.observe(seconds)
        return result, seconds

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(cancel_futures=True)


def _trim_memory() -> None:
    """Return freed memory to the system: glibc keeps what large images took in the arena of each thread."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
    if trim:
        trim(0)


def decode_crop(encoded: bytes, limits: ImageLimits, make_views: MakeViews) -> list[Canvas]:
    """Decode a crop into its views.

    Raises:
        ImageError: it cannot be decoded, or exceeds a limit.
    """
    return make_views(load_image(encoded, limits))


class DecodedPhoto(NamedTuple):
    """The views of a photograph's regions, and its height and width."""

    regions: list[tuple[Region, list[Canvas]] | ImageError]
    size: tuple[int, int]


def decode_regions(encoded: bytes, regions: Sequence[Any], limits: ImageLimits, make_views: MakeViews) -> DecodedPhoto:
    """Decode a photograph into the views of its regions; a region that cannot be cut out becomes its error.

    Raises:
        ImageError: the photograph cannot be decoded, or exceeds a limit.
    """
    from str_app.inputs.regions import crops_of_regions

    photo = load_image(encoded, limits)
    decoded: list[tuple[Region, list[Canvas]] | ImageError] = []
    for crop in crops_of_regions(photo, regions, limits):
        if isinstance(crop, ImageError):
            decoded.append(crop)
        else:
            region, pixels = crop
            decoded.append((region, make_views(pixels)))
    return DecodedPhoto(decoded, (photo.shape[0], photo.shape[1]))
