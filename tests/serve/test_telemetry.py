from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from str_app.serve.http import telemetry
from str_app.serve.http.app import create_app
from str_app.serve.inference.request_reader import RequestReader
from str_app.serve.operations.logs import JsonFormatter
from str_app.serve.operations.metrics import Metrics
from str_app.serve.settings import Settings
from tests.serve.conftest import HeldReader, parts, warm_client

NAMES = {
    "str_app_requests_total",
    "str_app_requests_in_flight",
    "str_app_rejections_total",
    "str_app_images_total",
    "str_app_queue_depth",
    "str_app_pending_images",
    "str_app_ready",
    "str_app_request_seconds_bucket",
    "str_app_decode_seconds_bucket",
    "str_app_queue_seconds_bucket",
    "str_app_inference_seconds_bucket",
    "str_app_batch_size_bucket",
    "str_app_model_info",
    "process_resident_memory_bytes",
}


def test_metric_names_are_kept(client: TestClient) -> None:
    client.post("/v1/recognize", files=parts("a", "b"))
    client.get("/nowhere")
    text = client.get("/metrics").text
    assert {line.split("{")[0].split(" ")[0] for line in text.splitlines()} >= NAMES
    assert 'str_app_requests_total{code="200",method="POST",route="/v1/recognize"} 1.0' in text
    assert 'str_app_images_total{outcome="read"} 2.0' in text
    assert 'str_app_rejections_total{reason="not_found"} 1.0' in text
    assert 'str_app_model_info{name="fake"} 1.0' in text


def test_times_and_sizes_are_measured(client: TestClient) -> None:
    client.post("/v1/recognize", files=parts("a", "b"))
    lines = [line for line in client.get("/metrics").text.splitlines() if not line.startswith("#")]
    values = {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}
    assert values['str_app_request_seconds_count{route="/v1/recognize"}'] == 1
    assert values["str_app_decode_seconds_count"] == values["str_app_queue_seconds_count"] == 2
    assert values["str_app_batch_size_sum"] == 2
    assert values["str_app_inference_seconds_count"] == values["str_app_batch_size_count"] > 0


def test_label_values_do_not_grow_with_client_input(client: TestClient) -> None:
    for i in range(5):
        client.request(f"VERB{i}", f"/nowhere/{i}")
        client.get(f"/static/{i}")
    lines = [line for line in client.get("/metrics").text.splitlines() if line.startswith("str_app_requests_total")]
    assert len(lines) == 2
    assert 'route="unmatched"' in lines[0]


def test_what_no_router_sees_has_labels_of_its_own(reader: HeldReader, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"reader {'0' * 64}")
    preflight = {"Origin": "http://a.example", "Access-Control-Request-Method": "POST"}
    with warm_client(Settings(api_keys_file=keys, cors_origins="*"), reader) as client:
        assert client.options("/v1/recognize", headers=preflight).status_code == 200
        assert client.get("/v1/models").status_code == 401
        text = client.app.state.service.metrics.text().decode()
    assert 'str_app_requests_total{code="200",method="OPTIONS",route="preflight"} 1.0' in text
    assert 'str_app_requests_total{code="401",method="GET",route="unauthorized"} 1.0' in text


def test_request_id_is_kept_or_generated(client: TestClient) -> None:
    assert client.get("/healthz", headers={"X-Request-ID": "abc-1"}).headers["x-request-id"] == "abc-1"
    made = client.get("/healthz", headers={"X-Request-ID": 'in"jected'}).headers["x-request-id"]
    assert len(made) == 32


def test_stage_times_are_in_the_answer(client: TestClient) -> None:
    timing = client.post("/v1/recognize", files=parts("a")).headers["server-timing"]
    assert [stage.split(";")[0] for stage in timing.split(", ")] == ["decode", "queue", "inference"]


def test_log_line_has_the_request_but_nothing_of_its_content(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "str_app.serve"):
        client.post("/v1/recognize", files=parts("secret"), headers={"X-Request-ID": "r1"})
        client.get("/healthz")
    (record,) = [record for record in caplog.records if record.message == "request"]
    line = json.loads(JsonFormatter().format(record))
    assert (line["request_id"], line["route"], line["status"]) == ("r1", "/v1/recognize", 200)
    assert "secret" not in str(line)


def test_refusals_are_logged_once_a_second(
    reader: HeldReader, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with warm_client(Settings(), reader) as client, caplog.at_level(logging.INFO, "str_app.serve"):
        monkeypatch.setattr(client.app.state.service.batcher, "_max_pending", 0)
        for _ in range(5):
            assert client.post("/v1/recognize", files=parts("a")).status_code == 429
        monkeypatch.setattr(telemetry, "REJECTION_LOG_INTERVAL_S", 0.0)
        assert client.post("/v1/recognize", files=parts("a")).status_code == 429
        metrics = client.get("/metrics").text
    lines = [json.loads(JsonFormatter().format(record)) for record in caplog.records if record.message == "request"]
    assert [line["refused"] for line in lines if line["status"] == 429] == [1, 5]
    assert 'str_app_requests_total{code="429",method="POST",route="/v1/recognize"} 6.0' in metrics


def test_texts_are_logged_only_if_switched_on(reader: HeldReader, caplog: pytest.LogCaptureFixture) -> None:
    with warm_client(Settings(log_texts=True), reader) as client, caplog.at_level(logging.INFO, "str_app.serve"):
        client.post("/v1/recognize", files=[*parts("told"), ("images", ("bad", b"junk", "image/png"))])
    (record,) = [record for record in caplog.records if record.message == "request"]
    assert json.loads(JsonFormatter().format(record))["texts"] == ["told", None]


LOGS_OF_ALL_KINDS = """
import logging, threading, warnings
from str_app.serve.operations.logs import configure_logging

configure_logging("json", "info")
logging.getLogger("str_app.engines").info("ours")
logging.getLogger("asyncio").error("a library's")
warnings.warn("a warning of\\ntwo lines", stacklevel=1)
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
raise RuntimeError("nobody caught it")
"""


def test_every_line_is_json_whoever_logs() -> None:
    process = subprocess.run([sys.executable, "-c", LOGS_OF_ALL_KINDS], capture_output=True, text=True, check=False)
    lines = [json.loads(line) for line in process.stderr.splitlines()]
    assert [line["level"] for line in lines] == ["info", "error", "warning", "critical", "critical"]
    assert "ZeroDivisionError" in lines[3]["exception"]
    assert "nobody caught it" in lines[4]["exception"]
    assert process.returncode == 1


def test_dashboard_asks_for_metrics_that_exist(client: TestClient) -> None:
    dashboard = json.loads(Path("deploy/grafana/str-app.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    assert len(queries) >= 10
    client.post("/v1/recognize", files=parts("a"))
    client.get("/nowhere")
    shown = {line.split("{")[0].split(" ")[0] for line in client.get("/metrics").text.splitlines()}
    asked = {name for query in queries for name in re.findall(r"(?:str_app|process)_[a-z_]+", query)}
    assert asked <= shown, asked - shown


def test_documentation_lists_every_metric_and_setting() -> None:
    page, metrics = (Path("docs", name).read_text() for name in ("how-to/serving.md", "reference/metrics.md"))
    registered = {metric.name for metric in Metrics().registry.collect() if metric.name.startswith("str_app")}
    assert not [name for name in registered if f"`{name}" not in metrics]
    assert not [name for name in Settings.model_fields if f"`{name}`" not in page]


def test_two_apps_share_nothing(client: TestClient) -> None:
    client.post("/v1/recognize", files=parts("a"))
    with TestClient(create_app(load=HeldReader)) as other:
        assert 'route="/v1/recognize"' not in other.get("/metrics").text


def test_documented_defaults_are_those_of_the_settings() -> None:
    page = Path("docs/how-to/serving.md").read_text()
    shown = dict(re.findall(r"^\| `(\w+)` \| ([^|]*?) *\|", page, re.MULTILINE))

    def written(value: Any) -> str:
        if value is None or value == "":
            return ""
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, int) and value and value % 2**20 == 0:
            return f"{value // 2**20} MiB"
        if isinstance(value, int) and value >= 100_000:
            return f"{value:,}"
        return f"{value:g}" if isinstance(value, float) else str(value)

    ours = {name: written(field.default) for name, field in Settings.model_fields.items() if name != "threads"}
    assert {name: shown[name] for name in ours} == ours


def test_server_timing_is_that_of_the_slowest_image(client: TestClient) -> None:
    service = client.app.state.service  # type: ignore[attr-defined]
    one = RequestReader(service.batcher, service.decoder, None, service.metrics)
    for seconds in (0.1, 0.3, 0.2):
        one._record("decode", seconds)
    assert one.server_timing.startswith("decode;dur=300.00")
