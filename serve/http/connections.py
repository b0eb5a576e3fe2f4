"""HTTP/1.1 connections that nobody can hold for nothing."""

from __future__ import annotations

import asyncio
from enum import Enum
from types import SimpleNamespace
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from str_app.serve.http import problems
from str_app.serve.http.problems import ProblemError
from str_app.serve.http.room import Room
from str_app.serve.operations.telemetry import Metrics

MAX_HEAD = 64 * 1024
PIECE = 64 * 1024


# Where uvicorn keeps the request it is answering: one that is done.
ANSWERED: Any = SimpleNamespace(response_started=True, response_complete=True, message_event=asyncio.Event())


class Place(Enum):
    """Where in a request the last byte that has come stands."""

    BETWEEN = 0
    HEAD = 1
    BODY = 2


class Connection(HttpToolsProtocol, asyncio.BufferedProtocol):
    """uvicorn's protocol with what it lacks: time limits, and errors in the form that all others have.

    And with a buffer to receive into: asyncio's own way makes 256 KiB for each piece, which takes the C library ten
    times as long as receiving.

    Three things are limited: the head of a request from its first byte on (or from the connection), the rest of a body
    whose request has been answered already, and the taking of an answer. The body of a request that is being answered
    is the application's to limit, and idling between requests is uvicorn's.

    Args:
        buffer: what is received lies in it until the protocol has copied it; one for all connections of an event loop.
        header_timeout_s: for the head, and for the rest of a body that nobody reads.
        write_timeout_s: for a client to take what does not fit into the socket's buffer.
        metrics: where refusals are counted.
        room: what it refuses is answered here; without one the application sees every request.
        arguments, keywords: uvicorn's.
    """

    def __init__(
        self,
        *arguments: Any,
        buffer: memoryview,
        header_timeout_s: float,
        write_timeout_s: float,
        metrics: Metrics,
        room: Room | None = None,
        **keywords: Any,
    ) -> None:
        super().__init__(*arguments, **keywords)
        self._buffer = buffer
        self._header_timeout_s = header_timeout_s
        self._write_timeout_s = write_timeout_s
        self._metrics = metrics
        self._room = room
        self._place = Place.BETWEEN
        self._head_size = 0
        self._limit: asyncio.TimerHandle | None = None
        self._write_limit: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._begin_limit()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_limit()
        self.resume_writing()
        super().connection_lost(exc)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(self._buffer[:nbytes]))

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        begun = self._place is Place.HEAD
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # The parser takes the offer and with it any body. Nobody does here: the request begins anew without it.
            head = self._head_without_offer()
            self._place = Place.BETWEEN
            self.parser = httptools.HttpRequestParser(self)
            self.data_received(head + data[upgrade.args[0] :])
            return
        except httptools.HttpParserError:
            self.send_400_response("")
            return
        if self._place is Place.HEAD:
            # The parser has no limit. What came before the head in this piece counts with it: pieces are small.
            self._head_size = self._head_size + len(data) if begun else len(data)
            if self._head_size > MAX_HEAD:
                self.send_400_response("")
                return
        # With the timer for idling set, a request was refused, whole, within this piece.
        if self._answering or (self._place is Place.BETWEEN and self.timeout_keep_alive_task):
            self._end_limit()
        else:
            self._begin_limit()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._place = Place.HEAD

    def on_headers_complete(self) -> None:
        if self.parser.get_method() == b"CONNECT":
            raise ValueError("no proxy")  # which the parser makes an error of its own
        if self.parser.should_upgrade():
            return  # see data_received
        if self.parser.get_http_version() == "1.1" and not any(name == b"host" for name, _ in self.headers):
            raise ValueError("HTTP/1.1 asks for a Host")
        self._place = Place.BODY
        if not self._refused_for_room():
            super().on_headers_complete()

    def _refused_for_room(self) -> bool:
        """Answer at once what there is no room for, unless an earlier answer is due or the client waits to be asked."""
        if self._room is None or self._answering or self.expect_100_continue or self.transport.is_closing():
            return False
        keep_alive = self.parser.get_http_version() != "1.0" and self.parser.should_keep_alive()
        refusal = self._room.refusal(self.parser.get_method(), self.url, self.headers, keep_alive)
        if refusal is None:
            return False
        self.cycle = ANSWERED  # so that its body is read and thrown away
        self.transport.write(refusal.answer)
        if refusal.closes:
            self.transport.close()
        # Not this class's: whether the rest of the body needs a limit is seen when this piece has been parsed.
        self._end_limit()
        super().on_response_complete()
        return True

    def on_message_complete(self) -> None:
        self._place = Place.BETWEEN
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def _head_without_offer(self) -> bytes:
        """The head just parsed, without what offers another protocol."""
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        for name, value in self.headers:
            if name == b"connection":
                value = b",".join(
                    t for t in value.split(b",") if t.strip().lower() not in (b"upgrade", b"http2-settings")
                )
            if name != b"upgrade" and not (name == b"connection" and not value):
                lines.append(name + b": " + value)
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def on_response_complete(self) -> None:
        self._end_limit()
        super().on_response_complete()
        # Half a body that nobody reads, or half a head that came with the last request.
        if not self._answering and self._place is not Place.BETWEEN:
            self._begin_limit()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_limit = self.loop.call_later(self._write_timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        if self._write_limit:
            self._write_limit.cancel()
            self._write_limit = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        self._refuse(ProblemError(400, "malformed_http", "This is not HTTP/1.1, or its head is too long."))

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _begin_limit(self) -> None:
        # Not anew with each byte: a head that trickles in is what it is for.
        if self._limit is None and not self.transport.is_closing():
            self._limit = self.loop.call_later(self._header_timeout_s, self._too_late)

    def _end_limit(self) -> None:
        if self._limit:
            self._limit.cancel()
            self._limit = None

    def _too_late(self) -> None:
        self._limit = None
        if self._place is Place.BETWEEN:
            self.transport.close()  # a connection made in advance, perhaps: nothing to complain about
            return
        self._refuse(
            ProblemError(
                408, "header_timeout", f"No complete request within {self._header_timeout_s:g} s of its start."
            )
        )

    def _refuse(self, problem: ProblemError) -> None:
        """Say why, unless an answer to this request has begun or one to an earlier request is still due, and close."""
        self._metrics.rejections.labels(problem.code).inc()
        if self._place is Place.BODY:  # of the request that the newest cycle answers
            silent = not self.cycle.response_started and not self.pipeline
        else:
            silent = not self._answering
        if silent and not self.transport.is_closing():
            self.transport.write(problems.problem_bytes(problem, "", closes=True))
        self.transport.close()
