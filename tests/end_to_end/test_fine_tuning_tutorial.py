"""The commands of docs/tutorial/fine-tuning.md run one after the other, at a size of a minute."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fontTools.ttLib import TTFont

from tests.datasets.renderer_fonts import pillow_font

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/tutorial/fine-tuning.md").read_text(encoding="utf-8")
# What makes a command small: (what the page says, what is run).
SMALLER = (
    ("pip install ", ": pip install "),  # what runs the test is installed, and compiled if it can be
    ("python -m str_app.models.kernels", ": str_app.models.kernels"),
    ("bash scripts/install_fonts.sh", ": scripts/install_fonts.sh"),  # installs packages, as root
    ("data/german  ", "data/german fonts  "),
    ("--count 60000", "--count 24 --fonts fonts"),
    (
        "--set steps=400",
        "--set steps=3 --set batch_size=8 --set group=1 --set workers=0 --set threads=1 --set validation_limit=20",
    ),
    ("python ", f"{sys.executable} "),
    ("str-app ", f"{sys.executable} -m str_app "),
    ("examples/", f"{ROOT}/examples/"),
)


def write_german_font(path: Path) -> None:
    """Pillow's font, with the letter below for each letter that it lacks."""
    font = TTFont(io.BytesIO(pillow_font()))
    for table in font["cmap"].tables:
        if table.isUnicode():
            table.cmap |= {ord(new): table.cmap[ord(old)] for new, old in zip("äöüÄÖÜß€", "aouAOUBE", strict=True)}
    path.parent.mkdir(exist_ok=True)
    font.save(path)


def test_the_example(tmp_path: Path) -> None:
    for name in ("train.ttf", "val.ttf"):  # the two halves share no font
        write_german_font(tmp_path / "fonts" / name)
    (script,) = (block for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) if "german_words.py" in block)
    for said, run in SMALLER:
        assert said in script, said
        script = script.replace(said, run)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    outcome = subprocess.run(
        ["bash", "-euc", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert outcome.returncode == 0, f"{outcome.stdout}\n{outcome.stderr}"
    assert outcome.stdout.count("| val ") >= 2  # before and after
    labels = (tmp_path / "data/german/train/labels.tsv").read_text(encoding="utf-8").splitlines()
    assert len(labels) == 500
    assert (tmp_path / "runs/german/best.safetensors").is_file()
