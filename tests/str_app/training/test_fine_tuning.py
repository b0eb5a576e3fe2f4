"""Runs that start from weights: their defaults, where the weights come from, and the documented example's images."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

from str_app.engines import load
from str_app.engines.load import checkpoint_file
from str_app.engines.torch_engine import TorchEngine
from str_app.errors import StrAppError
from str_app.models.charset import PRINTABLE_94, Charset
from str_app.models.checkpoint import load_checkpoint
from str_app.models.presets import get_preset
from str_app.reader import Reader
from str_app.training.loop import _initial_model, train
from str_app.training.settings import FINE_TUNING, TrainSettings, make_settings
from tests.datasets.renderer_fonts import write_font
from tests.str_app.painted_data import write_folder

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = ROOT / "examples"


def test_starting_from_weights_has_defaults_of_its_own() -> None:
    scratch = make_settings([], train=("a",))
    fine = make_settings(["steps=7"], train=("a",), start_from="small", learning_rate=1e-5)
    assert (scratch.learning_rate, scratch.ctc_weight) == (TrainSettings.learning_rate, TrainSettings.ctc_weight)
    assert (fine.warmup_steps, fine.ctc_weight, fine.attention_weight) == (FINE_TUNING["warmup_steps"], 0.0, 0.0)
    assert (fine.steps, fine.learning_rate) == (7, 1e-5)  # what is given counts more


def test_a_resumed_run_keeps_its_settings() -> None:
    base = make_settings(["learning_rate=0.5"], train=("a",), start_from="small")
    assert make_settings([], base) == base


def test_weights_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "weights_path", lambda name: tmp_path / name)
    data = str(write_folder(tmp_path / "data"))
    messages = {"base": "has no released weights yet", "no/such": "neither one of base, small, nor"}
    for start_from, message in messages.items():
        with pytest.raises(StrAppError, match=f"'{start_from}'.*{message}"):
            train(make_settings([], train=(data,), start_from=start_from), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("german_words", EXAMPLES / "german_words.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_examples_texts_need_its_charset(example: ModuleType) -> None:
    texts = example.texts(np.random.default_rng(0), 100)
    assert len(set(texts)) == 100
    charset = Charset(PRINTABLE_94 + example.NEW)
    assert not any(charset.missing(text) for text in texts)
    assert sum(bool(Charset().missing(text)) for text in texts) == 80


def test_the_examples_pictures_show_something(example: ModuleType, tmp_path: Path) -> None:
    font = str(write_font(tmp_path / "plain.ttf"))
    one, same, other = (example.photograph(np.random.default_rng(seed), "Preis", font) for seed in (1, 1, 2))
    assert one.dtype == np.uint8
    assert one.ndim == 3
    assert np.array_equal(one, same)
    assert one.shape != other.shape
    assert one.std() > 5


def test_the_example_says_how_it_is_called(tmp_path: Path) -> None:
    command = [sys.executable, EXAMPLES / "german_words.py", "--help"]
    shown = subprocess.run(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True)
    assert shown.stdout.startswith(b"usage: german_words.py [-h] OUT [FONTS]")
    assert list(tmp_path.iterdir()) == []


def test_small_grown_by_blocks_reads_as_before() -> None:
    settings = make_settings(
        ["architecture.backbone.blocks=2,5,4", "frozen_stages=1"], train=("a",), start_from="small"
    )
    grown, before = _initial_model(settings, resume=False)
    backbone = get_preset("small").architecture.backbone
    assert grown.architecture.backbone == dataclasses.replace(backbone, blocks=(2, 5, 4))
    assert before["steps"]
    small, _ = load_checkpoint(checkpoint_file("small"))
    images = [cv2.imread(str(path)) for path in sorted((ROOT / "samples/images").glob("*.jpg"))]
    readings = [Reader(TorchEngine(model.eval())).recognize(images) for model in (small, grown)]
    assert [r.text for r in readings[1]] == [r.text for r in readings[0]]
    assert [r.confidence for r in readings[1]] == pytest.approx([r.confidence for r in readings[0]], abs=1e-3)
