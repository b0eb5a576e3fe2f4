"""`str-app doctor`: what is installed, and an exit code that says whether it works."""

from __future__ import annotations

import hashlib
import importlib
import json
import re
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from str_app import installation
from str_app.cli import app
from str_app.cpu import usable_cores
from str_app.engines.onnx_engine import OnnxEngine
from str_app.errors import StrAppError
from str_app.installation import _cpu_name, provenance
from str_app.models import presets
from str_app.models.checkpoint import replace_info
from str_app.models.presets import weights_path


def doctor(*options: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["doctor", *options])
    assert result.exit_code == code, result.output
    return result.stdout


def test_a_working_installation() -> None:
    found = json.loads(doctor("--json"))
    assert found["problems"] == []
    assert found["versions"]["torch"].startswith("2.")
    assert {"torchvision", "numpy", "opencv-python-headless", "onnxruntime"} <= set(found["versions"])
    assert found["processor"]["usable cores"] >= 1
    assert found["kernels"]["path"].endswith(".so")
    small = found["weights"]["small"]
    assert small["sha256"] == hashlib.sha256(weights_path("small").read_bytes()).hexdigest()
    assert found["weights"]["base"] is None
    assert found["reads"] == {"model": "small", "engine": "onnx", "precision": "int8", "threads": usable_cores()}


def test_the_same_for_people() -> None:
    shown = doctor()
    assert "problems:\n  none\n" in shown
    assert "\n  torch " in shown


def test_a_package_that_cannot_be_imported_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> Any:
        if name == "cv2":
            raise ImportError("libGL.so.1: cannot open shared object file")
        return real(name)

    real = importlib.import_module
    monkeypatch.setattr(importlib, "import_module", broken)
    assert "opencv-python-headless cannot be imported: ImportError: libGL.so.1" in doctor(code=1)


@pytest.mark.parametrize("content", [None, b"not safetensors"])
def test_missing_or_damaged_weights_are_a_problem(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presets, "WEIGHTS", tmp_path)
    if content is not None:
        (tmp_path / "small.safetensors").write_bytes(content)
    (problem,) = json.loads(doctor("--json", code=1))["problems"]
    assert "small" in problem


def test_kernels_turned_off_are_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    from str_app.models.kernels import library

    monkeypatch.setenv("STR_APP_NATIVE", "0")
    library.find_library.cache_clear()
    try:
        assert json.loads(doctor("--json"))["kernels"]["state"] == "turned off by STR_APP_NATIVE=0"
    finally:
        library.find_library.cache_clear()


def test_extras_that_are_not_installed_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "wordfreq":
            raise metadata.PackageNotFoundError(name)
        return "1.0"

    requirements = ["torch>=2.11", 'wordfreq>=3.1; extra == "synth"', 'scipy>=1.13; extra == "convert"']
    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(metadata, "requires", lambda name: requirements)
    assert json.loads(doctor("--json"))["missing"] == {"synth": ["wordfreq"]}


def test_results_say_where_they_come_from(tmp_path: Path) -> None:
    told = provenance()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", told["date"] or "")
    assert told["onnxruntime"] == metadata.version("onnxruntime")
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: Intel(R) Xeon(R) Processor\nflags\t\t: fma avx2\n")
    assert _cpu_name(cpuinfo) == "Intel Xeon"
    assert _cpu_name(tmp_path / "none") is None


def test_graphs_are_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []

    class Counted(OnnxEngine):
        def __init__(self, folder: Path, threads: int | None = None) -> None:
            loaded.append(folder)
            super().__init__(folder, threads)

    monkeypatch.setattr("str_app.engines.onnx_engine.OnnxEngine", Counted)
    assert json.loads(doctor("--json"))["reads"]["engine"] == "onnx"
    assert len(loaded) == 1


def test_graphs_of_other_weights_are_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(presets.WEIGHTS / "small.safetensors", tmp_path)
    shutil.copytree(presets.WEIGHTS / "small.onnx", tmp_path / "small.onnx")
    replace_info(tmp_path / "small.safetensors", {"name": "small"})
    monkeypatch.setattr(presets, "WEIGHTS", tmp_path)
    (problem,) = json.loads(doctor("--json", code=1))["problems"]
    assert "was exported from other weights" in problem


def test_weights_that_only_torch_could_read_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    def reads(graphs: object) -> None:
        raise StrAppError("the engine torch needs torch")

    monkeypatch.setattr(installation, "_reads", reads)
    findings = installation.inspect_installation()
    assert findings["versions"]["numpy"]
    assert findings["problems"] == ["`small` cannot be loaded: the engine torch needs torch"]
