from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from fastapi.testclient import TestClient

from str_app.serve.settings import Settings
from tests.serve.conftest import HeldReader, entered, parts, png, serving, warm_client

JSON = {"content-type": "application/json"}
PNG = {"content-type": "image/png"}
BOUNDARY = {"content-type": "multipart/form-data; boundary=x"}
TEXT_FIELD = b'--x\r\nContent-Disposition: form-data; name="images"\r\n\r\nhello\r\n--x--\r\n'
FILE = b'--x\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\nhello'
CUT_SHORT = FILE + b"\r\n" + FILE
REQUESTS = {
    "no such path": ("GET", "/nowhere", {}, b"", 404, "not_found"),
    "no such static file": ("GET", "/static/nowhere.js", {}, b"", 404, "not_found"),
    "out of the static folder": ("GET", "/static/..%2fapp.py", {}, b"", 404, "not_found"),
    "wrong method": ("GET", "/v1/recognize", {}, b"", 405, "method_not_allowed"),
    "wrong method on a page": ("POST", "/", {}, b"", 405, "method_not_allowed"),
    "no content type": ("POST", "/v1/recognize", {}, b"abc", 415, "unsupported_media_type"),
    "text": ("POST", "/v1/recognize", {"content-type": "text/plain"}, b"{}", 415, "unsupported_media_type"),
    "compressed": ("POST", "/v1/recognize", JSON | {"content-encoding": "gzip"}, b"", 415, "unsupported_media_type"),
    "not JSON": ("POST", "/v1/recognize", JSON, b"{", 400, "bad_json"),
    "not UTF-8": ("POST", "/v1/recognize", JSON, b'{"\xff": 1}', 400, "bad_json"),
    "deep JSON": ("POST", "/v1/recognize", JSON, b"[" * 100_000, 400, "bad_json"),
    "JSON of many values": ("POST", "/v1/recognize", JSON, b"[" + b"[]," * 200_000 + b"[]]", 413, "too_many_values"),
    "JSON of another shape": ("POST", "/v1/recognize", JSON, b"[1]", 422, "no_images"),
    "JSON without images": ("POST", "/v1/recognize", JSON, b'{"images": []}', 422, "no_images"),
    "JSON image without data": ("POST", "/v1/recognize", JSON, b'{"images": [{}]}', 422, "bad_image"),
    "wrong option": ("POST", "/v1/recognize?rotate=perhaps", JSON, b"{}", 422, "invalid_request"),
    "unknown option": ("POST", "/v1/recognize?rotat=1", JSON, b"{}", 422, "invalid_request"),
    "unknown option of regions": ("POST", "/v1/regions?rotate=1&beam=3", JSON, b"{}", 422, "invalid_request"),
    "unknown option of models": ("GET", "/v1/models?verbose", {}, b"", 422, "invalid_request"),
    "regions of a raw image": (
        "POST",
        "/v1/regions",
        {"content-type": "image/png"},
        b"",
        415,
        "unsupported_media_type",
    ),
    "regions without image": ("POST", "/v1/regions", JSON, b'{"regions": [[0, 0, 9, 9]]}', 422, "no_images"),
    "image without regions": ("POST", "/v1/regions", JSON, b'{"image": {"data": ""}}', 422, "no_regions"),
    "no photograph": ("POST", "/v1/regions", JSON, b'{"image": {"data": ""}, "regions": [[0, 0, 9, 9]]}', 422, "empty"),
    "no boundary": ("POST", "/v1/recognize", {"content-type": "multipart/form-data"}, b"", 400, "bad_multipart"),
    "broken multipart": ("POST", "/v1/recognize", BOUNDARY, b"not multipart", 400, "bad_multipart"),
    "text instead of a file": ("POST", "/v1/recognize", BOUNDARY, TEXT_FIELD, 422, "no_images"),
    "cut short": ("POST", "/v1/recognize", BOUNDARY, CUT_SHORT, 400, "bad_multipart"),
    "cut short by the last boundary": ("POST", "/v1/recognize", BOUNDARY, CUT_SHORT + b"\r\n--x", 400, "bad_multipart"),
    "a repeated option": ("POST", "/v1/recognize?rotate=1&rotate=0", BOUNDARY, TEXT_FIELD, 422, "invalid_request"),
    "nothing in it": ("POST", "/v1/recognize", BOUNDARY, b"--x--\r\n", 422, "no_images"),
}


@pytest.mark.parametrize("kind", REQUESTS)
def test_error_is_a_problem(client: TestClient, kind: str) -> None:
    method, path, headers, body, status, code = REQUESTS[kind]
    answer = client.request(method, path, headers=headers, content=body)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["code"] == code
    assert problem["type"] == "about:blank"
    assert problem["title"]
    assert problem["detail"]
    assert problem["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize("charset", ["undefined", "utf-7", "unicode_escape", "utf-16", "none such"])
@pytest.mark.parametrize("name", ["+2AA-", "grün"])
def test_a_form_is_utf_8_whatever_it_says(client: TestClient, charset: str, name: str) -> None:
    body = FILE.replace(b'"a"', f'"{name}"'.encode()) + b"\r\n--x--\r\n"
    headers = {"content-type": f"multipart/form-data; boundary=x; charset={charset}"}
    answer = client.post("/v1/recognize", content=body, headers=headers)
    assert answer.status_code == 200
    assert answer.json()["results"][0]["image"] == name


def test_an_unknown_option_is_named_with_those_that_there_are(client: TestClient) -> None:
    detail = client.post("/v1/recognize?rotate=true&charcters=0-9", files=parts("word")).json()["detail"]
    assert detail == "Unknown query parameter 'charcters': there are rotate, characters, attention."
    assert "there are none" in client.get("/v1/models?a=1").json()["detail"]


@pytest.mark.parametrize("path", ["/", "/healthz?probe=1", "/metrics?x=1", "/v2/health/live?x=1", "/v2/models/fake?x"])
def test_probes_and_other_protocols_may_have_parameters_of_their_own(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 200


def test_405_says_what_is_allowed(client: TestClient) -> None:
    assert client.get("/v1/recognize").headers["allow"] == "POST"


def test_wrong_field_is_named(client: TestClient) -> None:
    answer = client.post("/v1/recognize", files=[("image", ("a.png", png(), "image/png"))])
    assert answer.status_code == 422
    assert "'image'" in answer.json()["detail"]


def test_body_over_the_limit_by_its_declared_length(reader: HeldReader) -> None:
    with warm_client(Settings(max_body_bytes=100), reader) as client:
        answer = client.post("/v1/recognize", content=b"x" * 101, headers={"content-type": "image/png"})
        assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
        answer = client.post("/v1/recognize", files=parts("word"))
        assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


@pytest.mark.parametrize("content_type", ["image/png", "multipart/form-data; boundary=x"])
def test_chunked_body_is_cut_off_at_the_limit(reader: HeldReader, content_type: str) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        yield b'--x\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n'
        while True:
            sent += 1000
            yield b"x" * 1000

    async def scenario() -> None:
        async with serving(Settings(max_body_bytes=10_000), reader) as (_, client):
            answer = await client.post("/v1/recognize", content=endless(), headers={"content-type": content_type})
            assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
            assert sent <= 11_000

    asyncio.run(scenario())


def test_too_many_images(reader: HeldReader) -> None:
    with warm_client(Settings(max_images=2), reader) as client:
        assert client.post("/v1/recognize", files=parts("a", "b")).status_code == 200
        answer = client.post("/v1/recognize", files=parts("a", "b", "c"))
        assert (answer.status_code, answer.json()["code"]) == (413, "too_many_images")


@pytest.mark.parametrize("content_type", ["image/png", "application/json", "multipart/form-data; boundary=x"])
def test_slow_body_times_out(reader: HeldReader, content_type: str) -> None:
    async def never() -> AsyncIterator[bytes]:
        yield b"--x\r\n"
        await asyncio.Event().wait()

    async def scenario() -> None:
        async with serving(Settings(upload_timeout_s=0.05), reader) as (_, client):
            async with asyncio.timeout(10):
                answer = await client.post("/v1/recognize", content=never(), headers={"content-type": content_type})
            assert (answer.status_code, answer.json()["code"]) == (408, "upload_timeout")

    asyncio.run(scenario())


def test_full_queue_is_refused_and_recovers(reader: HeldReader) -> None:
    async def scenario() -> None:
        async with serving(Settings(max_pending=3, max_images=3), reader) as (_, client):
            reader.gate.clear()
            accepted = asyncio.create_task(client.post("/v1/recognize", files=parts("a", "b")))
            await entered(reader)
            refused = await client.post("/v1/recognize", files=parts("c", "d"))
            assert (refused.status_code, refused.json()["code"]) == (429, "overloaded")
            assert int(refused.headers["retry-after"]) >= 1
            reader.gate.set()
            assert (await accepted).status_code == 200
            assert (await client.post("/v1/recognize", files=parts("c", "d"))).status_code == 200

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/v1/recognize", "/v1/recognize"),
        ("/v1/regions", "/v1/regions"),
        ("/v2/models/fake/infer", "/v2/models/{name}/infer"),
        ("/v2/models/fake/versions/1/infer", "/v2/models/{name}/versions/{version}/infer"),
    ],
)
def test_a_full_queue_refuses_before_the_body_is_read(reader: HeldReader, path: str, route: str) -> None:
    async def never() -> AsyncIterator[bytes]:
        raise AssertionError("the body was asked for")
        yield b""

    async def scenario() -> None:
        async with serving(Settings(max_pending=1, max_images=1), reader) as (app, client):
            reader.gate.clear()
            accepted = asyncio.create_task(client.post("/v1/recognize", files=parts("a")))
            await entered(reader)
            refused = await client.post(path, content=never(), headers={"content-type": "image/png"})
            assert refused.status_code == 429
            assert refused.headers["retry-after"] == "1"
            assert f'route="{route}"' in app.state.service.metrics.text().decode()
            assert (await client.get("/v1/models")).status_code == 200
            reader.gate.set()
            assert (await accepted).status_code == 200

    asyncio.run(scenario())


def test_memory_of_all_bodies_together_is_bounded(reader: HeldReader) -> None:
    async def scenario() -> None:
        size = len(png("word"))
        settings = Settings(max_body_bytes=size, max_upload_bytes=2 * size - 1)
        async with serving(settings, reader) as (app, client):
            reader.gate.clear()
            headers = {"content-type": "image/png"}
            first = asyncio.create_task(client.post("/v1/recognize", content=png("word"), headers=headers))
            await entered(reader)
            refused = await client.post("/v1/recognize", content=png("word"), headers=headers)
            assert (refused.status_code, refused.json()["code"]) == (429, "overloaded")
            assert refused.headers["retry-after"] == "1"
            reader.gate.set()
            assert (await first).status_code == 200
            assert (await client.post("/v1/recognize", content=png("word"), headers=headers)).status_code == 200
            assert app.state.service.upload_memory.reserved == 0

    asyncio.run(scenario())


def test_failure_of_the_model_is_a_500_without_details(client: TestClient, reader: HeldReader) -> None:
    reader.poison = "boom"
    answer = client.post("/v1/recognize", files=parts("boom"))
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert answer.headers["content-type"] == "application/problem+json"
    assert "broke" not in answer.text
    assert client.post("/v1/recognize", files=parts("fine")).status_code == 200
