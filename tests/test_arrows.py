"""The arrows of the house: serve → str_app → {models, datasets}, and nothing back."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OURS = {"serve", "str_app", "models", "datasets"}
MAY_IMPORT = {
    "models": {"models"},
    "datasets": {"datasets"},
    "str_app": {"str_app", "models", "datasets"},
    "serve": {"serve", "str_app"},
}
# The command line starts the server, and is the one place that looks up.
LOOKS_UP = {"str_app/cli/serve.py"}
HTTP = {"fastapi", "starlette", "uvicorn", "pydantic", "pydantic_settings", "prometheus_client"}


def imports(path):
    """Dotted names that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def files(package):
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_arrows_point_one_way(package):
    for path in files(package):
        if str(path.relative_to(ROOT)) in LOOKS_UP:
            continue
        used = {name.split(".")[0] for name in imports(path)} & OURS
        assert used <= MAY_IMPORT[package], path


def test_serving_never_imports_training():
    for path in files("serve"):
        assert not any(name.startswith("str_app.training") for name in imports(path)), path


@pytest.mark.parametrize("package", ["models", "datasets", "str_app"])
def test_training_and_inference_need_no_http(package):
    for path in files(package):
        if str(path.relative_to(ROOT)) not in LOOKS_UP:
            assert not {name.split(".")[0] for name in imports(path)} & HTTP, path


def test_torch_stays_below_the_engine_boundary():
    """Reader, decoding and the server know NumPy arrays only."""
    for path in [*files("serve"), ROOT / "str_app/reader.py", ROOT / "str_app/decoding.py", ROOT / "str_app/engine.py"]:
        assert not any(name.split(".")[0] == "torch" for name in imports(path)), path


def test_torchvision_comes_through_one_door():
    for package in OURS:
        for path in files(package):
            if path.name != "torchvision_import.py":
                assert not any(name.split(".")[0] == "torchvision" for name in imports(path)), path
