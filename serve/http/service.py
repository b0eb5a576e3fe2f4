"""What the endpoints share: receiving a body, admission, reading with a deadline, reloading the model."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, TypeVar

from starlette.requests import ClientDisconnect, Request

from str_app.serve.errors import ProblemError
from str_app.serve.http.telemetry import Lifecycle
from str_app.serve.http.uploads import Body, UploadMemory
from str_app.serve.inference.batcher import Batcher
from str_app.serve.inference.image_decoder import ImageDecoder, PixelBudget
from str_app.serve.inference.request_reader import WORDS_AT_A_TIME, RequestReader
from str_app.serve.operations.logs import logger
from str_app.serve.operations.metrics import Metrics
from str_app.serve.settings import Settings

if TYPE_CHECKING:
    from str_app.photos.photo_reader import PhotoPipeline

T = TypeVar("T")


@dataclass
class Service:
    """The parts of one application that its endpoints share."""

    settings: Settings
    metrics: Metrics
    lifecycle: Lifecycle
    batcher: Batcher
    decoder: ImageDecoder
    upload_memory: UploadMemory
    load_photos: Callable[[], PhotoPipeline | None]
    photos_pending: int = 0  # readings that photographs have been admitted for

    def start(self) -> None:
        """Load the detector, and begin to load the model: see `Batcher.loaded`.

        Raises:
            StrAppError: the detector asked for is unknown or not installed.
        """
        _ = self.photos
        self.batcher.start()

    @cached_property
    def photos(self) -> PhotoPipeline | None:
        """What finds words in photographs; loaded at the start, not where only the OpenAPI document is wanted."""
        return self.load_photos()

    @property
    def ready(self) -> bool:
        """The model is warm and the server has not been told to stop."""
        return self.batcher.ready and not self.lifecycle.draining

    @contextmanager
    def receive(self, request: Request) -> Iterator[Body]:
        """The body of a request, not yet read; its memory is released when the block ends.

        Raises:
            ProblemError: 429 or 503 if nothing can be read now.
        """
        self.batcher.check_capacity()
        with self.upload_memory.for_request() as reserve:
            yield Body(request, self.settings, reserve, partial(self.decoder.run, request))

    async def answer_photo(self, request: Request, read: Callable[[RequestReader], Awaitable[T]]) -> T:
        """As `answer`, for a photograph, with as many readings as are read at a time.

        Photographs together get at most half of what may be pending: they take long, and would keep all crops out.
        """
        most = self.settings.max_pending
        count = min(WORDS_AT_A_TIME, most)
        if self.photos_pending and self.photos_pending + count > most // 2:
            photos = self.photos_pending // count
            raise ProblemError(
                429,
                "overloaded",
                f"The limit of {photos} photographs at a time is reached; try again in 1 s.",
                {"Retry-After": "1"},
            )
        self.photos_pending += count
        try:
            return await self.answer(request, count, read)
        finally:
            self.photos_pending -= count

    async def answer(self, request: Request, count: int, read: Callable[[RequestReader], Awaitable[T]]) -> T:
        """Admit `count` readings, then return what `read` makes of them.

        Raises:
            ProblemError: 413 or 429 if they cannot be admitted, 504 after the deadline.
            ClientDisconnect: the client has closed the connection.
        """
        with self.batcher.admit(count):
            reader = RequestReader(
                self.batcher, self.decoder, PixelBudget(self.settings.max_request_pixels), self.metrics
            )
            request.scope["str_app.stages"] = reader.stages
            if self.settings.log_texts:
                request.scope["str_app.texts"] = reader.texts
            deadline_s = self.settings.deadline_s
            return await _unless_late_or_gone(read(reader), request, deadline_s, partial(_late, reader, deadline_s))

    async def reload(self) -> None:
        """Load the weights again, beside those in use; a failure is logged and changes nothing."""
        # A thread of its own that ends: the OpenMP threads of the warm-up end with it.
        with ThreadPoolExecutor(1, "reload") as thread:
            try:
                await asyncio.get_running_loop().run_in_executor(thread, self.batcher.reload)
            except Exception as error:
                self.metrics.reloads.labels("failed").inc()
                logger.error(
                    "reload failed, the old weights stay in use: %s: %s",
                    self.settings.model,
                    str(error) or type(error).__name__,
                )
                return
        gc.collect()  # errors in cycles with the frames of their tracebacks hold the old reader
        self.metrics.reloads.labels("done").inc()
        self.metrics.model.info({"name": self.batcher.reader.name})
        logger.info("reloaded %s", self.batcher.reader.name)


def _late(reader: RequestReader, deadline_s: float) -> str:
    if not reader.words_found:
        return f"Not read within {deadline_s:g} s; send fewer or smaller images, or try again later."
    return (
        f"{reader.words_read} of the photograph's {reader.words_found} words were read within {deadline_s:g} s. Send"
        " parts of the photograph, try again later, or use `str-app read` without a server; STR_APP_DEADLINE_S sets"
        " this server's limit."
    )


async def _unless_late_or_gone(
    reading: Awaitable[T], request: Request, deadline_s: float, late: Callable[[], str]
) -> T:
    """Await `reading`; cancel it at the deadline, or when the client disconnects. `late` says how far it has come."""
    disconnect = asyncio.create_task(_wait_for_disconnect(request))
    try:
        async with asyncio.timeout(deadline_s) as timeout:

            def expire(task: asyncio.Task[None]) -> None:
                with suppress(RuntimeError):  # the reading finished at the same moment
                    timeout.reschedule(0.0)

            disconnect.add_done_callback(expire)
            try:
                return await reading
            finally:
                disconnect.remove_done_callback(expire)
    except TimeoutError:
        if disconnect.done():
            raise ClientDisconnect from None
        raise ProblemError(504, "deadline_exceeded", late()) from None
    finally:
        disconnect.cancel()


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
