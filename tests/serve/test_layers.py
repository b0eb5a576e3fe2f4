"""Imports inside `serve` point one way: http → inference → operations → settings, errors."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

LAYERS = ["operations", "inference", "http"]  # each may import those before it


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_point_one_way(layer: str) -> None:
    above = LAYERS[LAYERS.index(layer) + 1 :]
    for path in Path("serve", layer).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                assert not node.module.startswith(tuple(f"str_app.serve.{name}" for name in above)), path
