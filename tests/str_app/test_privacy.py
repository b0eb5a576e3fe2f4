"""Nothing is reported to anyone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(home: Path, *arguments: str, **variables: str) -> str:
    # ONNX Runtime reports nothing where CI is set.
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "ORT_DISABLE_TELEMETRY")}
    environment |= {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "PYTHONPATH": str(ROOT), **variables}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout


def test_onnx_runtime_keeps_nothing_to_report(tmp_path: Path) -> None:
    assert run(tmp_path, "-m", "str_app", "recognize", "samples/images/01.jpg")
    assert list(tmp_path.rglob("*")) == []  # the database of its reports would be here


def test_who_sets_the_variable_decides(tmp_path: Path) -> None:
    shown = "import os, str_app; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    assert run(tmp_path, "-c", shown).strip() == "1"
    assert run(tmp_path, "-c", shown, ORT_DISABLE_TELEMETRY="0").strip() == "0"
