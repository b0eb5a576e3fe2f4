"""A small asynchronous HTTP client: many connections, little work for each request."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float


class Connection:
    """One keep-alive connection, made anew when the server has closed it."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, request: bytes) -> Answer:
        """The answer to a whole request.

        Raises:
            OSError, asyncio.IncompleteReadError: the connection broke.
        """
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._address)
        reader, writer = self._streams
        start = time.perf_counter()
        try:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
            body = await reader.readexactly(int(headers["content-length"]))
        except BaseException:
            self.close()
            raise
        if headers.get("connection") == "close":
            self.close()
        return Answer(int(lines[0].split()[1]), headers, body, time.perf_counter() - start)

    def close(self) -> None:
        if self._streams:
            self._streams[1].close()
            self._streams = None


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
