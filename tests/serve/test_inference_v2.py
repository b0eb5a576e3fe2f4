"""The Open Inference Protocol, by what its specification says and by what a client of it sends."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import struct
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from str_app.reader import Reader
from str_app.serve.http.tensors import binary_bytes, split_bytes
from str_app.serve.settings import Settings
from tests.serve.conftest import HeldReader, entered, png, serving
from tests.serve.server_process import ServerProcess
from tests.str_app.fake_engine import AS_PAINTED, FakeEngine

INFER = "/v2/models/fake/infer"


def document(*images: bytes, **more: Any) -> dict[str, Any]:
    data = [base64.b64encode(image).decode() for image in images]
    return {"inputs": [{"name": "image", "shape": [len(data)], "datatype": "BYTES", "data": data}], **more}


def columns(answer: dict[str, Any]) -> dict[str, list]:
    return {output["name"]: output["data"] for output in answer["outputs"]}


def test_health_and_metadata(client: TestClient) -> None:
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    server = client.get("/v2").json()
    assert (server["name"], server["extensions"]) == ("str-app", ["binary_tensor_data"])
    model = client.get("/v2/models/fake").json()
    assert model == client.get("/v2/models/fake/versions/1").json()
    assert model["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [-1]}]
    assert [output["name"] for output in model["outputs"]] == ["text", "confidence", "error", "reading"]
    assert client.get("/v2/models/fake/ready").json() == {"name": "fake", "ready": True}


def test_a_compressed_body_is_refused(client: TestClient) -> None:
    answer = client.post(INFER, content=gzip.compress(b"{}"), headers={"Content-Encoding": "gzip"})
    assert (answer.status_code, answer.json()) == (
        415,
        {"error": "Send the body uncompressed; its encoding is 'gzip'."},
    )


def test_openapi_describes_what_is_taken_and_sent(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    operations = {
        path: operation
        for path, methods in document["paths"].items()
        if path.startswith("/v2/models/")
        for operation in methods.values()
    }
    assert set(operations) == {"/v2/models/{name}", "/v2/models/{name}/ready", INFER.replace("fake", "{name}")}
    for operation in operations.values():
        assert "422" not in operation["responses"]  # what cannot be parsed is 400
        assert operation["parameters"][0]["name"] == "name"
    assert "HTTPValidationError" not in document["components"]["schemas"]
    infer = operations[INFER.replace("fake", "{name}")]
    for content in (infer["requestBody"]["content"], infer["responses"]["200"]["content"]):
        assert set(content) == {"application/json", "application/octet-stream"}
    assert infer["parameters"][1]["name"] == "Inference-Header-Content-Length"
    assert set(infer["responses"]["200"]["headers"]) == {"Inference-Header-Content-Length"}


def test_readiness_follows_the_server(client: TestClient) -> None:
    client.app.state.service.lifecycle.draining = True  # type: ignore[attr-defined]
    assert client.get("/v2/health/ready").status_code == 503
    assert client.get("/v2/models/fake/ready").status_code == 503
    assert client.get("/v2/health/live").status_code == 200


def test_readings_equal_the_offline_reader(client: TestClient) -> None:
    asked = [{"name": "text"}, {"name": "confidence"}, {"name": "reading"}]
    answer = client.post(INFER, json=document(png("one"), png("two"), id="r7", outputs=asked)).json()
    offline = Reader(FakeEngine(), policy=AS_PAINTED).recognize([png("one"), png("two")])
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("r7", "fake", "1")
    assert columns(answer)["text"] == ["one", "two"]
    assert columns(answer)["confidence"] == [round(reading.confidence, 4) for reading in offline]
    assert [json.loads(reading) for reading in columns(answer)["reading"]] == [r.as_dict() for r in offline]
    assert [output["shape"] for output in answer["outputs"]] == [[2]] * 3


def test_a_bad_image_spoils_no_other_and_shapes_are_kept(client: TestClient) -> None:
    request = document(png("one"), b"junk")
    request["inputs"][0]["shape"] = [2, 1]
    request["inputs"][0]["data"] = [[text] for text in request["inputs"][0]["data"]]
    answer = client.post(INFER, json=request).json()
    assert "id" not in answer
    assert columns(answer)["text"] == ["one", ""]
    assert columns(answer)["confidence"][1] == 0.0
    assert columns(answer)["error"][0] == ""
    assert columns(answer)["error"][1].startswith("not_an_image: ")
    assert answer["outputs"][0]["shape"] == [2, 1]


def test_binary_tensors_both_ways(client: TestClient) -> None:
    tail = b"".join(struct.pack("<I", len(image)) + image for image in (png("raw"), png("bytes")))
    parameters = {"binary_data_size": len(tail)}
    head = json.dumps(
        {
            "inputs": [{"name": "image", "shape": [2], "datatype": "BYTES", "parameters": parameters}],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
    answer = client.post(INFER, content=head + tail, headers=headers)
    assert answer.status_code == 200
    length = int(answer.headers["Inference-Header-Content-Length"])
    text, confidence, _ = json.loads(answer.content[:length])["outputs"]
    data = answer.content[length:]
    size = text["parameters"]["binary_data_size"]
    assert list(split_bytes(data[:size])) == [b"raw", b"bytes"]
    offline = Reader(FakeEngine(), policy=AS_PAINTED).recognize([png("raw"), png("bytes")])
    numbers = struct.unpack("<2f", data[size : size + confidence["parameters"]["binary_data_size"]])
    assert numbers == pytest.approx([round(reading.confidence, 4) for reading in offline])


def test_optional_members_may_be_null(client: TestClient) -> None:
    request = document(png("one"), id=None, parameters=None, outputs=[{"name": "text", "parameters": None}])
    request["inputs"][0]["parameters"] = None
    assert columns(client.post(INFER, json=request).json())["text"] == ["one"]


def wrong(**changes: Any) -> dict[str, Any]:
    request = document(png("a"))
    request["inputs"][0] |= changes
    return request


REFUSED = {
    "no JSON": (b"{", 400),
    "nothing in it": ({}, 400),
    "two inputs": ({"inputs": document(b"a")["inputs"] * 2}, 400),
    "another input": (wrong(name="picture"), 400),
    "an id that UTF-8 cannot encode": (b'{"id": "\\ud800", ' + json.dumps(document(png("a"))).encode()[1:], 400),
    "outputs without names": (document(png("a"), outputs=["text"]), 400),
    "very many sides": (wrong(shape=[65536] * 100_000), 413),
    "another datatype": (wrong(datatype="UINT8"), 400),
    "another shape": (wrong(shape=[2]), 400),
    "no shape": (wrong(shape=[]) | {"inputs": [{"name": "image", "datatype": "BYTES"}]}, 400),
    "negative shape": (wrong(shape=[-1]), 400),
    "a shape of truth": (wrong(shape=[True]), 400),
    "numbers": (wrong(data=[1]), 400),
    "too many": (wrong(shape=[2**16, 2**16]), 413),
    "many elements": (wrong(data=["a"] * 100_000), 400),
    "an unknown output": (document(b"a", outputs=[{"name": "logits"}]), 400),
    "an id that is none": (document(b"a", id=5), 400),
    "binary without any": (wrong(parameters={"binary_data_size": 4}), 400),
    "parameters that are none": (wrong(parameters=[1]), 400),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refusals_have_the_error_format_of_the_protocol(client: TestClient, kind: str) -> None:
    body, status = REFUSED[kind]
    answer = client.post(INFER, content=body if isinstance(body, bytes) else json.dumps(body))
    assert answer.status_code == status
    assert set(answer.json()) == {"error"}
    assert answer.json()["error"]


def test_very_many_values_are_refused(client: TestClient) -> None:
    answer = client.post(INFER, content=b'{"inputs": [' + b"[]," * 200_000 + b"[]]}")
    assert (answer.status_code, list(answer.json())) == (413, ["error"])


def test_its_root_has_errors_of_the_protocol_too(client: TestClient) -> None:
    assert list(client.post("/v2").json()) == ["error"]


def test_unknown_paths_are_errors_of_the_protocol(client: TestClient) -> None:
    for path in ("/v2/models/other", "/v2/models/fake/versions/2", "/v2/nowhere"):
        answer = client.get(path)
        assert answer.status_code == 404
        assert set(answer.json()) == {"error"}
    assert client.post("/v2/models/other/infer", json=document(png("a"))).status_code == 404
    for length in ("5", "9" * 5000):  # of the latter Python makes no number
        answer = client.post(INFER, content=b"{}", headers={"Inference-Header-Content-Length": length})
        assert answer.status_code == 400


def test_a_full_queue_refuses_here_too(reader: HeldReader) -> None:
    async def scenario() -> None:
        async with serving(Settings(max_pending=1, max_images=1), reader) as (_, client):
            reader.gate.clear()
            accepted = asyncio.create_task(client.post(INFER, json=document(png("a"))))
            await entered(reader)
            refused = await client.post(INFER, json=document(png("b")))
            assert refused.status_code == 429
            assert int(refused.headers["retry-after"]) >= 1
            assert set(refused.json()) == {"error"}
            reader.gate.set()
            assert (await accepted).status_code == 200

    asyncio.run(scenario())


@given(st.lists(st.binary(max_size=20), max_size=5))
def test_bytes_tensors_round_trip(elements: list[bytes]) -> None:
    texts = [element.hex() for element in elements]
    assert list(split_bytes(binary_bytes(texts))) == [text.encode() for text in texts]


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(["name", "shape", "datatype", "data", "parameters"])


@given(JSON_VALUES, st.dictionaries(FIELDS, JSON_VALUES, max_size=2), st.binary(max_size=30), st.integers(-5, 300))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_request_breaks_the_server(client: TestClient, value: Any, changes: dict, tail: bytes, length: int) -> None:
    for body in (value, wrong(**changes), document(b"a", outputs=value), document(b"a", parameters=value)):
        assert client.post(INFER, content=json.dumps(body)).status_code in (200, 400, 413)
        headers = {"Inference-Header-Content-Length": str(length)}
        assert client.post(INFER, content=json.dumps(body).encode() + tail, headers=headers).status_code in (
            200,
            400,
            413,
        )


@pytest.mark.slow
@pytest.mark.parametrize("binary", [True, False])
def test_triton_s_own_client(binary: bool) -> None:
    import numpy as np

    triton = pytest.importorskip("tritonclient.http")
    utilities = pytest.importorskip("tritonclient.utils")
    with ServerProcess() as server:
        client = triton.InferenceServerClient(server.url.removeprefix("http://"))
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("fake")
        assert client.get_server_metadata()["name"] == "str-app"
        assert client.get_model_metadata("fake")["inputs"][0]["datatype"] == "BYTES"
        server.let_through(2)
        images = [png("EXIT"), b"junk", png("Shop")]
        if not binary:
            images = [base64.b64encode(image) for image in images]
        tensor = triton.InferInput("image", [3], "BYTES")
        tensor.set_data_from_numpy(np.array(images, dtype=np.object_), binary_data=binary)
        asked = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("text", "confidence", "error")]
        for outputs in (None, asked):
            result = client.infer("fake", [tensor], outputs=outputs, request_id="7")
            texts = [text if isinstance(text, str) else text.decode() for text in result.as_numpy("text")]
            assert texts == ["EXIT", "", "Shop"]
            assert result.as_numpy("confidence").dtype == np.float32
            assert result.get_response()["id"] == "7"
            server.let_through(2)
        with pytest.raises(utilities.InferenceServerException, match="This server has the model 'fake'"):
            client.infer("other", [tensor])
