"""Presets describe their weights."""

import dataclasses
import subprocess
import sys

import pytest
import torch

from str_app.models.charset import Charset
from str_app.models.checkpoint import read_header
from str_app.models.preprocessing import Preprocessing
from str_app.models.presets import UnknownModelError, create_model, get_preset, list_models, weights_path
from str_app.training.settings import make_settings


@pytest.mark.parametrize("name", list_models())
def test_every_preset_reads_a_batch(name):
    model = create_model(name).eval()
    width = model.preprocessing.width
    memory, state = model.encode(torch.zeros(2, 3, 32, width), torch.tensor([width, 20]))
    logits, state, attention = model.step(memory, state, torch.zeros(2, dtype=torch.int64))
    assert logits.shape == (2, 95)
    assert attention.shape == (2, model.grid[0] * model.grid[1])
    assert weights_path(name).name == f"{name}.safetensors"


@pytest.mark.parametrize(("name", "limit"), [("small", 25e6 / 3), ("base", 30e6)])  # 25 MB ship: float16 and 8 bits
def test_presets_keep_their_size(name, limit):
    count = sum(parameter.numel() for parameter in create_model(name).parameters())
    assert get_preset(name).parameters == count <= limit


def test_unknown_preset_lists_the_known_ones():
    with pytest.raises(UnknownModelError, match="base, small"):
        get_preset("large")


@pytest.mark.parametrize("name", [name for name in list_models() if weights_path(name).is_file()])
def test_shipped_weights_are_what_the_preset_says(name):
    preset, header = get_preset(name), read_header(weights_path(name))
    assert header["architecture"] == dataclasses.asdict(preset.architecture)
    assert header["preprocessing"] == dataclasses.asdict(preset.preprocessing)
    assert header["charset"] == preset.charset
    assert header["info"]["name"] == name


def test_training_from_scratch_and_from_the_weights_agree():
    scratch = make_settings([], preset="small", train=("a",))
    fine = make_settings([], start_from="small", train=("a",))
    for part in ("architecture", "preprocessing", "charset"):
        assert getattr(scratch, part) == getattr(fine, part)


def test_charset_and_preprocessing_may_be_chosen():
    model = create_model("small", charset=Charset("ab"), preprocessing=Preprocessing(widths=(64,)))
    assert (model.charset.characters, model.preprocessing.widths) == ("ab", (64,))


def test_names_files_and_preprocessing_need_no_torch():
    """An engine without torch reads them too."""
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from str_app.models.checkpoint import read_header\n"
        "from str_app.models.presets import get_preset, list_models, weights_path\n"
        "for name in list_models(): get_preset(name).preprocessing; weights_path(name)\n"
        "print(read_header(weights_path('small'))['preprocessing']['height'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "32\n"), done.stderr
