"""Refusing early: a request that cannot be admitted is answered by its connection, before the application sees it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from str_app.serve.http import problems
from str_app.serve.http.problems import ProblemError
from str_app.serve.operations.telemetry import Lifecycle, Recorder, request_id_of

ROUTES = {b"/v1/recognize": "/v1/recognize", b"/v1/regions": "/v1/regions"}


class Refusal(NamedTuple):
    """A whole answer, and whether the connection ends with it."""

    answer: bytes
    closes: bool


class Room:
    """Refuses requests to read while there is no room for another image, or no model.

    Under overload refusals are most of what the event loop does, on cores that it shares with the model. What does not
    come this way (see `create_app` and `Connection`) is refused by the application.

    Args:
        check: raises the problem when nothing can be read now.
        recorder: told of each refusal.
        lifecycle: while it drains, refusals close their connection.
    """

    def __init__(self, check: Callable[[], None], recorder: Recorder, lifecycle: Lifecycle) -> None:
        self._check = check
        self._recorder = recorder
        self._lifecycle = lifecycle

    def refusal(
        self, method: bytes, url: bytes, headers: Iterable[tuple[bytes, bytes]], keep_alive: bool
    ) -> Refusal | None:
        """The answer to a request whose head has come; none if the application is to answer."""
        route = ROUTES.get(url.partition(b"?")[0]) if method == b"POST" else None
        if route is None:
            return None
        start = time.perf_counter()
        try:
            self._check()
        except ProblemError as problem:
            given = next((value for name, value in headers if name == b"x-request-id"), b"")
            request_id = request_id_of(given.decode("latin-1"))
            closes = self._lifecycle.draining or not keep_alive
            answer = problems.problem_bytes(problem, request_id, closes)
            took = time.perf_counter() - start
            self._recorder.answered(request_id, route, "POST", problem.status, took, problem.code)
            return Refusal(answer, closes)
        return None
