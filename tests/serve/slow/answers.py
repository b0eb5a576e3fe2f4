"""What a server answers to others than the page."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import httpx


def whole(url: str, *paths: Path, query: str = "", **options: Any) -> list[dict[str, Any]]:
    files = [("images", (path.name, path.read_bytes())) for path in paths]
    return httpx.post(f"{url}/v1/recognize{query}", files=files, timeout=30, **options).json()["results"]


def marked(url: str, path: Path, regions: list[Any], query: str = "") -> list[dict[str, Any]]:
    form = {"files": {"image": path.read_bytes()}, "data": {"regions": json.dumps(regions)}}
    return httpx.post(f"{url}/v1/regions{query}", timeout=30, **form).json()["results"]


def shell(command: str, folder: Path, **environment: str) -> dict[str, Any]:
    """The answer to a copied command, pasted into a shell."""
    run = subprocess.run(
        ["sh", "-c", command], cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    return json.loads(run.stdout)
