"""Errors as `application/problem+json` (RFC 9457)."""

from __future__ import annotations

import http
import json
from collections.abc import Mapping
from email.utils import formatdate
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Scope

from str_app.serve.http import schema

MEDIA_TYPE = "application/problem+json"
CLIENT_GONE = 499  # what proxies log for it; nobody is left to receive it


class ProblemError(Exception):
    """A request that cannot be answered.

    Args:
        status: HTTP status.
        code: stable snake_case word for programs; also the `reason` label of the rejection counter.
        detail: one sentence for people: what, where, and the way out.
        headers: extra response headers.
    """

    def __init__(self, status: int, code: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})


def problem_body(problem: ProblemError, request_id: str) -> dict[str, Any]:
    """The members of RFC 9457 with two more, `code` and `request_id`."""
    return {
        "type": "about:blank",
        "title": http.HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        "code": problem.code,
        "request_id": request_id,
    }


def problem_response(problem: ProblemError, scope: Scope) -> Response:
    """The answer to a request, in the form its door has; noted for the rejection counter."""
    scope["str_app.problem"] = problem.code
    if scope["path"].startswith("/v2/"):  # the Open Inference Protocol has its own form
        return JSONResponse({"error": problem.detail}, problem.status, problem.headers)
    body = problem_body(problem, scope.get("str_app.request_id", ""))
    return JSONResponse(body, problem.status, problem.headers, media_type=MEDIA_TYPE)


def problem_bytes(problem: ProblemError) -> bytes:
    """A whole HTTP/1.1 answer for a request that the application has not seen; the connection ends with it."""
    body = json.dumps(problem_body(problem, "")).encode()
    head = (
        f"HTTP/1.1 {problem.status} {http.HTTPStatus(problem.status).phrase}\r\n"
        f"Date: {formatdate(usegmt=True)}\r\nContent-Type: {MEDIA_TYPE}\r\nContent-Length: {len(body)}\r\n"
        "X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n"
    )
    return head.encode("ascii") + body


def documented(descriptions: dict[int, str]) -> dict[int | str, dict[str, Any]]:
    """`responses=` of a route."""
    content = {MEDIA_TYPE: {"schema": schema.ProblemDetails.model_json_schema()}}
    return {status: {"description": description, "content": content} for status, description in descriptions.items()}


def install(app: FastAPI) -> None:
    """Answer the framework's own errors (404, 405, validation) in the same form."""

    async def on_problem(request: Request, error: Exception) -> Response:
        assert isinstance(error, ProblemError)
        return problem_response(error, request.scope)

    async def on_client_gone(request: Request, error: Exception) -> Response:
        return Response(status_code=CLIENT_GONE)

    async def on_http_exception(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        phrase = http.HTTPStatus(error.status_code).phrase
        detail = {
            404: "There is nothing at this path; GET /docs lists what there is.",
            405: "This path does not take this method; the Allow header lists those it takes.",
        }.get(error.status_code, str(error.detail))
        return await on_problem(
            request, ProblemError(error.status_code, phrase.lower().replace(" ", "_"), detail, error.headers)
        )

    async def on_validation_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        places = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        return await on_problem(request, ProblemError(422, "invalid_request", places))

    app.add_exception_handler(ProblemError, on_problem)
    app.add_exception_handler(ClientDisconnect, on_client_gone)
    app.add_exception_handler(HTTPException, on_http_exception)
    app.add_exception_handler(RequestValidationError, on_validation_error)
