from __future__ import annotations

import re

import pytest
from fastapi.testclient import TestClient


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_page_needs_nothing_from_outside(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    resources = re.findall(r'(?:src|href)="([^"#]+)"', answer.text)
    assert resources
    for resource in resources:
        assert resource.startswith("/"), resource
        found = client.get(resource)
        assert found.status_code == 200
        assert not re.search(r"https?://(?!www\.w3\.org/)", found.text)
    assert "<style" not in answer.text  # the content security policy would ignore them
    assert not re.search(r"\son\w+=", answer.text)


def test_models(client: TestClient) -> None:
    (model,) = client.get("/v1/models").json()["models"]
    assert model["name"] == "fake"
    assert "é" not in model["charset"]
    assert len(model["charset"]) == 94


def test_openapi_describes_the_contract(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    own = {path for path in document["paths"] if not path.startswith("/v2")}
    assert own == {"/v1/recognize", "/v1/regions", "/v1/models", "/healthz", "/readyz", "/metrics"}
    recognize = document["paths"]["/v1/recognize"]["post"]
    assert set(recognize["requestBody"]["content"]) == {"multipart/form-data", "application/json", "image/*"}
    regions = document["paths"]["/v1/regions"]["post"]
    assert set(regions["requestBody"]["content"]) == {"multipart/form-data", "application/json"}
    for operation in (recognize, regions):
        assert {"200", "400", "401", "408", "413", "415", "422", "429", "504"} <= set(operation["responses"])
        assert list(operation["responses"]["429"]["content"]) == ["application/problem+json"]
