"""What travels between the event loop and the threads that decode and read."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    from str_app.reading import Reading
    from str_app.views import Canvas

T = TypeVar("T")


class Outcome(NamedTuple):
    """A reading and where its time went."""

    reading: Reading
    queue_s: float
    inference_s: float


class Crop:
    """One crop on its way to its reading.

    Args:
        count: on how many canvases it may be read.

    Attributes:
        outcomes: for each canvas, set on the event loop that made the crop; there may be fewer canvases. Cancelled, a
            canvas that has not been started is not computed.
        views: the canvases, once they are decoded.
        decode_s: how long that took.
    """

    def __init__(self, count: int) -> None:
        loop = asyncio.get_running_loop()
        self.outcomes: list[asyncio.Future[Outcome]] = [loop.create_future() for _ in range(count)]
        self.views: Sequence[Canvas] = ()
        self.decode_s = 0.0

    def cancel(self) -> None:
        """Nobody waits for it any more."""
        for outcome in self.outcomes:
            if not outcome.cancel() and not outcome.cancelled():
                outcome.exception()  # or asyncio would complain that nobody has seen it

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for it any more."""
        return all(outcome.cancelled() for outcome in self.outcomes)


def deliver(outcomes: Sequence[tuple[asyncio.Future[T], T | Exception]]) -> None:
    """Set futures of one event loop from another thread, waking the loop once; cancelled ones are left alone."""

    def arrive() -> None:
        for future, outcome in outcomes:
            if future.done():
                continue
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

    outcomes[0][0].get_loop().call_soon_threadsafe(arrive)
