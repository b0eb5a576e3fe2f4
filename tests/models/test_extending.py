"""docs/how-to/extending.md, followed: its backbone and its decoder train and read."""

import importlib.util
import re
import sys
import textwrap
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from str_app.errors import StrAppError
from str_app.models.backbones import BACKBONES
from str_app.models.checkpoint import read_header
from str_app.models.decoders import DECODERS
from str_app.models.gates.gate import RefinedGate
from str_app.models.gates.statistics import watch_gates
from str_app.reader import Reader
from str_app.training.loop import train
from str_app.training.settings import make_settings
from tests.str_app.painted_data import write_folder

PAGE = Path(__file__).resolve().parents[2] / "docs/how-to/extending.md"
RUN = ("steps=5", "batch_size=4", "group=1", "workers=0", "validate_every=5", "log_every=5", "device=cpu")
BACKBONE = ("backbone.stem=4,4", "backbone.stages=8,8,8", "backbone.blocks=1,1,1")
DECODER = ("decoder.hidden_size=16", "decoder.attention_size=8", "decoder.embedding_size=8")


def follow(heading, monkeypatch, tmp_path, registry):
    """Do what a recipe says: write its file, and register its class by its name."""
    section = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE.read_text(encoding="utf-8"), re.M | re.S)[1]
    folder, module_name = re.search(r"`models/(\w+)/(\w+)\.py`: a frozen dataclass", section).groups()
    code = re.search(r"```python\n(.*?)```", section, re.S)[1]
    path = tmp_path / f"{module_name}.py"
    path.write_text(textwrap.dedent(code), encoding="utf-8")
    full_name = f"str_app.models.{folder}.{module_name}"
    spec = importlib.util.spec_from_file_location(full_name, path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, full_name, module)
    spec.loader.exec_module(module)
    name, class_name = re.search(r'add `"(\w+)": (\w+)` to', section).groups()
    monkeypatch.setitem(registry, name, getattr(module, class_name))
    settings = re.findall(r"--set ([^\s`]+)", section)
    return name, settings


@pytest.mark.parametrize(
    ("heading", "section", "registry", "rest", "other"),
    [
        ("Add a backbone", "backbone", BACKBONES, DECODER, "backbone.channels=8,8"),
        ("Add a decoder", "decoder", DECODERS, BACKBONE, "decoder.hidden_size=9"),
    ],
)
def test_the_recipe_trains_and_reads(heading, section, registry, rest, other, monkeypatch, tmp_path):
    name, settings = follow(heading, monkeypatch, tmp_path, registry)
    assert settings[0] == f"architecture.{section}.name={name}"
    data = str(write_folder(tmp_path / "data"))
    overrides = [*settings, *(f"architecture.{key}" for key in rest), *RUN]
    train(make_settings(overrides, train=(data,), validation=(data,)), tmp_path / "run")

    weights = tmp_path / "run/best.safetensors"
    assert read_header(weights)["architecture"][section]["name"] == name
    crop = np.full((32, 90, 3), 200, dtype=np.uint8)
    cv2.putText(crop, "ab", (5, 25), cv2.FONT_HERSHEY_SIMPLEX, 0.9, (0, 0, 0), 2)
    reading = Reader.load(weights, precision="fp32").recognize([crop])[0]
    assert 0 <= reading.confidence <= 1
    assert len(reading.characters) == len(reading.text)
    fine = make_settings(["steps=1", *RUN[1:]], train=(data,), start_from=str(weights))
    assert getattr(fine.architecture, section).name == name
    with pytest.raises(StrAppError, match="brings its own architecture"):
        make_settings([f"architecture.{other}"], train=(data,), start_from=str(weights))


@pytest.mark.parametrize("rows", [3, 64])  # kernels take 16 rows and more
def test_a_gate_of_ones_own_is_used_and_watched(rows):
    section = PAGE.read_text(encoding="utf-8").split("## Add a kind of gate")[1].split("\n## ")[0]
    names = {"__name__": "recipe"}
    exec(compile(re.search(r"```python\n(.*?)```", section, re.S)[1], "recipe", "exec", dont_inherit=True), names)
    layer, x = names["layer"], torch.rand(5, rows, 8)
    largest = layer(x)[0]
    with watch_gates(layer) as records:
        torch.testing.assert_close(layer(x)[0], largest)
    output = records["l0"].gates["output"]
    assert output.effective.counts.sum() > 0
    assert output.effective.share(-2, 0) == 0
    assert output.effective.share(0, 1) > 0.99, "the larger of two numbers below 1, and never their sum"
    layer.gate = RefinedGate("add", layer.gate.gates)
    assert not torch.allclose(layer(x)[0], largest)
