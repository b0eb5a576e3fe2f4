"""The commands of the how-to pages on photographs, bulk, rendering and exports run as they are printed, but small."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.datasets.renderer_fonts import write_font

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "samples/images"
PAGES = ("photographs", "bulk", "rendering", "export")  # evaluating: test_followed.py; serving: tests/serve/slow
NOT_RUN = {
    "pip install": "what runs the test is installed",
    "bash scripts/install_fonts.sh": "installs packages, as root",
    "apt-get install": "the same",
    "ray ": "make bulk-test starts Ray",
    "str-app bulk /shared/crops --out /shared/readings --ray": "make bulk-test",
    "str-app synth --out data/synth --count 100000000 --ray": "make bulk-test",
    "docker build": "needs a Docker engine",
    "kubectl": "needs a cluster; tests/deploy/test_bulk.py checks the file",
    "str-app synth --out data/synth --count 100000000 --shard-size": "the same as data/many of the page on rendering",
    "torchrun": "tests/str_app/training/test_elastic.py",
}
# What makes a command small: (what a page says, what is run).
SMALLER = (
    ("str-app synth", "str-app synth --fonts fonts"),
    ("--count 100000000 --shard-size 200000", "--count 30 --shard-size 20"),
    ("--count 100000", "--count 24"),
    ("data/b.lmdb", "data/b.lmdb --count 24"),
    ("data/c.lmdb", "data/c.lmdb --count 24"),
    ("--scenes --preview", "--scenes --count 2 --preview"),
    ("--count 300", "--count 2"),
    ("--preview sheet.png", "--preview sheet.png --count 8"),
    ("--calibration data/val.lmdb", "--calibration data/val.lmdb --calibration-crops 10"),
)


def commands(page: str) -> list[str]:
    text = (ROOT / f"docs/how-to/{page}.md").read_text(encoding="utf-8")
    lines = "".join(re.findall(r"^ *```sh\n(.*?)```", text, re.DOTALL | re.MULTILINE)).replace("\\\n", "").splitlines()
    return [line.split("  #")[0].strip() for line in lines]


def is_run(command: str) -> bool:
    return not any(command.startswith(beginning) for beginning in NOT_RUN)


def test_reasons_and_replacements_are_of_the_pages() -> None:
    lines = [line for page in PAGES for line in commands(page)]
    assert all(any(line.startswith(beginning) for line in lines) for beginning in NOT_RUN)
    assert all(any(said in line for line in lines if is_run(line)) for said, _ in SMALLER)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Small data under the names that the pages use."""
    for name in ("word.jpg", "crops/a/1.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(SAMPLES / "01.jpg", tmp_path / name)
    (tmp_path / "my_photos").mkdir()
    shutil.copy(ROOT / "docs/pictures/poster.jpg", tmp_path / "my_photos")
    for name in ("street.jpg", "photos/1.jpg", "photos/2.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / "tests/end_to_end/golden/photo.jpg", tmp_path / name)
    for name in ("data", "shards", "runs/mine", "fonts"):
        (tmp_path / name).mkdir(parents=True)
    shutil.copytree(ROOT / "samples", tmp_path / "data/val.lmdb")  # a folder of images goes wherever an LMDB goes
    with tarfile.open(tmp_path / "shards/1.tar", "w") as shard:
        shard.add(SAMPLES / "02.jpg", "2.jpg")
    (tmp_path / "list.csv").write_text("image\nword.jpg\n")
    pictures = [(SAMPLES / "03.jpg").read_bytes()]
    pq.write_table(pa.table({"key": ["third"], "photo": pictures}), tmp_path / "s.parquet")
    shutil.copy(ROOT / "models/weights/small.safetensors", tmp_path / "runs/mine/best.safetensors")
    (tmp_path / "streets.txt").write_text("Hauptstrasse\nLindenweg\n")
    write_font(tmp_path / "fonts/font.ttf")
    return tmp_path


@pytest.mark.parametrize("page", PAGES)
def test_commands_run_in_their_order(page: str, folder: Path) -> None:
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    for command in filter(is_run, commands(page)):
        small = command
        for said, run in SMALLER:
            small = small.replace(said, run, 1)
        if " bulk " in small:
            shutil.rmtree(folder / "readings", ignore_errors=True)  # each example has its own inputs
        shown = subprocess.run(
            ["bash", "-c", small], cwd=folder, env=environment, capture_output=True, text=True, timeout=170, check=False
        )
        assert shown.returncode == 0, f"{small}\n{shown.stdout}\n{shown.stderr}"
    made = {
        "photographs": ("street.html", "found.png", "marked/1.png"),
        "bulk": ("readings/_manifest.json", "readings/part-000000.parquet"),
        "rendering": ("sheet.png", "data/many", "data/b.lmdb", "data/scenes/labels.jsonl"),
        "export": ("runs/mine/best.onnx/encoder.onnx",),
    }
    assert [name for name in made[page] if not (folder / name).exists()] == []
