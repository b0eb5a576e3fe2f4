from __future__ import annotations

import inspect

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from str_app.cli import app
from str_app.cli.serve import serve
from str_app.serve.settings import Settings, misspelt_variables


def test_arguments_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STR_APP_PORT", "9000")
    monkeypatch.setenv("STR_APP_MAX_BATCH", "8")
    settings = Settings(port=9001)
    assert (settings.port, settings.max_batch) == (9001, 8)


def test_help_names_every_setting() -> None:
    options = inspect.signature(serve).parameters
    assert not [
        name for name in Settings.model_fields if name not in options and f"STR_APP_{name.upper()}" not in serve.__doc__
    ]
    assert set(options) <= set(Settings.model_fields)


def test_wrong_setting_is_wrong_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STR_APP_MAX_IMAGES", "many")
    outcome = CliRunner().invoke(app, ["serve"])
    assert outcome.exit_code == 2
    assert "max_images" in outcome.output


def test_a_full_request_must_fit_the_queue() -> None:
    with pytest.raises(ValidationError, match="max_pending"):
        Settings(max_pending=10, max_images=64)


def test_a_variable_without_a_value_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STR_APP_HOST", "")
    assert Settings().host == "127.0.0.1"


def test_an_empty_name_of_the_file_of_keys_does_not_open_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STR_APP_API_KEYS_FILE", "")
    with pytest.raises(ValidationError, match="STR_APP_API_KEYS_FILE is empty"):
        Settings()


@pytest.mark.parametrize("name", ["deadline_s", "keep_alive_s", "upload_timeout_s", "max_wait_ms"])
@pytest.mark.parametrize("value", ["inf", "nan"])
def test_times_are_finite(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"STR_APP_{name.upper()}", value)
    with pytest.raises(ValidationError, match=name):
        Settings()


def test_a_full_body_must_fit_the_memory() -> None:
    with pytest.raises(ValidationError, match="max_upload_bytes"):
        Settings(max_body_bytes=2**30)
    with pytest.raises(ValidationError, match=r"max_upload_bytes \(1749\) is below 1\.75 × max_body_bytes \(1000\)"):
        Settings(max_body_bytes=1000, max_upload_bytes=1749)  # JSON is held beside what it decodes to
    assert Settings(max_body_bytes=1000, max_upload_bytes=1750)


def test_the_largest_image_must_fit_a_request() -> None:
    with pytest.raises(ValidationError, match="max_request_pixels"):
        Settings(max_pixels=10**9)


@pytest.mark.parametrize(
    "origins",
    [
        "https://a.example/",
        "https://a.example/page",
        "a.example",
        "http://ok.example,a.example:8080",
        "https://A.example",
        "https://a.example:443",
        "http://a.example:80",
        "https://*.example",
        "https://me@a.example",
        "https://ä.example",
    ],
)
def test_an_origin_that_no_browser_sends_is_refused(monkeypatch: pytest.MonkeyPatch, origins: str) -> None:
    monkeypatch.setenv("STR_APP_CORS_ORIGINS", origins)
    with pytest.raises(
        ValidationError, match=r"cors_origins(?s:.)*write scheme://host\[:port\] in lower case.*, or \*"
    ):
        Settings()


@pytest.mark.parametrize(
    "origins",
    [
        "*",
        "",
        "null",
        "file://",
        "https://a.example, http://localhost:8080,",
        "http://[::1]:9000",
        "capacitor://localhost",
        "http://a.example:443",
        "https://10.0.0.1:8443",
        "http://a_b.example:8080",
    ],
)
def test_origins_that_browsers_send(origins: str) -> None:
    assert Settings(cors_origins=origins).cors_origins == origins


@pytest.mark.parametrize("endpoint", ["collector:4318", "collector", "grpc://collector:4317", "http://", "http://c:x"])
def test_an_address_that_no_span_reaches_is_refused(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setenv("STR_APP_TRACES_ENDPOINT", endpoint)
    with pytest.raises(ValidationError, match=r"traces_endpoint(?s:.)*write http\(s\)://host\[:port\]"):
        Settings()


def test_the_path_of_spans_is_not_part_of_the_endpoint() -> None:
    with pytest.raises(ValidationError, match="leave out /v1/traces, which is added"):
        Settings(traces_endpoint="http://collector:4318/v1/traces")
    for endpoint in ("http://collector:4318/", "https://collector/otlp"):
        assert Settings(traces_endpoint=endpoint).traces_endpoint == endpoint


def test_misspelt_variables_are_told_apart() -> None:
    """From settings in any case, the command line's own, and what Kubernetes adds for a service of that name."""
    good = ["STR_APP_MAX_IMAGES", "str_app_port", "STR_APP_API_KEY", "STR_APP_NATIVE", "PATH"]
    kubernetes = ["STR_APP_SERVICE_HOST", "STR_APP_PORT_8000_TCP", "STR_APP_PORT_8000_TCP_PROTO"]
    bad = {"STR_APP_MAX_IMGES": "STR_APP_MAX_IMAGES", "STR_APP_API_KEY_FILE": "STR_APP_API_KEYS_FILE"}
    assert dict(misspelt_variables([*good, *kubernetes, *bad])) == bad
