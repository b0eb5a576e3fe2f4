"""Request ids, counters, log lines and security headers of every request."""

from __future__ import annotations

import logging
import math
import random
import re
import time
from functools import cache

from prometheus_client import Counter, Histogram
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from str_app.serve.errors import ProblemError
from str_app.serve.http.problems import CLIENT_GONE, problem_response
from str_app.serve.operations.logs import logger
from str_app.serve.operations.metrics import Metrics
from str_app.serve.operations.tracing import Tracer

QUIET_ROUTES = {
    "/healthz",
    "/readyz",
    "/metrics",
    "/v2/health/live",
    "/v2/health/ready",
    "/v2/models/{name}/ready",
    "/v2/models/{name}/versions/{version}/ready",
}
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
REJECTION_LOG_INTERVAL_S = 1.0
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Lifecycle:
    """Whether the server has been told to stop."""

    def __init__(self) -> None:
        self.draining = False


class Telemetry:
    """ASGI middleware: request id, metrics, one log line per request, security headers; unhandled errors become 500.

    Args:
        app: what it wraps.
        metrics: where requests are counted.
        lifecycle: while it drains, responses close their connection, so that clients move to another replica.
        tracer: receives a span per request, if tracing is on.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, lifecycle: Lifecycle, tracer: Tracer | None = None) -> None:
        self._app = app
        self._metrics = metrics
        self._lifecycle = lifecycle
        self._tracer = tracer
        self._rejections = 0  # since the last log line about them
        self._rejections_logged_at = -math.inf
        self._series = cache(self._find_series)  # looking up a label costs more than counting

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = request_id_of(scope)
        start = time.perf_counter()
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                headers["X-Content-Type-Options"] = "nosniff"
                if headers.get("content-type", "").startswith("text/html"):
                    headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
                    headers["Referrer-Policy"] = "no-referrer"
                    headers["Permissions-Policy"] = "camera=(self), microphone=(), geolocation=()"
                    headers["Cross-Origin-Opener-Policy"] = "same-origin"
                if self._lifecycle.draining:
                    headers["Connection"] = "close"
            await send(message)

        with self._metrics.in_flight.track_inprogress():
            try:
                await self._app(scope, receive, send_with_headers)
            except Exception:
                logger.exception("request failed", extra={"request_id": request_id})
                if status:  # the response has begun: uvicorn closes the connection
                    raise
                problem = ProblemError(500, "internal_error", "Internal error; the server's log has the request_id.")
                await problem_response(problem, scope)(scope, receive, send_with_headers)
        # A connection refuses a chunk that is too large without the application.
        self._record(scope, scope.get("str_app.refused") or status or CLIENT_GONE, time.perf_counter() - start)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        """Count and log a request. Labels are route templates and known methods: clients cannot add new ones."""
        route = str(getattr(scope.get("route"), "path", scope.get("str_app.route") or _unrouted(scope, status)))
        method = scope["method"] if scope["method"] in METHODS else "other"
        requests, times, rejections = self._series(route, method, status, scope.get("str_app.problem", ""))
        requests.inc()
        times.observe(seconds)
        if rejections:
            rejections.inc()
        quiet = route in QUIET_ROUTES and status < 400  # probes every few seconds would drown the rest
        if self._tracer and not quiet:
            self._tracer.record(scope, route, status, seconds)
        line = {"request_id": scope["str_app.request_id"], "method": method, "route": route, "status": status}
        line["ms"] = round(seconds * 1e3, 2)
        if scope.get("str_app.key"):
            line["key"] = scope["str_app.key"]
        if scope.get("str_app.texts"):
            line["texts"] = scope["str_app.texts"]
        if status == 429:
            # Under overload a line each would cost more than the rejections themselves.
            self._rejections += 1
            if time.monotonic() - self._rejections_logged_at < REJECTION_LOG_INTERVAL_S:
                return
            line["refused"] = self._rejections
            self._rejections, self._rejections_logged_at = 0, time.monotonic()
        logger.log(logging.DEBUG if quiet else logging.INFO, "request", extra=line)

    def _find_series(
        self, route: str, method: str, status: int, problem: str
    ) -> tuple[Counter, Histogram, Counter | None]:
        metrics = self._metrics
        rejections = metrics.rejections.labels(problem) if problem else None
        return metrics.requests.labels(route, method, str(status)), metrics.request_seconds.labels(route), rejections


def _unrouted(scope: Scope, status: int) -> str:
    """The label of a request that no router has seen."""
    if status == 401:
        return "unauthorized"
    if status >= 400:
        return "unmatched"
    return "preflight" if scope["method"] == "OPTIONS" else "/static"


def request_id_of(scope: Scope) -> str:
    """The id that a request got when this was first asked: the client's own if it is well-formed, otherwise a new one.

    It is kept as `str_app.request_id`.
    """
    if "str_app.request_id" not in scope:
        header = Headers(scope=scope).get("x-request-id", "")
        # `random` suffices, since ids are no secrets; the system's generator would release the interpreter lock.
        scope["str_app.request_id"] = header if REQUEST_ID.fullmatch(header) else f"{random.getrandbits(128):032x}"
    return str(scope["str_app.request_id"])
