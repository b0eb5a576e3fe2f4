"""Requests take turns at decoding, and large images delay no others."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future

import numpy as np
import pytest
from PIL import Image

from str_app.errors import ImageError
from str_app.inputs.images import ImageLimits
from str_app.serve.inference.image_decoder import LARGE_PIXELS, FairThreads, ImageDecoder, PixelBudget
from str_app.serve.operations.metrics import Metrics
from str_app.serve.settings import Settings
from tests.serve.conftest import HeldReader, encoded, png, serving, warm_client

LARGE = encoded(Image.new("RGB", (LARGE_PIXELS // 500, 501)), "PNG")
WORD_PIXELS = 32 * 40  # of png("word")
Decode = Callable[[PixelBudget, bytes, Callable[[np.ndarray], object]], "Future[object]"]


@pytest.fixture
def decode():
    """Decodes on one thread, and one for large images."""
    decoder = ImageDecoder(1, ImageLimits(), Metrics())

    def submit(budget: PixelBudget, image: bytes, use: Callable[[np.ndarray], object]) -> Future[object]:
        future: Future[object] = Future()

        def done(result: object, seconds: float) -> None:
            if not future.cancelled():
                future.set_result(result)

        decoder.submit(budget, image, use, done, future.cancelled)
        return future

    yield submit
    decoder.close()


def test_requests_take_turns() -> None:
    threads, gate, order, finished = FairThreads(1, "test"), threading.Event(), [], threading.Semaphore(0)

    def task(name: str) -> Callable[[], None]:
        def run() -> None:
            order.append(name)
            finished.release()

        return run

    threads.submit("first", lambda: gate.wait(30))
    for name in ("a1", "a2", "a3", "b1", "b2", "c1"):
        threads.submit(name[0], task(name))
    gate.set()
    for _ in range(6):
        assert finished.acquire(timeout=30)
    threads.close()
    assert order == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_a_small_image_waits_for_no_large_one(decode: Decode) -> None:
    gate = threading.Event()
    budget = PixelBudget(10**9)
    large = [decode(budget, LARGE, lambda pixels: gate.wait(30)) for _ in range(3)]
    small = decode(budget, png(), np.shape)
    assert len(small.result(30)) == 3
    assert not any(future.done() for future in large)
    gate.set()
    assert [future.result(30) for future in large] == [True] * 3


@pytest.mark.skipif(sys.platform != "linux", reason="priorities of threads")
def test_large_images_are_decoded_with_less_priority(decode: Decode) -> None:
    def niceness(pixels: np.ndarray) -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    # A JPEG without an end marker is decoded ten times.
    cut = encoded(Image.effect_noise((400, 400), 50), "JPEG")[:-2]
    small, large, slow = (decode(PixelBudget(10**9), image, niceness).result(30) for image in (png(), LARGE, cut))
    assert large == slow > small


def test_large_images_take_turns_too_and_what_nobody_waits_for_is_not_decoded(decode: Decode) -> None:
    gate, entered, order = threading.Event(), threading.Event(), []

    def hold(pixels: np.ndarray) -> None:
        entered.set()
        gate.wait(30)

    many, one = PixelBudget(10**9), PixelBudget(10**9)
    decode(many, LARGE, hold)
    assert entered.wait(30)
    waiting = [decode(many, LARGE, lambda pixels, name=name: order.append(name)) for name in ("a", "b", "c")]
    other = decode(one, LARGE, lambda pixels: order.append("other"))
    decode(many, png(), np.shape).result(30)  # by now the headers of all of them have been read
    waiting.pop(1).cancel()
    gate.set()
    for future in (*waiting, other):
        future.result(30)
    assert order == ["a", "other", "c"]


def test_the_pixels_of_a_request_are_bounded(decode: Decode) -> None:
    budget = PixelBudget(2 * WORD_PIXELS)
    results = [decode(budget, png("word"), np.shape).result(30) for _ in range(3)]
    assert [isinstance(result, ImageError) for result in results] == [False, False, True]
    assert results[2].code == "too_many_pixels"


def test_images_beyond_the_pixels_of_a_request_have_an_error_each(reader: HeldReader) -> None:
    files = [("images", (str(n), png("word"), "image/png")) for n in range(3)]
    settings = Settings(max_pixels=WORD_PIXELS, max_request_pixels=2 * WORD_PIXELS, decode_threads=1)
    with warm_client(settings, reader) as client:
        results = client.post("/v1/recognize", files=files).json()["results"]
        assert [result.get("text") for result in results] == ["word", "word", None]
        assert results[2]["error"]["code"] == "too_many_pixels"
        assert client.post("/v1/recognize", files=files[:2]).json()["results"][1]["text"] == "word"


def test_time_in_the_decoding_queue_is_measured(reader: HeldReader) -> None:
    async def scenario() -> None:
        async with serving(Settings(), reader) as (app, client):
            await client.post("/v1/recognize", files=[("images", ("a", png(), "image/png"))])
            assert "str_app_decode_queue_seconds_count 1.0" in app.state.service.metrics.text().decode()

    asyncio.run(scenario())
