"""The arrows of the house: serve → str_app → {models, datasets}, and nothing back."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("models", "datasets", "serve")
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
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(module):
    """The room that a dotted name lies in: `models`, `datasets`, `serve` or `str_app`; None for other people's."""
    first, _, rest = module.partition(".")
    if first != "str_app":
        return None
    inner = rest.split(".")[0]
    return inner if inner in ROOMS else "str_app"


def files(room):
    return sorted((ROOT / room).rglob("*.py"))


@pytest.mark.parametrize("room", sorted(MAY_IMPORT))
def test_arrows_point_one_way(room):
    for path in files(room):
        if str(path.relative_to(ROOT)) in LOOKS_UP:
            continue
        used = {room_of(name) for name in imports(path)} - {None}
        assert used <= MAY_IMPORT[room], path


def test_each_thing_has_one_import_path():
    """The folders at the top are linked into `str_app`; by their own names they would be loaded a second time."""
    for folder in (*ROOMS, "str_app", "tests", "scripts", "research"):
        for path in files(folder):
            assert not {name.split(".")[0] for name in imports(path)} & set(ROOMS), path


def test_backbones_know_nothing_of_decoders_and_gates():
    for path in files("models/backbones"):
        assert not any(
            name.startswith(("str_app.models.decoders", "str_app.models.gates")) for name in imports(path)
        ), path


def test_serving_never_imports_training():
    for path in files("serve"):
        assert not any(name.startswith("str_app.training") for name in imports(path)), path


@pytest.mark.parametrize("room", ["models", "datasets", "str_app"])
def test_training_and_inference_need_no_http(room):
    for path in files(room):
        if str(path.relative_to(ROOT)) not in LOOKS_UP:
            assert not {name.split(".")[0] for name in imports(path)} & HTTP, path


def test_torch_stays_below_the_engine_boundary():
    """Reader, decoding and the server know NumPy arrays only."""
    above = [ROOT / "str_app" / name for name in ("reader.py", "pipeline.py", "reading.py", "engines/base.py")]
    folders = [path for folder in ("decoding", "views", "inputs") for path in files(f"str_app/{folder}")]
    for path in [*files("serve"), *above, *folders]:
        assert not any(name.split(".")[0] == "torch" for name in imports(path)), path


def test_torchvision_comes_through_one_door():
    for room in MAY_IMPORT:
        for path in files(room):
            if path.name != "torchvision_import.py":
                assert not any(name.split(".")[0] == "torchvision" for name in imports(path)), path


def test_kernels_import_no_layers():
    """Kernels take tensors and integer codes, and backbones need no recurrent code."""
    for path in sorted((ROOT / "models/kernels").rglob("*.py")):
        used = [name for name in imports(path) if name.startswith("str_app.")]
        assert all(name.startswith("str_app.models.kernels") for name in used), path
    recurrent = ("str_app.models.gates", "str_app.models.kernels.recurrence", "str_app.models.kernels.triton_steps")
    for path in sorted((ROOT / "models/backbones").rglob("*.py")):
        assert not [name for name in imports(path) if name.startswith(recurrent)], path
