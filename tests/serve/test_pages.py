from __future__ import annotations

import re

import pytest
from fastapi.testclient import TestClient


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_load_nothing_from_other_sites(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    resources = re.findall(r'(?:src|href)="([^"#]+)"', answer.text)
    assert resources
    for resource in resources:  # grows by what modules import
        assert resource.startswith("/"), resource
        found = client.get(resource)
        assert found.status_code == 200
        assert not re.search(r"https?://(?!www\.w3\.org/)", found.text)
        imported = re.findall(r'^import .* from "\.(/[a-z]+\.js)";$', found.text, flags=re.MULTILINE)
        assert len(imported) == found.text.count("import ")
        resources += [f"/static{path}" for path in imported if f"/static{path}" not in resources]
    assert "<style" not in answer.text  # the content security policy would ignore them
    assert not re.search(r"\son\w+=", answer.text)


def test_a_new_servers_page_never_runs_an_old_ones_scripts(client: TestClient) -> None:
    for path in ("/", "/docs", "/static/page.js"):
        answer = client.get(path)
        assert answer.headers["cache-control"] == "no-cache"
    again = client.get("/static/page.js", headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304
    assert not again.content


GET = ["/", "/docs", "/openapi.json", "/static/page.js", "/healthz", "/readyz", "/metrics", "/v1/models"]
GET_V2 = ["", "/health/live", "/health/ready", "/models/fake", "/models/fake/ready", "/models/fake/versions/1"]


@pytest.mark.parametrize("path", [*GET, *("/v2" + path for path in GET_V2)])
def test_head_is_answered_like_get(client: TestClient, path: str) -> None:
    answer, response = client.get(path), client.head(path)
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["content-type"] == answer.headers["content-type"]
    if path != "/metrics":
        assert response.headers["content-length"] == answer.headers["content-length"]


def test_head_is_logged_and_counted_as_such(client: TestClient) -> None:
    client.head("/v1/models")
    client.head("/nowhere")
    metrics = client.get("/metrics").text
    assert 'str_app_requests_total{code="200",method="HEAD",route="/v1/models"} 1.0' in metrics
    assert 'str_app_rejections_total{reason="not_found"} 1.0' in metrics


def test_head_of_what_has_no_get(client: TestClient) -> None:
    response = client.head("/v1/recognize")
    assert (response.status_code, response.headers["allow"], response.content) == (405, "POST", b"")


def test_models(client: TestClient) -> None:
    (model,) = client.get("/v1/models").json()["models"]
    assert model["name"] == "fake"
    assert "é" not in model["charset"]
    assert len(model["charset"]) == 94


def test_openapi_describes_the_contract(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    own = {path for path in document["paths"] if not path.startswith("/v2")}
    assert own == {"/v1/recognize", "/v1/regions", "/v1/photos", "/v1/models", "/healthz", "/readyz", "/metrics"}
    recognize = document["paths"]["/v1/recognize"]["post"]
    assert set(recognize["requestBody"]["content"]) == {"multipart/form-data", "application/json", "image/*"}
    regions = document["paths"]["/v1/regions"]["post"]
    assert set(regions["requestBody"]["content"]) == {"multipart/form-data", "application/json"}
    photos = document["paths"]["/v1/photos"]["post"]
    assert set(photos["requestBody"]["content"]) == {"multipart/form-data", "application/json", "image/*"}
    for operation in (recognize, regions, photos):
        assert {"200", "400", "408", "413", "415", "422", "429", "504"} <= set(operation["responses"])
        assert list(operation["responses"]["429"]["content"]) == ["application/problem+json"]
