"""What every door of the server does with a request: admit it, decode, read, and give up when nobody waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from serve.batcher import Batcher, Outcome
from serve.decoder import Decoder, fit_crop, fit_regions
from serve.logs import logger
from serve.problems import ProblemError
from serve.settings import Settings
from serve.telemetry import Lifecycle, Metrics
from serve.uploads import Body, Upload, UploadMemory
from str_app.errors import ImageError

if TYPE_CHECKING:
    from str_app.reader import Fitted, Reader, Reading
    from str_app.regions import Region

T = TypeVar("T")
STAGES = ("decode", "queue", "inference")


@dataclass
class Service:
    """The parts of one application that its routes share."""

    settings: Settings
    metrics: Metrics
    lifecycle: Lifecycle
    batcher: Batcher
    decoder: Decoder
    upload_memory: UploadMemory

    @property
    def ready(self) -> bool:
        """Warm, and not told to stop."""
        return self.batcher.ready and not self.lifecycle.draining

    @contextmanager
    def receive(self, request: Request) -> Iterator[Body]:
        """The request's body, to be read; its memory is given back when the block ends."""
        with self.upload_memory.of_request() as take:
            yield Body(request, self.settings, take, self.decoder.run)

    async def answer(self, request: Request, count: int, work: Callable[[Work], Awaitable[T]]) -> T:
        """What `work` returns, once `count` readings are admitted.

        Raises:
            ProblemError: 413 or 429 if there is no room, 504 after the deadline.
            ClientDisconnect: nobody waits for the answer any more.
        """
        with self.batcher.admit(count):
            job = Work(self, request, self.batcher.reader)
            task = asyncio.ensure_future(work(job))
            result = await _unless_late_or_gone(task, request, self.settings.deadline_s)
        return result

    async def reload(self) -> None:
        """Load the weights again, beside those in use; what cannot be loaded is logged and changes nothing."""
        # A thread of its own, that ends: the OpenMP threads it warms up with end with it.
        with ThreadPoolExecutor(1, "reload") as thread:
            try:
                await asyncio.get_running_loop().run_in_executor(thread, self.batcher.reload)
            except Exception as error:
                self.metrics.reloads.labels("failed").inc()
                logger.error("reload failed, the old weights stay: %s", error)
                return
        self.metrics.reloads.labels("done").inc()
        self.metrics.model.info({"name": self.batcher.reader.name})
        logger.info("reloaded %s", self.batcher.reader.name)


class Work:
    """Reads the images of one request, all with one reader, and notes the slowest image of each stage."""

    def __init__(self, service: Service, request: Request, reader: Reader) -> None:
        self.reader = reader
        self._service = service
        self._scope = request.scope
        self._stages = request.scope["str_app.stages"] = dict.fromkeys(STAGES, 0.0)
        self._limits = service.settings.image_limits

    @property
    def timing(self) -> str:
        """The value of Server-Timing."""
        return ", ".join(f"{stage};dur={seconds * 1e3:.2f}" for stage, seconds in self._stages.items())

    async def read_crops(self, uploads: Sequence[Upload], rotate: bool) -> list[Reading | ImageError]:
        """A reading, or why there is none, for each upload in order."""
        return self._noted(await _all([self._read_crop(upload.data, rotate) for upload in uploads]))

    async def read_regions(
        self, photo: Upload, regions: Sequence[Any], rotate: bool
    ) -> list[tuple[Region, Reading] | ImageError]:
        """For each region in order; boxes of characters are in pixels of the photograph.

        Raises:
            ProblemError: 422, the photograph itself cannot be read.
        """
        from str_app.regions import in_photo

        try:
            if isinstance(photo.data, ImageError):
                raise photo.data
            fit = partial(fit_regions, photo.data, regions, self._limits, self.reader, rotate)
            (fitted, size), took = await self._service.decoder.timed(fit)
        except ImageError as error:
            self._service.metrics.images.labels(error.code).inc()
            raise ProblemError(422, error.code, f"The photograph cannot be read: {error.message}.") from None
        self._note("decode", took)
        fitting = [region for region in fitted if not isinstance(region, ImageError)]
        found = iter(await _all([self._read_fitted(canvases) for _, canvases in fitting]))
        results: list[tuple[Region, Reading] | ImageError] = []
        for item in fitted:
            if isinstance(item, ImageError):
                results.append(item)
            else:
                region = item[0]
                in_place = partial(in_photo, marked=region, photo_size=size)
                results.append((region, next(found).moved(in_place)))
        self._noted([result if isinstance(result, ImageError) else result[1] for result in results])
        return results

    async def _read_crop(self, data: bytes | ImageError, rotate: bool) -> Reading | ImageError:
        if isinstance(data, ImageError):
            return data
        try:
            fit = partial(fit_crop, data, self._limits, self.reader, rotate)
            fitted, took = await self._service.decoder.timed(fit)
        except ImageError as error:
            return error
        self._note("decode", took)
        return await self._read_fitted(fitted)

    async def _read_fitted(self, fitted: Sequence[Fitted]) -> Reading:
        """The reading of one crop, or the best of its turns."""
        from str_app.reading import best_turn

        futures = [self._service.batcher.submit(canvas, self.reader) for canvas in fitted]
        outcomes: list[Outcome] = await _all([asyncio.wrap_future(future) for future in futures])
        for outcome in outcomes:
            self._note("queue", outcome.queue_s)
            self._note("inference", outcome.inference_s)
        return best_turn([outcome.reading for outcome in outcomes], fitted[0].image_size)

    def _note(self, stage: str, seconds: float) -> None:
        self._stages[stage] = max(self._stages[stage], seconds)

    def _noted(self, results: list[Reading | ImageError]) -> list[Reading | ImageError]:
        for result in results:
            self._service.metrics.images.labels(result.code if isinstance(result, ImageError) else "read").inc()
        if self._service.settings.log_texts:
            texts = [None if isinstance(result, ImageError) else result.text for result in results]
            self._scope["str_app.texts"] = texts
        return results


async def _all(parts: Sequence[Awaitable[T]]) -> list[T]:
    """Their results in order; when one fails, or this is cancelled, the others are cancelled."""
    if len(parts) == 1:
        return [await parts[0]]
    futures = [asyncio.ensure_future(part) for part in parts]
    try:
        return await asyncio.gather(*futures)
    finally:
        for future in futures:
            future.cancel()


async def _unless_late_or_gone(task: asyncio.Future[T], request: Request, deadline_s: float) -> T:
    """The task's result. Cancelling it takes what has not been started out of the batcher's queue."""
    gone = asyncio.create_task(_disconnected(request))
    both: set[asyncio.Future[Any]] = {task, gone}
    try:
        await asyncio.wait(both, timeout=deadline_s, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if gone.done():
            raise ClientDisconnect
        raise ProblemError(504, "deadline_exceeded", f"Not read within {deadline_s:g} s; send fewer images, or later.")
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.wait(both)  # out of the queue before anything else happens


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
