"""Metrics, request ids and logs: what an operator sees of a request."""

from __future__ import annotations

import logging
import math
import random
import re
import time
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from str_app.serve.http.problems import CLIENT_GONE, ProblemError, problem_response
from str_app.serve.operations.logs import logger
from str_app.serve.operations.tracing import Tracer

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
QUIET = {"/healthz", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready"}
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
REFUSALS_EVERY_S = 1.0
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Usage(NamedTuple):
    """What processes take of the machine; memory that they share counts for each."""

    resident_bytes: int
    cpu_seconds: float


class Metrics:
    """Prometheus metrics of one app, in a registry of its own."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self.requests = Counter(
            "str_app_requests", "Requests answered.", ["route", "method", "code"], registry=registry
        )
        self.in_flight = Gauge("str_app_requests_in_flight", "Requests being answered.", registry=registry)
        self.rejections = Counter(
            "str_app_rejections", "Requests refused, by the problem's code.", ["reason"], registry=registry
        )
        self.images = Counter(
            "str_app_images", "Images: read, abandoned, or the code of their error.", ["outcome"], registry=registry
        )
        self.queue_depth = Gauge("str_app_queue_depth", "Images waiting for the model.", registry=registry)
        self.pending = Gauge("str_app_pending_images", "Images accepted and not yet answered.", registry=registry)
        self.ready = Gauge("str_app_ready", "1 when the model is warm and the server not draining.", registry=registry)
        self.request_seconds = Histogram(
            "str_app_request_seconds", "From request to answer.", ["route"], buckets=SECONDS, registry=registry
        )
        self.decode_seconds = Histogram(
            "str_app_decode_seconds", "Decoding of one image.", buckets=SECONDS, registry=registry
        )
        self.queue_seconds = Histogram(
            "str_app_queue_seconds", "Waiting of one image for the model.", buckets=SECONDS, registry=registry
        )
        self.inference_seconds = Histogram(
            "str_app_inference_seconds", "Reading of one batch.", buckets=SECONDS, registry=registry
        )
        self.batch_size = Histogram(
            "str_app_batch_size", "Images in a batch.", buckets=(1, 2, 4, 8, 16, 32, 64, 128), registry=registry
        )
        self.reloads = Counter("str_app_reloads", "Reloads of the weights.", ["outcome"], registry=registry)
        for outcome in ("done", "failed"):
            self.reloads.labels(outcome)  # from 0 on, so that an increase shows the first one too
        self.model = Info("str_app_model", "The model that answers.", registry=registry)
        self.model_usage: Callable[[], Usage] | None = None  # set where the model has processes of its own
        ProcessCollector(registry=registry)
        registry.register(_UsageCollector(self))

    def text(self) -> bytes:
        """Prometheus text format."""
        return generate_latest(self.registry)


class _UsageCollector(Collector):
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        used = self._metrics.model_usage() if self._metrics.model_usage else Usage(0, 0.0)
        yield GaugeMetricFamily(
            "str_app_model_resident_bytes", "Memory of the model's processes.", value=used.resident_bytes
        )
        yield CounterMetricFamily("str_app_model_cpu_seconds", "CPU of the model's processes.", value=used.cpu_seconds)


class Recorder:
    """Counts what was answered, and logs it."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics
        self._refused = 0  # since the last line about it
        self._told_at = -math.inf
        # Looked up once: a label costs more than counting.
        self._series = cache(self._find_series)

    def answered(
        self, request_id: str, route: str, method: str, status: int, seconds: float, problem: str = "", **fields: Any
    ) -> None:
        """Count an answer and write its line.

        Args:
            request_id: as the client sees it.
            route: the template of the path: what strangers send would make labels without bound.
            method: likewise one of `METHODS`, or "other".
            status: of HTTP.
            seconds: from request to answer.
            problem: the code of a refusal.
            fields: more for the line.
        """
        requests, times, rejections = self._series(route, method, status, problem)
        requests.inc()
        times.observe(seconds)
        if rejections:
            rejections.inc()
        if status == 429:
            # Under overload a line for each would cost more than the refusals themselves.
            self._refused += 1
            if time.monotonic() - self._told_at < REFUSALS_EVERY_S:
                return
            fields["refused"] = self._refused
            self._refused, self._told_at = 0, time.monotonic()
        line = {"request_id": request_id, "method": method, "route": route, "status": status}
        line["ms"] = round(seconds * 1e3, 2)
        logger.log(logging.DEBUG if is_quiet(route, status) else logging.INFO, "request", extra=line | fields)

    def _find_series(
        self, route: str, method: str, status: int, problem: str
    ) -> tuple[Counter, Histogram, Counter | None]:
        metrics = self.metrics
        rejections = metrics.rejections.labels(problem) if problem else None
        return metrics.requests.labels(route, method, str(status)), metrics.request_seconds.labels(route), rejections


class Telemetry:
    """ASGI middleware: request id, counters, a log line, security headers, and the last net for errors.

    Args:
        app: what it wraps.
        recorder: where it counts.
        lifecycle: while it drains, answers ask clients to close their connection and so to find another replica.
        tracer: where spans go, if anywhere.
    """

    def __init__(self, app: ASGIApp, recorder: Recorder, lifecycle: Lifecycle, tracer: Tracer | None = None) -> None:
        self.app = app
        self.recorder = recorder
        self.lifecycle = lifecycle
        self.tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = scope["str_app.request_id"] = request_id_of(Headers(scope=scope).get("x-request-id", ""))
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
                if self.lifecycle.draining:
                    headers["Connection"] = "close"
            await send(message)

        with self.recorder.metrics.in_flight.track_inprogress():
            try:
                await self.app(scope, receive, send_with_headers)
            except Exception:
                logger.exception("request failed", extra={"request_id": request_id})
                if status:  # the answer has begun: only the server can break it off
                    raise
                problem = ProblemError(500, "internal_error", "The server made a mistake; its log has the request_id.")
                await problem_response(problem, scope)(scope, receive, send_with_headers)
        self._record(scope, status or CLIENT_GONE, time.perf_counter() - start)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        unrouted = scope.get("str_app.route", "/static" if status < 400 else "unmatched")
        route = str(getattr(scope.get("route"), "path", unrouted))
        method = scope["method"] if scope["method"] in METHODS else "other"
        problem = scope.get("str_app.problem", "")
        texts = {"texts": scope["str_app.texts"]} if "str_app.texts" in scope else {}
        self.recorder.answered(scope["str_app.request_id"], route, method, status, seconds, problem, **texts)
        if self.tracer and not is_quiet(route, status):
            self.tracer.record(scope, route, status, seconds)


def is_quiet(route: str, status: int) -> bool:
    """Whether an answer is not worth a line: probes come every few seconds and would drown the rest."""
    return route in QUIET and status < 400


def request_id_of(given: str) -> str:
    """The client's own id where it is one, otherwise a new one."""
    # No secret: the system's generator would let another thread take Python's lock at each request.
    return given if REQUEST_ID.fullmatch(given) else f"{random.getrandbits(128):032x}"


class Lifecycle:
    """Whether the server has been told to stop."""

    def __init__(self) -> None:
        self.draining = False
