"""Keys, other sites' pages, and what answers give away."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from str_app.errors import StrAppError
from str_app.serve.http.access import read_keys
from str_app.serve.http.app import create_app
from str_app.serve.operations.logs import JsonFormatter
from str_app.serve.settings import Settings
from tests.serve.conftest import HeldReader, parts, serving, warm_client

KEYS = {"reader": "r" * 64, "other": "o" * 64}
PROTECTED = ["/", "/docs", "/openapi.json", "/static/page.js", "/metrics", "/v1/models", "/v2", "/nowhere"]
OPEN = ["/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"]


@pytest.fixture
def guarded(reader: HeldReader, tmp_path: Path):
    keys = tmp_path / "keys"
    lines = [f"{name} {hashlib.sha256(key.encode()).hexdigest()}" for name, key in KEYS.items()]
    keys.write_text("# who may\n\n" + "\n".join(lines))
    with warm_client(Settings(api_keys_file=keys), reader) as client:
        yield client


@pytest.mark.parametrize("path", PROTECTED)
def test_everything_needs_a_key(guarded: TestClient, path: str) -> None:
    answer = guarded.get(path)
    assert answer.status_code == 401
    schemes = [value.split()[0] for value in answer.headers.get_list("www-authenticate")]  # browsers read one a line
    assert schemes == ["Bearer", "Basic"]
    assert guarded.get(path, headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert guarded.get(path, headers={"Authorization": f"Bearer {KEYS['other']}"}).status_code != 401


@pytest.mark.parametrize("path", OPEN)
def test_health_needs_none(guarded: TestClient, path: str) -> None:
    assert guarded.get(path).status_code in (200, 503)


def test_each_way_to_send_each_key(guarded: TestClient) -> None:
    for key in KEYS.values():
        for sent in ({"headers": {"X-API-Key": key}}, {"auth": ("anyone", key)}):
            answer = guarded.post("/v1/recognize", files=parts("word"), **sent)
            assert answer.json()["results"][0]["text"] == "word"


def test_a_key_counts_beside_an_authorization_that_a_gateway_wants(guarded: TestClient) -> None:
    for gateway in ("Bearer of-the-gateway", "Basic x"):
        sent = {"Authorization": gateway, "X-API-Key": KEYS["reader"]}
        assert guarded.get("/v1/models", headers=sent).status_code == 200
        assert guarded.get("/v1/models", headers=sent | {"X-API-Key": "wrong"}).status_code == 401


def test_the_log_has_the_name_of_the_key_but_not_the_key(guarded: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "str_app.serve"):
        guarded.get("/v1/models", headers={"X-API-Key": KEYS["other"]})
        guarded.get("/v1/models", headers={"X-API-Key": "wrong"})
    lines = [JsonFormatter().format(record) for record in caplog.records if record.message == "request"]
    assert [json.loads(line).get("key") for line in lines] == ["other", None]
    assert not any(key in line for line in lines for key in (*KEYS.values(), "wrong"))


@pytest.mark.parametrize(
    "sent",
    [
        {"headers": {"X-API-Key": f" {KEYS['reader']}\t"}},
        {"headers": {"Authorization": f"  Bearer   {KEYS['reader']} "}},
        {"auth": ("anyone", f" {KEYS['reader']}\n")},
    ],
)
def test_blanks_around_a_key_do_not_matter(guarded: TestClient, sent: dict) -> None:
    assert guarded.get("/v1/models", **sent).status_code == 200


def test_401_is_documented_where_keys_are_asked_for(guarded: TestClient, client: TestClient) -> None:
    def documented(client: TestClient, **options: Any) -> set[str]:
        document = client.get("/openapi.json", **options).json()
        operations = [(path, verb) for path, verbs in document["paths"].items() for verb in verbs.values()]
        known = document["components"].get("securitySchemes", {}).keys()
        asked = {
            path for path, verb in operations if {name for way in verb.get("security", []) for name in way} & known
        }
        refused = {path: verb["responses"]["401"] for path, verb in operations if "401" in verb["responses"]}
        assert asked == refused.keys()
        assert {path for path, answer in refused.items() if "content" not in answer} <= {
            path for path in asked if path.startswith("/v2")
        }
        return asked

    with_keys = documented(guarded, headers={"X-API-Key": KEYS["reader"]})
    assert {"/v1/recognize", "/v1/models", "/v2", "/v2/models/{name}/infer", "/metrics"} <= with_keys
    assert not with_keys & set(OPEN)
    assert documented(client) == set()


WRONG = [
    {},
    {"Authorization": ""},
    {"Authorization": "Bearer"},
    {"Authorization": "Basic"},
    {"Authorization": "Basic !!!"},
    {"Authorization": "Bearer " + "r" * 63},
    {"Authorization": "Bearer " + hashlib.sha256(b"r" * 64).hexdigest()},
    {"X-API-Key": "é".encode("latin-1")},
]


@pytest.mark.parametrize("headers", WRONG)
def test_anything_else_is_refused_without_reading_the_body(
    reader: HeldReader, tmp_path: Path, headers: dict[str, Any]
) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"a {hashlib.sha256(b'k').hexdigest()}\n")

    async def body() -> AsyncIterator[bytes]:
        raise AssertionError("the body was asked for")
        yield b""

    async def scenario() -> None:
        async with serving(Settings(api_keys_file=keys), reader) as (_, client):
            answer = await client.post("/v1/recognize", headers=headers, content=body())
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
            assert answer.headers["content-type"] == "application/problem+json"

    asyncio.run(scenario())


def test_the_host_header_does_not_affect_access(guarded: TestClient) -> None:
    assert guarded.get("/metrics", headers={"Host": "x/healthz?"}).status_code == 401
    assert guarded.get("//healthz").status_code == 401
    assert guarded.get("/metrics/../healthz").status_code in (401, 200)


BAD_FILES = {
    "no key": "# nothing\n",
    "a key itself": "reader " + "r" * 63,
    "no name": hashlib.sha256(b"key").hexdigest(),
    "three words": "a b " + "0" * 64,
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_an_invalid_keys_file_stops_the_start(kind: str, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(BAD_FILES[kind])
    with pytest.raises(StrAppError, match=r"keys"):
        create_app(Settings(api_keys_file=keys))


def test_a_missing_keys_file_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(StrAppError, match="cannot be read"):
        read_keys(tmp_path / "nowhere")


def test_cross_origin_requests_need_permission(client: TestClient, reader: HeldReader) -> None:
    asked = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    assert "access-control-allow-origin" not in client.get("/v1/models", headers=asked).headers
    assert client.options("/v1/recognize", headers=asked).status_code == 405
    settings = Settings(cors_origins="https://a.example, https://b.example")
    with warm_client(settings, reader) as allowed:
        answer = allowed.options("/v1/recognize", headers=asked)
        assert answer.headers["access-control-allow-origin"] == "https://a.example"
        # A page may send binary tensors, and read those it gets.
        length = "Inference-Header-Content-Length"
        answer = allowed.options("/v2/models/fake/infer", headers=asked | {"Access-Control-Request-Headers": length})
        assert (answer.status_code, length in answer.headers["access-control-allow-headers"]) == (200, True)
        answer = allowed.get("/v1/models", headers={"Origin": "https://a.example"})
        assert length in answer.headers["access-control-expose-headers"]
        answer = allowed.get("/v1/models", headers={"Origin": "https://c.example"})
        assert "access-control-allow-origin" not in answer.headers


def test_pages_have_security_headers(client: TestClient) -> None:
    headers = client.get("/").headers
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-opener-policy"] == "same-origin"


def test_errors_leak_no_internals(client: TestClient, reader: HeldReader) -> None:
    reader.poison = "boom"
    answers = [
        client.get("/nowhere"),
        client.get("/static/nowhere"),
        client.get("/static/../app.py"),
        client.post("/v1/recognize", files=parts("boom")),
        client.post("/v1/recognize", content=b"x", headers={"content-type": "image/png"}),
        client.post("/v2/models/fake/infer", content=b"{"),
    ]
    for answer in answers:
        for secret in ("Traceback", "site-packages", "serve/", "/work", ".py", "uvicorn", "starlette", "Pillow"):
            assert secret not in answer.text
