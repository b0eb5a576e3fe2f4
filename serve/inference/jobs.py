"""What passes between the event loop and the threads that decode and read."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    from str_app.reading import Reading
    from str_app.views import Canvas

T = TypeVar("T")
NICENESS = 10  # of the models and of decoding large images: the event loop and crops go first, their work is short


class ViewResult(NamedTuple):
    """The reading of one view of a crop, and the seconds it waited and its batch took."""

    reading: Reading
    queue_s: float
    inference_s: float


class Share:
    """What one request has had of the model; see `Batcher`.

    Attributes:
        next_turn: of its next view.
    """

    def __init__(self) -> None:
        self.next_turn = 0.0


class CropJob:
    """One crop to read, created on the event loop that waits for it.

    Args:
        max_views: views that the crop may have.
        share: of its request.

    Attributes:
        results: one future per possible view, set on the event loop. There may be fewer views. A view whose future is
            cancelled before its batch starts is not computed.
        views: of the crop, once it is decoded.
        decode_s: seconds that decoding took.
    """

    def __init__(self, max_views: int, share: Share) -> None:
        loop = asyncio.get_running_loop()
        self.share = share
        self.results: list[asyncio.Future[ViewResult]] = [loop.create_future() for _ in range(max_views)]
        self.views: Sequence[Canvas] = ()
        self.decode_s = 0.0

    async def wait(self) -> list[ViewResult]:
        """The results of all views.

        Raises:
            Exception: what kept the crop from being decoded or read.
        """
        first = await self.results[0]  # then `views` is set
        return [first, *[await result for result in self.results[1 : len(self.views)]]]

    def cancel(self) -> None:
        """Drop what has not been computed."""
        for result in self.results:
            if not result.cancel() and not result.cancelled():
                result.exception()  # retrieved, or asyncio logs that it never was

    @property
    def cancelled(self) -> bool:
        return all(result.cancelled() for result in self.results)


def set_results(results: Sequence[tuple[asyncio.Future[T], T | Exception]]) -> None:
    """Set futures of one event loop from another thread, waking the loop once; cancelled futures are skipped."""

    def set_on_loop() -> None:
        for future, result in results:
            if future.done():
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)

    results[0][0].get_loop().call_soon_threadsafe(set_on_loop)
