"""A small asynchronous HTTP client: many connections, little work for each request."""

from __future__ import annotations

import asyncio
import json
import re
import selectors
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

TICK = 0.002  # seconds between looks at what is due
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
        self._answer: asyncio.Future[tuple[bytes, bytes]] | None = None
        self._received = b""

    async def send(self, request: bytes) -> Answer:
        """The answer to a whole request.

        Raises:
            OSError: the connection broke.
        """
        loop = asyncio.get_running_loop()
        if self._transport is None:
            self._transport, _ = await loop.create_connection(lambda: self, *self._address)
        self._received, self._answer = b"", loop.create_future()
        start = time.perf_counter()
        self._transport.write(request)
        try:
            head, body = await self._answer
        except BaseException:
            self.close()
            raise
        if b"\r\nconnection: close" in head.lower():
            self.close()
        return Answer(int(head[9:12]), head, body, time.perf_counter() - start)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if (whole := parted(self._received)) and self._answer and not self._answer.done():
            self._answer.set_result(whole)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._answer and not self._answer.done():
            self._answer.set_exception(exc if isinstance(exc, OSError) else ConnectionResetError("closed"))

    def close(self) -> None:
        if self._transport:
            self._transport.close()
            self._transport = None


def parted(received: bytes) -> tuple[bytes, bytes] | None:
    """Head and body, once the whole answer is there."""
    head, end, body = received.partition(b"\r\n\r\n")
    if not end:
        return None
    length = LENGTH.search(head + b"\r\n")
    assert length, head
    return (head, body) if len(body) == int(length[1]) else None


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


def open_loop(address: tuple[str, int], requests: list[bytes], rate: float, filling: float, seconds: float) -> Tally:
    """Requests at a rate, whatever comes back, over connections that are made as needed.

    What is answered counts from `filling` seconds on: until then the queue fills, and nothing comes of it yet. Plain
    sockets, looked at every `TICK`: what the client takes of the cores is missing to the server that it measures.
    """
    tally, selector, sent, while_filling = Tally(), selectors.DefaultSelector(), 0, 0
    idle: list[socket.socket] = []
    running: dict[socket.socket, tuple[float, bytes]] = {}  # when its request was sent, and what has come since
    start = time.perf_counter()

    def send(request: bytes) -> None:
        if idle:
            connection = idle.pop()
        else:
            connection = socket.create_connection(address)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            selector.register(connection, selectors.EVENT_READ)
        running[connection] = time.perf_counter(), b""
        connection.sendall(request)

    def receive(connection: socket.socket) -> None:
        begun, received = running.pop(connection, (0.0, b""))
        piece = connection.recv(1 << 16)
        whole = parted(received + piece)
        if not whole and piece:
            running[connection] = begun, received + piece
            return
        if whole:
            tally.add(Answer(int(whole[0][9:12]), *whole, time.perf_counter() - begun), 1, None)
        elif begun:
            tally.wrong.append("a connection was closed without an answer")
        if whole and b"\r\nconnection: close" not in whole[0].lower():
            idle.append(connection)
            return
        selector.unregister(connection)
        connection.close()
        with suppress(ValueError):
            idle.remove(connection)

    while running or time.perf_counter() - start < filling + seconds:
        now = time.perf_counter() - start
        if now < filling:
            while_filling = tally.images
        if now < filling + seconds:
            for number in range(sent, int(rate * now)):
                send(requests[number % len(requests)])
                sent = number + 1
            tally.elapsed, served = now - filling, tally.images
        time.sleep(TICK)
        for key, _ in selector.select(0):
            receive(key.fileobj)  # type: ignore[arg-type]
    tally.images = served - while_filling  # while the overload lasted
    for connection in idle:
        connection.close()
    return tally


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
