"""docs/how-to/extending.md, "Add an endpoint", followed word for word."""

from __future__ import annotations

import importlib.util
import re
import textwrap
from pathlib import Path

import pytest

from str_app.serve.http import app as application
from str_app.serve.settings import Settings
from tests.serve.conftest import HeldReader, parts, warm_client

SECTION = Path("docs/how-to/extending.md").read_text().split("## Add an endpoint")[1].split("\n## ")[0]


def test_a_custom_endpoint(tmp_path: Path, reader: HeldReader, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)
    file = tmp_path / "routes_text.py"
    file.write_text(textwrap.dedent(block))
    spec = importlib.util.spec_from_file_location("routes_text", file)
    assert spec
    assert spec.loader
    routes_text = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(routes_text)
    monkeypatch.setattr(application, "ROUTERS", [*application.ROUTERS, routes_text.routes])
    with warm_client(Settings(), reader) as client:
        files = [*parts("first"), ("images", ("bad", b"junk", "image/png")), *parts("second")]
        response = client.post("/v1/text", files=files)
        assert (response.status_code, response.text) == (200, "first\n\nsecond\n")
        assert client.post("/v1/text").json()["code"] == "unsupported_media_type"
        assert "/v1/text" in client.get("/openapi.json").json()["paths"]
        assert 'str_app_requests_total{code="200",method="POST",route="/v1/text"} 1.0' in client.get("/metrics").text
