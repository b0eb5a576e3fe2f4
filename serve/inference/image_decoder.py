"""Decoding of uploads in threads: from files to small canvases, so that no large image waits in memory."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from str_app.errors import ImageError
from str_app.inputs.images import ImageLimits, decoding_effort, load_image, open_image
from str_app.serve.inference.jobs import NICENESS, set_results
from str_app.serve.operations import memory
from str_app.serve.operations.metrics import Metrics

T = TypeVar("T")
Use = Callable[[npt.NDArray[np.uint8]], T]  # of a decoded image
LARGE_PIXELS = 1_000_000  # takes some 10 ms to decode; word crops have a tenth of it
TRIM_AFTER_CPU_S = 0.02  # a few megapixels, far more than a word crop


class FairThreads:
    """A thread pool that serves requests in turn, one task of each, so that a request with many delays only itself.

    Args:
        count: of threads.
        name: their prefix.
        nice: added to their niceness.
    """

    def __init__(self, count: int, name: str, nice: int = 0) -> None:
        self._pool = ThreadPoolExecutor(count, name, partial(_add_niceness, nice))
        self._waiting: dict[object, deque[Callable[[], None]]] = {}  # in the order of the requests' turns
        self._lock = threading.Lock()

    def submit(self, request: object, task: Callable[[], None]) -> None:
        """Queue a task behind those of the same request, which is any hashable object."""
        with self._lock:
            self._waiting.setdefault(request, deque()).append(task)
        self._pool.submit(self._run_next)

    def _run_next(self) -> None:
        with self._lock:
            request = next(iter(self._waiting))
            tasks = self._waiting.pop(request)
            task = tasks.popleft()
            if tasks:
                self._waiting[request] = tasks  # behind all others
        task()

    def close(self) -> None:
        """End the threads; what waits is dropped."""
        self._pool.shutdown(cancel_futures=True)


class PixelBudget:
    """The pixels that one request may have decoded, over all its images."""

    def __init__(self, pixels: int) -> None:
        self._pixels = self._left = pixels
        self._lock = threading.Lock()

    def take(self, pixels: int) -> None:
        """Take the pixels of one image.

        Raises:
            ImageError: too few are left.
        """
        with self._lock:
            if pixels > self._left:
                many = f"the images of this request have more than {self._pixels:,} pixels: send several requests"
                raise ImageError("too_many_pixels", many)
            self._left -= pixels


class ImageDecoder:
    """Decodes images on a few threads, whose number limits how many decoded images are in memory.

    Large images have threads of their own, half as many and with less priority, so that ordinary crops never wait for
    them: a file of 100 KB may take half a second. So have photographs in which words are to be found, of any size.

    Args:
        threads: for images up to `LARGE_PIXELS`.
        limits: of one image.
        metrics: where times are recorded.
        photo_threads: for photographs in which words are found.
    """

    def __init__(self, threads: int, limits: ImageLimits, metrics: Metrics, photo_threads: int = 1) -> None:
        self.limits = limits
        self._metrics = metrics
        self._threads = FairThreads(threads, "decode")
        self._large = FairThreads(max(1, threads // 2), "decode-large", NICENESS)
        self._photos = FairThreads(photo_threads, "photo", NICENESS)

    async def run(self, request: object, function: Callable[[], T], *, finds_words: bool = False) -> T:
        """Call `function`, which is part of `request`, on one of the threads; `finds_words`: of photographs."""
        future: Future[T] = Future()

        def task() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function())
                except Exception as error:
                    future.set_exception(error)

        (self._photos if finds_words else self._threads).submit(request, task)
        return await asyncio.wrap_future(future)

    async def decode(
        self, budget: PixelBudget, encoded: bytes, use: Use[T], *, finds_words: bool = False
    ) -> tuple[T, float]:
        """What `use` makes of the decoded image, and the seconds that decoding and `use` took.

        Args:
            budget, encoded, use, finds_words: see `submit`.

        Raises:
            ImageError: the image cannot be decoded, or exceeds a limit.
        """
        future: asyncio.Future[tuple[T, float]] = asyncio.get_running_loop().create_future()

        def done(result: T | Exception, seconds: float) -> None:
            set_results([(future, result if isinstance(result, Exception) else (result, seconds))])

        self.submit(budget, encoded, use, done, future.cancelled, finds_words=finds_words)
        return await future

    def submit(
        self,
        budget: PixelBudget,
        encoded: bytes,
        use: Use[T],
        done: Callable[[T | Exception, float], None],
        cancelled: Callable[[], bool],
        *,
        finds_words: bool = False,
    ) -> None:
        """Decode an image on one of the threads, and continue there with `use` and `done`.

        Args:
            budget: of the request; those who share one take one turn among the requests.
            encoded: the file.
            use: makes the result of the pixels.
            done: called with the result or what was raised, and the seconds that decoding and `use` took.
            cancelled: asked before decoding: whether nobody waits for the image any more.
            finds_words: `use` finds words, which takes long: on the threads for photographs.
        """
        submitted = time.perf_counter()

        def read_header() -> None:
            if cancelled():
                return
            try:
                image = open_image(encoded, self.limits)
                budget.take(image.width * image.height)
            except ImageError as error:
                done(ImageError(error.code, error.message), 0.0)  # without the traceback
                return
            if finds_words:
                self._photos.submit(budget, partial(decode, image))
            elif image.width * image.height > LARGE_PIXELS or decoding_effort(encoded, image) > LARGE_PIXELS:
                self._large.submit(budget, partial(decode, image))
            else:
                decode(image)

        def decode(image: Image.Image) -> None:
            if cancelled():
                return
            self._metrics.decode_queue_seconds.observe(time.perf_counter() - submitted)
            start, start_cpu = time.perf_counter(), time.thread_time()
            result: T | Exception
            try:
                result = use(load_image(image, self.limits))
            except ImageError as error:
                result = ImageError(error.code, error.message)  # without the traceback, whose frames hold the pixels
            except Exception as error:
                result = error
            image.close()  # its pixels go before memory is trimmed
            seconds = time.perf_counter() - start
            if time.thread_time() - start_cpu > TRIM_AFTER_CPU_S:
                memory.trim()
            if not isinstance(result, Exception):
                self._metrics.decode_seconds.observe(seconds)
            done(result, seconds)

        self._threads.submit(budget, read_header)

    def close(self) -> None:
        """End the threads."""
        self._threads.close()
        self._large.close()
        self._photos.close()


def _add_niceness(nice: int) -> None:
    if nice and sys.platform == "linux":  # where priorities are those of threads
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + nice)
