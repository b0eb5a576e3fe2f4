"""Checkpoints carry everything, and broken ones say so."""

import json
import os
import sys

import pytest
import safetensors.torch
import torch

from str_app.models.checkpoint import (
    CheckpointError,
    load_checkpoint,
    read_header,
    replace_file,
    replace_info,
    save_checkpoint,
)
from str_app.models.preprocessing import Preprocessing
from tests.tiny_recognizer import tiny_recognizer


@pytest.fixture
def saved(tmp_path):
    model = tiny_recognizer(context_size=3)
    path = tmp_path / "runs" / "m.safetensors"
    save_checkpoint(path, model, {"name": "tiny", "temperature": 1.5})
    return model, path


def test_round_trip(saved):
    model, path = saved
    loaded, info = load_checkpoint(path)
    assert info == {"name": "tiny", "temperature": 1.5}
    assert (loaded.architecture, loaded.charset, loaded.preprocessing) == (
        model.architecture,
        model.charset,
        model.preprocessing,
    )
    assert not loaded.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)


def test_half_the_size(saved, tmp_path):
    """Filters and matrices lose at most what float16 rounds away, the rest nothing; computing stays in float32."""
    model, whole = saved
    path = tmp_path / "half.safetensors"
    save_checkpoint(path, model, half=True)
    assert path.stat().st_size < 0.8 * whole.stat().st_size  # of a tiny network, much is metadata
    loaded, _ = load_checkpoint(path)
    for name, tensor in model.state_dict().items():
        stored = loaded.state_dict()[name]
        assert stored.dtype == tensor.dtype
        assert torch.equal(stored, tensor.half().float() if tensor.dim() > 1 else tensor)


@pytest.mark.parametrize("half", [False, True])
def test_another_info(saved, half):
    """The stored weights are the same bytes."""
    model, path = saved
    save_checkpoint(path, model, {"temperature": 1.5}, half=half)
    stored = safetensors.torch.load_file(path)
    replace_info(path, {"temperature": 2.0})
    assert read_header(path)["info"] == {"temperature": 2.0}
    for name, tensor in safetensors.torch.load_file(path).items():
        assert tensor.dtype == stored[name].dtype
        assert torch.equal(tensor, stored[name])


def test_replaced_in_one_step(saved, monkeypatch):
    """A failure while writing leaves the old file and no litter."""
    model, path = saved
    before = path.read_bytes()
    monkeypatch.setattr("os.fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(path, model, {"name": "newer"})
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("keep", [0, 5, 0.5, -1])
def test_cut_files(saved, keep):
    _, path = saved
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep) if isinstance(keep, float) else keep])
    with pytest.raises(CheckpointError, match=r"m\.safetensors: not a whole safetensors file"):
        load_checkpoint(path)


def test_the_state_of_a_run_is_no_model(tmp_path):
    (tmp_path / "last.pt").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"last\.pt: the state of a training run.* give best\.safetensors"):
        load_checkpoint(tmp_path / "last.pt")


def test_missing_file(tmp_path):
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "none.safetensors")


def test_somebody_elses_file(tmp_path):
    path = tmp_path / "other.safetensors"
    safetensors.torch.save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="no str-app checkpoint"):
        read_header(path)


def test_another_format_version(tmp_path):
    path = tmp_path / "future.safetensors"
    safetensors.torch.save_file({"x": torch.zeros(1)}, path, metadata={"str_app": json.dumps({"format": "str-app/9"})})
    with pytest.raises(CheckpointError, match="'str-app/9'"):
        load_checkpoint(path)


def test_weights_that_do_not_fit_their_description(saved):
    model, path = saved
    header = read_header(path)
    header["architecture"]["decoder"]["hidden_size"] = 17
    safetensors.torch.save_file(model.state_dict(), path, metadata={"str_app": json.dumps(header)})
    with pytest.raises(CheckpointError, match="do not fit together") as caught:
        load_checkpoint(path)
    assert len(str(caught.value)) < 500


FLAT = {
    **{"stem": [4, 4], "stem_strides": [2, 1], "stages": [8, 8, 12], "blocks": [1, 2, 1]},
    **{"strides": [[2, 2], [2, 1], [2, 1]], "attention": "1d", "context_size": 3},
    **{"hidden_size": 16, "attention_size": 8, "embedding_size": 6, "dropout": 0.1, "max_length": 9},
    **{"refine": "mul", "gates": ["input", "output"], "feature": "linear", "squash": "layernorm"},
}
LATER = {"pyramid": True, "locate": True, "mixers": [0, 0]}


@pytest.mark.parametrize("later", [{}, LATER])
def test_checkpoints_of_older_versions(tmp_path, later):
    """A flat architecture, also without the fields that were added later, and preprocessing by its former names."""
    changes = {"blocks": (1, 2, 1), "attention": "1d", "context_size": 3, "max_length": 9, "activation": "layernorm"}
    changes |= {"fpn": True, "positional_glimpse": True} if later else {}
    preprocessing = Preprocessing(widths=(64, 96), widen_below=70 if later else 0)
    model = tiny_recognizer(preprocessing=preprocessing, **changes)
    path = tmp_path / "old.safetensors"
    stored = {"height": 32, "widths": [64, 96], "fit": "pad", "mean": 0.5, "std": 0.5}
    header = {
        "format": "str-app/1",
        "architecture": FLAT | later,
        "charset": "abcd",
        "preprocessing": stored | ({"spread": 70} if later else {}),
        "info": {},
    }
    safetensors.torch.save_file(model.state_dict(), path, metadata={"str_app": json.dumps(header)})
    loaded, _ = load_checkpoint(path)
    assert (loaded.architecture, loaded.preprocessing) == (model.architecture, model.preprocessing)
    save_checkpoint(path, loaded)
    assert read_header(path)["architecture"]["backbone"]["blocks"] == (1, 2, 1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"backbone": {"name": "vgg"}}, "unknown backbone 'vgg': choose one of resnet"),
        ({"decoder": {"name": "attention", "depth": 3}}, "unexpected keyword argument 'depth'"),
        ({"mixers": [1, 0]}, "unexpected keyword argument 'mixers'"),
    ],
)
def test_architectures_that_do_not_exist(saved, change, words):
    model, path = saved
    header = read_header(path)
    header["architecture"] |= change
    safetensors.torch.save_file(model.state_dict(), path, metadata={"str_app": json.dumps(header)})
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(path)


@pytest.mark.skipif(sys.platform == "win32", reason="no permissions like these")
def test_a_replaced_file_keeps_its_permissions_and_a_new_one_has_those_of_the_umask(tmp_path):
    before = os.umask(0o077)
    try:
        replace_file(tmp_path / "new", b"a")
        os.umask(0o022)
        replace_file(tmp_path / "shared", b"a")
        (tmp_path / "shared").chmod(0o640)
        replace_file(tmp_path / "shared", b"b")
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("new", "shared")] == [0o600, 0o640]
    assert (tmp_path / "shared").read_bytes() == b"b"
    assert len(list(tmp_path.iterdir())) == 2
