"""Refusing early: what cannot be admitted is told so before anything else is done for it."""

from __future__ import annotations

import re
from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from serve.problems import ProblemError, problem_response

_V2 = re.compile(r"/v2/models/[^/]+(/versions/[^/]+)?/infer")


class Room:
    """ASGI middleware: requests to read are refused while there is no room for another image, or no model.

    Before routing and before their bodies are read: under overload refusals are most of what the event loop does, on
    cores that it shares with the model.

    Args:
        app: what it wraps.
        check: raises the problem when nothing can be read now.
    """

    def __init__(self, app: ASGIApp, check: Callable[[], None]) -> None:
        self._app = app
        self._check = check

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = _reading_route(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if route:
            try:
                self._check()
            except ProblemError as problem:
                scope["str_app.route"] = route  # which nobody has looked up
                await problem_response(problem, scope)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _reading_route(path: str) -> str | None:
    """The template of a route that reads images."""
    if path in ("/v1/recognize", "/v1/regions"):
        return path
    infer = _V2.fullmatch(path)
    if infer is None:
        return None
    return f"/v2/models/{{name}}{'/versions/{version}' if infer[1] else ''}/infer"
