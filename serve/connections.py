"""HTTP/1.1 connections that nobody can hold for nothing."""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from serve import problems
from serve.problems import ProblemError
from serve.telemetry import Metrics


class Connection(H11Protocol):
    """uvicorn's protocol with what it lacks: time limits, and errors in the form that all others have.

    Three things are limited: the head of a request from its first byte on (or from the connection), the rest of a body
    whose request has been answered already, and the taking of an answer. The body of a request that is being answered
    is the application's to limit, and idling between requests is uvicorn's.

    Args:
        header_timeout_s: for the head, and for the rest of a body that nobody reads.
        write_timeout_s: for a client to take what does not fit into the socket's buffer.
        metrics: where refusals are counted.
        arguments, keywords: uvicorn's.
    """

    def __init__(
        self, *arguments: Any, header_timeout_s: float, write_timeout_s: float, metrics: Metrics, **keywords: Any
    ) -> None:
        super().__init__(*arguments, **keywords)
        self._header_timeout_s = header_timeout_s
        self._write_timeout_s = write_timeout_s
        self._metrics = metrics
        self._limit: asyncio.TimerHandle | None = None
        self._write_limit: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._begin_limit()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_limit()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._answering:
            self._end_limit()
        else:
            self._begin_limit()

    def on_response_complete(self) -> None:
        self._end_limit()
        super().on_response_complete()
        # Half a body that nobody reads, or half a head that came with the last request.
        if not self._answering and (self.conn.their_state is h11.SEND_BODY or self.conn.trailing_data[0]):
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
        if self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]:
            self.transport.close()  # a connection made in advance, perhaps: nothing to complain about
            return
        self._refuse(
            ProblemError(
                408, "header_timeout", f"No complete request within {self._header_timeout_s:g} s of its start."
            )
        )

    def _refuse(self, problem: ProblemError) -> None:
        """Say why, if nothing has been said, and close."""
        self._metrics.rejections.labels(problem.code).inc()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE) and not self.transport.is_closing():
            body = json.dumps(problems.problem_body(problem, "")).encode()
            headers = [
                ("content-type", problems.MEDIA_TYPE),
                ("content-length", str(len(body))),
                ("connection", "close"),
            ]
            reason = HTTPStatus(problem.status).phrase
            events = (
                h11.Response(status_code=problem.status, headers=headers, reason=reason),
                h11.Data(data=body),
                h11.EndOfMessage(),
            )
            self.transport.write(b"".join(self.conn.send(event) or b"" for event in events))
        self.transport.close()
