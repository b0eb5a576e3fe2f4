"""Imports inside `serve` point one way: http → inference → operations → settings, errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.test_arrows import imports

LAYERS = ["operations", "inference", "http"]  # each may import those before it


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_point_one_way(layer: str) -> None:
    above = LAYERS[LAYERS.index(layer) + 1 :]
    for path in Path("serve", layer).rglob("*.py"):
        for name in imports(path):
            assert not name.startswith(tuple(f"str_app.serve.{other}" for other in above)), path
