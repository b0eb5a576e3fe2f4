"""examples/: hosts that read with an exported graph and nothing of this package."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from str_app.datasets.opening import open_source
from str_app.export import export_model
from str_app.models.presets import weights_path
from str_app.reader import Reader

ROOT = Path(__file__).parents[2]
CROPS = sorted((ROOT / "samples/images").glob("*.jpg"))


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples") / "small.onnx"
    samples = open_source(ROOT / "samples")
    crops = [samples[index].image for index in range(len(samples))]
    export_model(weights_path("small"), folder, precision="int8", calibration=crops, single_file=True)
    return folder / "greedy.onnx"


def texts(*command: object) -> list[str]:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    return [line.split(" ")[1] for line in done.stdout.splitlines()]


def test_python_host_reads_as_the_reader(graph: Path) -> None:
    reader = Reader.load(graph.parent, prior=False)
    expected = [reading.text for reading in reader.recognize(CROPS, beam=1)]
    assert texts(sys.executable, ROOT / "examples/host.py", graph, *CROPS) == expected


@pytest.mark.slow
def test_node_host_reads(graph: Path, tmp_path: Path) -> None:
    """sharp resizes a little differently from OpenCV, so that doubtful crops may differ."""
    if not shutil.which("npm"):
        pytest.skip("npm is not installed")
    shutil.copy(ROOT / "examples/host.mjs", tmp_path)
    install = ["npm", "install", "--silent", "--ignore-scripts", "onnxruntime-node", "sharp"]
    subprocess.run(install, cwd=tmp_path, check=True, capture_output=True)
    found = texts("node", tmp_path / "host.mjs", graph, *CROPS)
    reader = Reader.load(graph.parent, prior=False)
    expected = [reading.text for reading in reader.recognize(CROPS, beam=1)]
    assert sum(text == other for text, other in zip(found, expected, strict=True)) >= 7
