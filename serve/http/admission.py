"""Early rejection: under overload refusals are most of what the event loop does, so they come before routing."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from str_app.serve.errors import ProblemError
from str_app.serve.http.problems import problem_response

READING_PATHS = {"/v1/recognize", "/v1/regions", "/v1/photos"}


class Admission:
    """ASGI middleware: rejects requests to read while the queue is full, or while no model is ready.

    Args:
        app: what it wraps.
        check: raises the problem when not even one image can be admitted.
    """

    def __init__(self, app: ASGIApp, check: Callable[[], None]) -> None:
        self._app = app
        self._check = check

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"] in READING_PATHS:
            try:
                self._check()
            except ProblemError as problem:
                scope["str_app.route"] = scope["path"]  # no router sets it
                await problem_response(problem, scope)(scope, receive, send)
                return
        await self._app(scope, receive, send)
