"""A small asynchronous HTTP client: many connections, little work for each request."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)


class Answer(NamedTuple):
    status: int
    head: bytes
    body: bytes
    seconds: float

    @property
    def headers(self) -> dict[str, str]:
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}


class Connection(asyncio.Protocol):
    """One keep-alive connection, made anew when the server has closed it; one request at a time.

    A protocol and not streams, and nothing is parsed that nobody asks for: what the clients take of the cores is
    missing to the server that they measure.
    """

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._transport: asyncio.Transport | None = None
        self._done: Callable[[Answer | OSError], None] | None = None
        self._received = b""
        self._start = 0.0

    async def send(self, request: bytes) -> Answer:
        """The answer to a whole request.

        Raises:
            OSError: the connection broke.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answer | OSError] = loop.create_future()
        if not self.start(request, answer.set_result):
            self._transport, _ = await loop.create_connection(lambda: self, *self._address)
            self.start(request, answer.set_result)
        try:
            found = await answer
        except BaseException:
            self._done = None
            self.close()
            raise
        if isinstance(found, OSError):
            raise found
        return found

    def start(self, request: bytes, done: Callable[[Answer | OSError], None]) -> bool:
        """Send a whole request, and call `done` with its answer, or with why there is none; False: not connected."""
        if self._transport is None:
            return False
        self._done, self._received, self._start = done, b"", time.perf_counter()
        self._transport.write(request)
        return True

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end:
            return
        length = LENGTH.search(head + b"\r\n")
        assert length, head
        if len(body) == int(length[1]):
            if b"\r\nconnection: close" in head.lower():
                self.close()
            self._finish(Answer(int(head[9:12]), head, body, time.perf_counter() - self._start))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._finish(exc if isinstance(exc, OSError) else ConnectionResetError("closed"))

    def _finish(self, outcome: Answer | OSError) -> None:
        done, self._done = self._done, None
        if done:
            done(outcome)

    def close(self) -> None:
        if self._transport:
            self._transport.close()
            self._transport = None


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


def post(data: bytes, path: str = "/v1/recognize", content_type: str = "image/png") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {content_type}\r\nContent-Length: {len(data)}\r\n\r\n"
    return head.encode() + data


def form(images: list[bytes], path: str = "/v1/recognize") -> bytes:
    head = b'--x\r\nContent-Disposition: form-data; name="images"; filename="i"\r\n\r\n'
    body = b"".join(head + image + b"\r\n" for image in images) + b"--x--\r\n"
    return post(body, path, "multipart/form-data; boundary=x")


@dataclass
class Tally:
    """What came back."""

    codes: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    refused_seconds: list[float] = field(default_factory=list)
    wrong: list[Any] = field(default_factory=list)
    images: int = 0
    elapsed: float = 0.0

    def add(self, answer: Answer, images: int, check: Callable[[list[dict[str, Any]]], Any] | None) -> None:
        self.codes[answer.status] += 1
        if answer.status != 200:
            self.refused_seconds.append(answer.seconds)
            return
        self.seconds.append(answer.seconds)
        self.images += images
        if check and (complaint := check(json.loads(answer.body)["results"])):
            self.wrong.append(complaint)

    def __str__(self) -> str:
        return (
            f"{dict(self.codes)}, {self.images / self.elapsed:.1f} crops/s, p50 {percentile(self.seconds, 50):.1f} ms, "
            f"p99 {percentile(self.seconds, 99):.1f} ms, {len(self.wrong)} wrong"
        )


def percentile(seconds: list[float], q: float) -> float:
    """In milliseconds; NaN of nothing."""
    return float(np.percentile(seconds, q) * 1e3) if seconds else float("nan")


@asynccontextmanager
async def probe(address: tuple[str, int], path: str = "/healthz", every_s: float = 0.05) -> AsyncIterator[list[float]]:
    """Seconds that `path` takes, asked again and again while the block runs."""
    times: list[float] = []

    async def ask() -> None:
        connection = Connection(address)
        while True:
            answer = await connection.send(get(path))
            assert answer.status == 200
            times.append(answer.seconds)
            await asyncio.sleep(every_s)

    task = asyncio.create_task(ask())
    try:
        yield times
    finally:
        if not task.cancel():
            task.result()
