"""Decoding of uploads beside the event loop, with a bound on the pixels that wait for the model."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from serve.settings import Settings
from serve.telemetry import Metrics
from str_app.images import ImageLimits, load_image

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class Decoder:
    """A few threads that turn files into pixels.

    A file of 10 KB may hold 75 MB of pixels, so it is these that are counted: while more than
    `settings.max_decoded_bytes` wait for the model, no further image is decoded.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._limits = ImageLimits(
            max_bytes=settings.max_body_bytes, max_pixels=settings.max_pixels, max_side=settings.max_side
        )
        self._max_held = settings.max_decoded_bytes
        self._metrics = metrics
        self._threads = ThreadPoolExecutor(settings.decode_threads, "decode")
        self._slots = asyncio.Semaphore(settings.decode_threads)
        self._held = 0
        self._released = asyncio.Event()

    @asynccontextmanager
    async def decoded(self, data: bytes) -> AsyncIterator[tuple[npt.NDArray[np.uint8], float]]:
        """uint8 (H, W, 3) RGB and the seconds it took; its memory counts as held until the block ends.

        Raises:
            ImageError: it cannot be decoded, or is over a limit.
        """
        async with self._slots:
            while self._held >= self._max_held:
                self._released.clear()
                await self._released.wait()
            start = time.perf_counter()
            loop = asyncio.get_running_loop()
            image = await loop.run_in_executor(self._threads, partial(load_image, data, self._limits))
            self._held += image.nbytes
            took = time.perf_counter() - start
        self._metrics.decode_seconds.observe(took)
        try:
            yield image, took
        finally:
            self._held -= image.nbytes
            self._released.set()

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(cancel_futures=True)
