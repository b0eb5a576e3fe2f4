"""Spans, where OpenTelemetry is installed; and without it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from str_app.errors import StrAppError
from str_app.serve.http.app import create_app
from str_app.serve.http.telemetry import Lifecycle, Telemetry
from str_app.serve.operations.metrics import Metrics
from str_app.serve.operations.tracing import Tracer
from str_app.serve.settings import Settings
from tests.serve.conftest import HeldReader, parts, warm_client


def test_a_span_for_each_request_under_the_client_s(reader: HeldReader, monkeypatch: pytest.MonkeyPatch) -> None:
    export = pytest.importorskip("opentelemetry.sdk.trace.export")
    memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    spans = memory.InMemorySpanExporter()
    monkeypatch.setattr(Tracer, "to_endpoint", lambda endpoint: Tracer(export.SimpleSpanProcessor(spans)))
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with warm_client(Settings(traces_endpoint="http://collector"), reader) as client:
        client.post("/v1/recognize", files=parts("secret"), headers={"traceparent": parent, "X-Request-ID": "r1"})
        client.get("/healthz")
        client.get("/nowhere")
    read, missed = spans.get_finished_spans()
    assert read.name == "POST /v1/recognize"
    assert format(read.context.trace_id, "032x") == parent[3:35]
    assert read.attributes["http.response.status_code"] == 200
    assert read.attributes["str_app.request_id"] == "r1"
    assert read.attributes["str_app.inference_s"] > 0
    assert read.end_time - read.start_time >= read.attributes["str_app.inference_s"] * 1e9
    assert "secret" not in read.to_json()
    assert missed.name == "GET unmatched"


def test_a_mistake_marks_its_span() -> None:
    export = pytest.importorskip("opentelemetry.sdk.trace.export")
    memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    spans = memory.InMemorySpanExporter()
    app = FastAPI()
    tracer = Tracer(export.SimpleSpanProcessor(spans))
    app.add_middleware(Telemetry, metrics=Metrics(), lifecycle=Lifecycle(), tracer=tracer)

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError

    TestClient(app).get("/broken")
    (span,) = spans.get_finished_spans()
    assert not span.status.is_ok


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(StrAppError, match=r"str-app\[tracing\]"):
        create_app(Settings(traces_endpoint="http://collector:4318"))


def test_off_by_default() -> None:
    command = "import sys; from str_app.serve.http.app import create_app; create_app(); "
    command += "assert 'opentelemetry.sdk' not in sys.modules"
    subprocess.run([sys.executable, "-c", command], check=True)
