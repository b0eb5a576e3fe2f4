"""HTTP/1.1 connections: uvicorn's protocol with the time limits and the form of errors that it lacks."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any, cast

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from str_app.serve.errors import ProblemError
from str_app.serve.http.problems import body_too_large, problem_bytes
from str_app.serve.http.telemetry import request_id_of
from str_app.serve.operations.metrics import Metrics

MAX_HEAD_BYTES = 64 * 1024
MAX_DRAINED_BYTES = 512 * 2**20  # takes about a second on loopback
MAX_PIPELINED = 100  # requests sent ahead of their answers; uvicorn would queue any number
SLICE_BYTES = 16 * 1024
CHUNK_SIZE = re.compile(rb"[0-9a-f]+(?=[;\r])", re.IGNORECASE)
UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)


class _DrainedTransport:
    """A transport whose `close` first lets the client finish sending, within limits.

    If data is unread when a socket is closed, the client's kernel discards the answer that it has not read yet.

    Args:
        transport: what it wraps.
        rest_s: how long the client may take for the rest of an incomplete request; 0 if none is.
    """

    def __init__(self, transport: asyncio.Transport, rest_s: Callable[[], float]) -> None:
        self._transport = transport
        self._rest_s = rest_s
        self._drained_bytes = 0
        self.draining = False
        self.write = transport.write  # called most, so without __getattr__

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        return self.draining or self._transport.is_closing()

    def close(self) -> None:
        """The answer ends here; called again, close at once."""
        rest_s = self._rest_s()
        if self.is_closing() or not rest_s:
            self._transport.close()
            return
        self.draining = True
        self.write = lambda data: None  # of an application that does not know yet
        self._transport.write_eof()
        self._transport.resume_reading()
        asyncio.get_running_loop().call_later(rest_s, self._transport.close)

    def drain(self, data: bytes) -> None:
        """Discard what arrives after `close`."""
        self._drained_bytes += len(data)
        if self._drained_bytes > MAX_DRAINED_BYTES:
            self._transport.close()


class Connection(HttpToolsProtocol):
    """Closes connections whose client is too slow, and answers malformed HTTP with `application/problem+json`.

    Three things are limited: the head of a request, from its first byte or from the opening of the connection; the rest
    of a body whose request has been answered, as that of an accepted one is; and how long a client may leave an answer
    in the socket. The body of a request in progress is limited by the application, idling between requests by uvicorn's
    `timeout_keep_alive`.

    Only uvicorn's protocol methods and parser callbacks are overridden. Of its state, `transport`, `parser`, `headers`,
    `scope`, `timeout_keep_alive` and `loop` are used.

    Args:
        header_timeout_s: for a head.
        body_timeout_s: for the rest of a body when the answer is complete, and for a client to take what does not fit
            into the socket's buffer.
        max_body_bytes: above it a chunk is refused by its declared size; the application counts what arrives.
        metrics: where rejections are counted.
        arguments, keywords: uvicorn's.
    """

    def __init__(
        self,
        *arguments: Any,
        header_timeout_s: float,
        body_timeout_s: float,
        max_body_bytes: int,
        metrics: Metrics,
        **keywords: Any,
    ) -> None:
        super().__init__(*arguments, **keywords)
        self._header_timeout_s = header_timeout_s
        self._body_timeout_s = body_timeout_s
        self._metrics = metrics
        self._max_body_bytes = max_body_bytes
        self._in_head = self._in_body = self._before_chunks = False
        self._first_chunk = b""
        self._has_asked = False  # a request has begun
        self._head_bytes = 0  # of a head; in a body, of trailers and extensions of chunks since its last content
        self._unanswered = 0  # requests whose head is complete
        self._read_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._undrained = transport
        self._drained = _DrainedTransport(transport, self._rest_s)
        super().connection_made(cast(asyncio.Transport, self._drained))
        self._start_read_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_read_timer()
        self._stop_write_timer()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """The server stops: the answers that are complete have been sent long ago."""
        super().shutdown()
        if self._drained.draining:
            self.loop.call_later(1.0, self._undrained.close)

    def data_received(self, data: bytes) -> None:
        if self._drained.draining:
            self._drained.drain(data)
            return
        # The parser does not limit heads. Slices keep the count right when other data precedes a head in a piece.
        for start in range(0, len(data), SLICE_BYTES):
            if self.transport.is_closing():
                return
            piece = rest = data[start : start + SLICE_BYTES]
            if not self._in_body:
                # The parser would drop the body of a request that offers another protocol, as Java's client does.
                head, end, rest = piece.partition(b"\r\n\r\n")
                piece = UPGRADE.sub(b"\r\nX-Upgrade:", head) + end + rest
            if self._before_chunks or not self._in_body:
                self._first_chunk = rest
            super().data_received(piece)
            if self._in_head or self._in_body:
                self._head_bytes += len(piece)
                if self._head_bytes > MAX_HEAD_BYTES:
                    self.send_400_response("")
        if not self._in_head and not self._in_body:
            # uvicorn has stopped its own timer, if only for a blank line after a request.
            self._start_read_timer(self.timeout_keep_alive)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if not self._in_head and self._has_asked:  # idling has a limit of its own
            self._stop_read_timer()
        self._has_asked = True
        self._in_head, self._head_bytes = True, 0
        self._start_read_timer()

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():  # CONNECT, or an offer that came in pieces
            raise ValueError("no other protocol is spoken here")  # the parser turns it into an error of its own
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (hosts == 0 and self.parser.get_http_version() == "1.1"):
            raise ValueError("HTTP/1.1 requires one Host")
        if self._unanswered >= MAX_PIPELINED:
            raise ValueError("too many requests sent ahead")
        codings = [value.strip().lower() for name, value in self.headers if name == b"transfer-encoding"]
        if codings not in ([], [b"chunked"]):
            raise ValueError("no other transfer coding is known here")
        self._stop_read_timer()
        self._in_head, self._in_body = False, True
        self._before_chunks = bool(codings)
        self._head_bytes = 0
        self._unanswered += 1
        super().on_headers_complete()

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_body:  # not a trailer: uvicorn would take it for a header of the request
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0
        super().on_body(body)

    def on_chunk_header(self) -> None:
        """Called by the parser, which does not tell the size."""
        if self._first_chunk_too_large():
            raise ValueError("the body will be too large")
        self._before_chunks = False
        self._head_bytes = 0

    def on_message_complete(self) -> None:
        self._in_body = False
        if not self._unanswered:
            self._stop_read_timer()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self._unanswered -= 1
        if self._in_head or self._in_body:
            self._start_read_timer()
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_timer = self.loop.call_later(self._body_timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        self._stop_write_timer()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Answer malformed HTTP; uvicorn calls this with a text of its own."""
        if self._first_chunk_too_large():
            self._reject(body_too_large(self._max_body_bytes))
        else:
            self._reject(ProblemError(400, "malformed_http", "This is not HTTP/1.1, or its head is too long."))

    def _first_chunk_too_large(self) -> bool:
        size = CHUNK_SIZE.match(self._first_chunk) if self._before_chunks else None
        return size is not None and int(size[0], 16) > self._max_body_bytes

    def _rest_s(self) -> float:
        return self._body_timeout_s if self._in_body else self._header_timeout_s if self._in_head else 0.0

    def _start_read_timer(self, seconds: float | None = None) -> None:
        # A timer that runs is left alone: heads that trickle in are what it is for. While a request is being answered
        # uvicorn may have stopped reading, and the client waits for the server.
        if self._read_timer is None and not self._unanswered:
            seconds = seconds or self._rest_s() or self._header_timeout_s
            self._read_timer = self.loop.call_later(seconds, self._on_read_timeout)

    def _stop_read_timer(self) -> None:
        if self._read_timer:
            self._read_timer.cancel()
            self._read_timer = None

    def _stop_write_timer(self) -> None:
        if self._write_timer:
            self._write_timer.cancel()
            self._write_timer = None

    def _on_read_timeout(self) -> None:
        self._read_timer = None
        if self._in_head:
            self._reject(
                ProblemError(
                    408, "header_timeout", f"No complete request within {self._header_timeout_s:g} s of its start."
                )
            )
        else:  # nothing was sent, or the rest of a body that nobody reads
            self._undrained.close()

    def _reject(self, problem: ProblemError) -> None:
        """Send the problem, unless the client would take it for the answer to an earlier request, and close."""
        scope: Scope = {"path": ""}
        if self._in_body and self._unanswered == 1:  # the application has the request, and counts and logs it
            scope = cast(Scope, self.scope)
            request_id_of(scope)  # if the application has not begun yet
            scope["str_app.refused"] = problem.status
        else:
            self._metrics.rejections.labels(problem.code).inc()
        if self._unanswered == self._in_body and not self.transport.is_closing():
            self.transport.write(problem_bytes(problem, scope))
            self.transport.close()
        else:
            self._undrained.close()
