"""What every door of the server does with a request: admit it, decode, read, and give up when nobody waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from str_app.errors import ImageError
from str_app.serve.http.problems import ProblemError
from str_app.serve.http.uploads import Body, Upload, UploadMemory
from str_app.serve.inference.batcher import Batcher
from str_app.serve.inference.decoder import Decoder, fit_crop, fit_regions
from str_app.serve.inference.jobs import Crop
from str_app.serve.operations.logs import logger
from str_app.serve.operations.telemetry import Lifecycle, Metrics
from str_app.serve.settings import Settings
from str_app.views import MAX_VIEWS, merge

if TYPE_CHECKING:
    from str_app.inputs.regions import Region
    from str_app.pipeline import CanvasReader
    from str_app.reading import Reading
    from str_app.views import Canvas

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
        """The request's body, to be read; its memory is given back when the block ends.

        Raises:
            ProblemError: 429 or 503 if nothing can be read now.
        """
        self.batcher.check_room()
        with self.upload_memory.for_request() as reserve:
            yield Body(request, self.settings, reserve, self.decoder.run)

    async def answer(self, request: Request, count: int, work: Callable[[Work], Awaitable[T]]) -> T:
        """What `work` returns, once `count` readings are admitted.

        Raises:
            ProblemError: 413 or 429 if there is no room, 504 after the deadline.
            ClientDisconnect: nobody waits for the answer any more.
        """
        with self.batcher.admit(count):
            job = Work(self, request, self.batcher.reader)
            return await _unless_late_or_gone(work(job), request, self.settings.deadline_s)

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

    def __init__(self, service: Service, request: Request, reader: CanvasReader) -> None:
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
        crops = [
            upload.data if isinstance(upload.data, ImageError) else self._decode(upload.data, rotate)
            for upload in uploads
        ]
        return self._noted(await self._readings(crops))

    async def read_regions(
        self, photo: Upload, regions: Sequence[Any], rotate: bool
    ) -> list[tuple[Region, Reading] | ImageError]:
        """For each region in order; boxes of characters are in pixels of the photograph.

        Raises:
            ProblemError: 422, the photograph itself cannot be read.
        """
        from str_app.inputs.regions import to_photo

        try:
            if isinstance(photo.data, ImageError):
                raise photo.data
            fit = partial(fit_regions, photo.data, regions, self._limits, self.reader, rotate)
            (fitted, size), took = await self._service.decoder.timed(fit)
        except ImageError as error:
            self._service.metrics.images.labels(error.code).inc()
            raise ProblemError(422, error.code, f"The photograph cannot be read: {error.message}.") from None
        self._note("decode", took)
        crops = [item if isinstance(item, ImageError) else self._queue(item[1]) for item in fitted]
        readings = self._noted(await self._readings(crops))
        results: list[tuple[Region, Reading] | ImageError] = []
        for item, reading in zip(fitted, readings, strict=True):
            if isinstance(item, ImageError):
                results.append(item)
            elif isinstance(reading, ImageError):
                results.append(reading)
            else:
                region = item[0]
                results.append((region, reading.with_boxes(partial(to_photo, region=region, photo_size=size))))
        return results

    def _decode(self, data: bytes, rotate: bool) -> Crop:
        """A crop that is decoded and read from now on."""
        crop = Crop(MAX_VIEWS)  # more than most have: how many is known when it is decoded
        fit = partial(fit_crop, data, self._limits, self.reader, rotate)
        self._service.decoder.feed(crop, fit, partial(self._service.batcher.submit, reader=self.reader))
        return crop

    def _queue(self, canvases: Sequence[Canvas]) -> Crop:
        """A crop that is decoded already and read from now on."""
        crop = Crop(len(canvases))
        crop.views = canvases
        self._service.batcher.submit(crop, self.reader)
        return crop

    async def _readings(self, crops: Sequence[Crop | ImageError]) -> list[Reading | ImageError]:
        """In order; what is not read yet when this is cancelled, or when one fails, is taken out of the queues."""
        try:
            return [crop if isinstance(crop, ImageError) else await self._reading(crop) for crop in crops]
        finally:
            for crop in crops:
                if isinstance(crop, Crop):
                    crop.cancel()

    async def _reading(self, crop: Crop) -> Reading | ImageError:
        """The reading of a crop, or the best of its turns."""
        try:
            outcomes = [await crop.outcomes[0]]  # from then on it is known how many there are
            outcomes += [await outcome for outcome in crop.outcomes[1 : len(crop.views)]]
        except ImageError as error:
            return error
        self._note("decode", crop.decode_s)
        for outcome in outcomes:
            self._note("queue", outcome.queue_s)
            self._note("inference", outcome.inference_s)
        return merge(crop.views, [outcome.reading for outcome in outcomes], self.reader.policy)

    def _note(self, stage: str, seconds: float) -> None:
        self._stages[stage] = max(self._stages[stage], seconds)

    def _noted(self, results: list[Reading | ImageError]) -> list[Reading | ImageError]:
        for result in results:
            self._service.metrics.images.labels(result.code if isinstance(result, ImageError) else "read").inc()
        if self._service.settings.log_texts:
            texts = [None if isinstance(result, ImageError) else result.text for result in results]
            self._scope["str_app.texts"] = texts
        return results


async def _unless_late_or_gone(work: Awaitable[T], request: Request, deadline_s: float) -> T:
    """What `work` gives; it is cancelled when it is late, and when the client has closed the connection."""
    gone = asyncio.create_task(_disconnected(request))
    try:
        async with asyncio.timeout(deadline_s) as limit:

            def at_once(task: asyncio.Task[None]) -> None:
                with suppress(RuntimeError):  # the work was done in the same moment
                    limit.reschedule(0.0)

            gone.add_done_callback(at_once)
            try:
                return await work
            finally:
                gone.remove_done_callback(at_once)
    except TimeoutError:
        if gone.done():
            raise ClientDisconnect from None
        raise ProblemError(
            504, "deadline_exceeded", f"Not read within {deadline_s:g} s; send fewer images, or later."
        ) from None
    finally:
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
