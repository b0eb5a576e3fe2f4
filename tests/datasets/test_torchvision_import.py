"""torchvision's pure-Python parts can be imported, whatever build of it is installed next to torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from str_app.datasets.torchvision_import import import_torchvision


def test_transforms_work() -> None:
    image = torch.zeros(3, 4, 6, dtype=torch.uint8)
    assert import_torchvision("transforms.v2").functional.invert(image).min() == 255
    assert "BoundingBoxes" in vars(import_torchvision("tv_tensors"))


def run(tmp_path: Path, torchvision: str, program: str) -> subprocess.CompletedProcess[str]:
    """`program` in a fresh process where `torchvision` is this text."""
    (tmp_path / "torchvision.py").write_text(torchvision)
    start = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(Path.cwd())!r}]\n"
    return subprocess.run([sys.executable, "-c", start + program], capture_output=True, text=True, cwd=tmp_path)


def test_a_matched_pair_is_left_alone(tmp_path: Path) -> None:
    program = """
from str_app.datasets.torchvision_import import import_torchvision
print(import_torchvision().__version__, "torch" in sys.modules)
"""
    assert run(tmp_path, "__version__ = 'matched'", program).stdout == "matched False\n"


@pytest.mark.parametrize(
    ("torchvision", "error"),
    [
        ("raise RuntimeError('CUDA is gone')", "CUDA is gone"),
        ("raise ImportError('no such library')", "no such library"),
    ],
)
def test_other_failures_are_not_hidden(tmp_path: Path, torchvision: str, error: str) -> None:
    ended = run(
        tmp_path,
        torchvision,
        "from str_app.datasets.torchvision_import import import_torchvision\nimport_torchvision()",
    )
    assert ended.returncode == 1
    assert error in ended.stderr
