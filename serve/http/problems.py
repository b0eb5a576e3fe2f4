"""Errors as `application/problem+json` (RFC 9457)."""

from __future__ import annotations

import http
from email.utils import formatdate
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Scope

from str_app.serve.errors import ProblemError
from str_app.serve.http import schema

MEDIA_TYPE = "application/problem+json"
CLIENT_GONE = 499  # nginx's status for a client that disconnected; only logs and metrics see it


def body_too_large(limit: int) -> ProblemError:
    """The 413 for a request body."""
    return ProblemError(
        413, "body_too_large", f"The body is larger than {limit} bytes; send smaller images, or fewer per request."
    )


def too_many_images(limit: int) -> ProblemError:
    """The 413 for a request of more images."""
    return ProblemError(413, "too_many_images", f"A request may have {limit} images; send several requests.")


def problem_body(problem: ProblemError, request_id: str) -> dict[str, Any]:
    """The members of RFC 9457 and two extensions, `code` and `request_id`."""
    return {
        "type": "about:blank",
        "title": http.HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        "code": problem.code,
        "request_id": request_id,
    }


def problem_response(problem: ProblemError, scope: Scope) -> Response:
    """The response for a problem, in the format of the API that was called; notes the code for the metrics."""
    scope["str_app.problem"] = problem.code
    if is_v2(scope["path"]):
        return JSONResponse({"error": problem.detail}, problem.status, problem.headers)
    body = problem_body(problem, scope.get("str_app.request_id", ""))
    return JSONResponse(body, problem.status, problem.headers, media_type=MEDIA_TYPE)


def is_v2(path: str) -> bool:
    """Whether a path is one of the Open Inference Protocol, which has its own error format."""
    return path == "/v2" or path.startswith("/v2/")


def problem_bytes(problem: ProblemError, scope: Scope) -> bytes:
    """A complete HTTP/1.1 response that closes the connection, for a request that the application will not answer."""
    response = problem_response(problem, scope)
    headers = MutableHeaders(raw=response.raw_headers)
    headers["Date"] = formatdate(usegmt=True)
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Connection"] = "close"
    if "str_app.request_id" in scope:
        headers["X-Request-ID"] = scope["str_app.request_id"]
    lines = [f"HTTP/1.1 {problem.status} {http.HTTPStatus(problem.status).phrase}".encode()]
    lines += [name + b": " + value for name, value in headers.raw]
    return b"\r\n".join(lines) + b"\r\n\r\n" + bytes(response.body)


def documented(descriptions: dict[int, str]) -> dict[int | str, dict[str, Any]]:
    """`responses=` of a route."""
    content = {MEDIA_TYPE: {"schema": schema.ProblemDetails.model_json_schema()}}
    return {status: {"description": description, "content": content} for status, description in descriptions.items()}


def install(app: FastAPI) -> None:
    """Return the framework's own errors (404, 405, validation) in the same format."""

    async def on_problem(request: Request, error: Exception) -> Response:
        assert isinstance(error, ProblemError)
        return problem_response(error, request.scope)

    async def on_client_gone(request: Request, error: Exception) -> Response:
        return Response(status_code=CLIENT_GONE)

    async def on_http_exception(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        phrase = http.HTTPStatus(error.status_code).phrase
        detail = {
            404: "Not found; GET /docs lists all paths.",
            405: "Method not allowed; the Allow header lists those of this path.",
        }.get(error.status_code, str(error.detail))
        return await on_problem(
            request, ProblemError(error.status_code, phrase.lower().replace(" ", "_"), detail, error.headers)
        )

    async def on_validation_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        errors = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        return await on_problem(request, ProblemError(422, "invalid_request", errors))

    app.add_exception_handler(ProblemError, on_problem)
    app.add_exception_handler(ClientDisconnect, on_client_gone)
    app.add_exception_handler(HTTPException, on_http_exception)
    app.add_exception_handler(RequestValidationError, on_validation_error)
