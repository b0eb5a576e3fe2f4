"""OpenTelemetry spans, one per request, sent to `traces_endpoint`; off unless that is set."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from starlette.datastructures import Headers
from starlette.types import Scope

from str_app.errors import StrAppError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor


class Tracer:
    """Records finished requests as spans, children of the span in the `traceparent` header if there is one.

    Args:
        processor: receives finished spans.
    """

    def __init__(self, processor: SpanProcessor) -> None:
        from opentelemetry.propagate import extract
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.trace import SpanKind, StatusCode

        self._provider = TracerProvider(resource=Resource.create({"service.name": "str-app"}))
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("str_app.serve")
        self._extract, self._server, self._error = extract, SpanKind.SERVER, StatusCode.ERROR

    @classmethod
    def to_endpoint(cls, endpoint: str) -> Tracer:
        """A tracer that exports in the background, in batches, as OTLP over HTTP.

        Raises:
            StrAppError: OpenTelemetry is not installed.
        """
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ModuleNotFoundError as error:
            raise StrAppError(
                f"traces_endpoint is set but {error.name} is not installed: pip install 'str-app[tracing]'"
            ) from None
        return cls(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint.rstrip("/") + "/v1/traces")))

    def record(self, scope: Scope, route: str, status: int, seconds: float) -> None:
        """Record a request that has just ended after `seconds`, with the times of its slowest image per stage."""
        end = time.time_ns()
        attributes: dict[str, Any] = {
            "http.request.method": scope["method"],
            "http.route": route,
            "http.response.status_code": status,
            "str_app.request_id": scope["str_app.request_id"],
        }
        for stage, stage_seconds in scope.get("str_app.stages", {}).items():
            attributes[f"str_app.{stage}_s"] = stage_seconds
        span = self._tracer.start_span(
            f"{scope['method']} {route}",
            context=self._extract(dict(Headers(scope=scope))),
            kind=self._server,
            attributes=attributes,
            start_time=end - int(seconds * 1e9),
        )
        if status >= 500:
            span.set_status(self._error)
        span.end(end)

    def close(self) -> None:
        """Send the remaining spans."""
        self._provider.shutdown()
