"""A server around a reader that needs no network and that tests can hold up."""

from __future__ import annotations

import asyncio
import io
import math
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from str_app.models.preprocessing import Preprocessing
from str_app.photos.photo_reader import PhotoPipeline
from str_app.pipeline import CanvasPipeline
from str_app.reading import Reading
from str_app.serve.http.app import create_app
from str_app.serve.settings import Settings
from str_app.views import Canvas
from tests.str_app.fake_engine import AS_PAINTED, CELL, CELLS, FakeEngine, paint


class TwoWidths(FakeEngine):
    """Words of up to 7 characters go on a canvas of half the width."""

    def __init__(self) -> None:
        super().__init__()
        self.preprocessing = Preprocessing(height=32, widths=(CELL * CELLS // 2, CELL * CELLS), widen_below=0)

    def encode(self, canvases: np.ndarray, widths: np.ndarray) -> Any:
        missing = CELL * CELLS - canvases.shape[2]
        return super().encode(np.pad(canvases, ((0, 0), (0, 0), (0, missing), (0, 0)), mode="edge"), widths)


class HeldReader:
    """Reads as `FakeEngine` does, but only while `gate` is open; remembers its batches."""

    def __init__(self, engine: FakeEngine | None = None) -> None:
        self._pipeline = CanvasPipeline(engine or FakeEngine())
        self.name, self.charset, self.info = self._pipeline.name, self._pipeline.charset, self._pipeline.info
        self.preprocessing, self.engine = self._pipeline.preprocessing, self._pipeline.engine
        self.policy = replace(AS_PAINTED, tall=math.inf)  # crops of short texts are tall, and batches are counted
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        self.batches: list[list[str]] = []
        self.sizes: list[int] = []
        self.searched: list[int] = []  # sizes of the batches not read greedily
        self.shares: list[int] = []
        self.shapes: set[tuple[int, int]] = set()
        self.poison = ""

    def use_threads(self, count: int) -> None:
        self.shares.append(count)

    def warm_up(self, sizes: Sequence[int]) -> None:
        CanvasPipeline.warm_up(self, sizes)  # type: ignore[arg-type]

    def read_canvases(self, canvases: Sequence[Canvas], **options: Any) -> list[Reading]:
        self.entered.release()
        assert self.gate.wait(30), "the test never opened the gate"
        readings = self._pipeline.read_canvases(canvases, **options)
        self.sizes.append(len(readings))
        self.searched += [len(readings)] * (options.get("beam") != 1)
        self.shapes |= {(canvases[0].pixels.shape[1], len(canvases))}
        assert len({canvas.pixels.shape for canvas in canvases}) == 1, "a batch is of one canvas width"
        texts = [reading.text for reading in readings]
        if self.poison and self.poison in texts:
            raise RuntimeError("the model broke on one image")
        self.batches.append(texts)
        return readings

    def forget(self) -> None:
        """Leave the warm-up out of what is counted."""
        self.batches.clear()
        self.sizes.clear()
        self.searched.clear()
        self.shapes.clear()
        while self.entered.acquire(blocking=False):
            pass


def png(text: str = "word") -> bytes:
    """An encoded crop that the fake engine reads as `text`."""
    return encoded(Image.fromarray(paint(text)), "PNG")


def encoded(image: Image.Image, image_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def parts(*texts: str) -> list[tuple[str, tuple[str, bytes, str]]]:
    """`files=` of a request with one crop for each text, named after it."""
    return [("images", (text, png(text), "image/png")) for text in texts]


@pytest.fixture(autouse=True)
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """One batch at a time, whatever this machine has."""
    monkeypatch.setenv("STR_APP_THREADS", "1")


@pytest.fixture(autouse=True)
def no_detector(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether one is installed here or not; tests of photographs bring their own."""
    monkeypatch.setenv("STR_APP_DETECTOR", "none")


@pytest.fixture
def reader() -> HeldReader:
    return HeldReader()


@contextmanager
def warm_client(settings: Settings, reader: HeldReader, photos: PhotoPipeline | None = None) -> Iterator[TestClient]:
    """A client of an application that is started and warm."""
    with TestClient(create_app(settings, lambda: reader, photos), raise_server_exceptions=False) as client:
        wait_until_ready(client.app)
        reader.forget()
        yield client


@pytest.fixture
def client(reader: HeldReader) -> Iterator[TestClient]:
    with warm_client(Settings(), reader) as client:
        yield client


def wait_until_ready(app: Any) -> None:
    assert app.state.service.batcher._warm.wait(30)


@asynccontextmanager
async def serving(
    settings: Settings, load: HeldReader | Callable[[], HeldReader]
) -> AsyncIterator[tuple[FastAPI, httpx.AsyncClient]]:
    """The application, started and warm, and a client on the same event loop."""
    app = create_app(settings, (lambda: load) if isinstance(load, HeldReader) else load)
    async with app.router.lifespan_context(app):
        await asyncio.to_thread(wait_until_ready, app)
        reader = app.state.service.batcher.reader
        reader.forget()
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            try:
                yield app, client
            finally:
                reader.gate.set()


async def entered(reader: HeldReader) -> None:
    """Return when the inference thread stands at the gate."""
    assert await asyncio.to_thread(reader.entered.acquire, timeout=30)


async def queued(app: FastAPI, count: int) -> None:
    """Return when `count` images wait for the model."""
    async with asyncio.timeout(30):
        while len(app.state.service.batcher._queue) != count:
            await asyncio.sleep(0)
