"""Checkpoints carry everything, and broken ones say so."""

import json

import pytest
import safetensors.torch
import torch

from str_app.models.checkpoint import CheckpointError, load_checkpoint, read_header, save_checkpoint
from tests.models.test_recognizer import tiny


@pytest.fixture
def saved(tmp_path):
    model = tiny(context_size=3)
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
    header["architecture"]["hidden_size"] = 17
    safetensors.torch.save_file(model.state_dict(), path, metadata={"str_app": json.dumps(header)})
    with pytest.raises(CheckpointError, match="do not fit together") as caught:
        load_checkpoint(path)
    assert len(str(caught.value)) < 500


def test_older_names_of_choices_are_read(tmp_path):
    model = tiny(activation="layernorm")
    path = tmp_path / "older.safetensors"
    save_checkpoint(path, model)
    header = read_header(path)
    header["architecture"]["squash"] = header["architecture"].pop("activation")
    safetensors.torch.save_file(model.state_dict(), path, metadata={"str_app": json.dumps(header)})
    assert load_checkpoint(path)[0].architecture == model.architecture
