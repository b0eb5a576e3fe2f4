"""The mean of checkpoints."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from str_app.errors import StrAppError
from str_app.models.charset import Charset
from str_app.models.checkpoint import load_checkpoint, save_checkpoint
from str_app.models.preprocessing import Preprocessing
from str_app.models.recognizer import Recognizer
from str_app.training.averaging import average_checkpoints, averaged_copy
from tests.tiny_recognizer import changed, tiny_config

SIZES = tiny_config(stages=(8, 8, 8), hidden_size=8, attention_size=4, embedding_size=64, max_length=4)


def checkpoint(path: Path, seed: int, charset: str = "ab", widen_below: int = 80, **sizes: Any) -> Path:
    torch.manual_seed(seed)
    model = Recognizer(changed(SIZES, **sizes), Charset(charset), Preprocessing(widen_below=widen_below))
    info = {"name": path.stem, "temperature": 2.0, "metrics": {"validation": []}, "training": {"steps": seed}}
    save_checkpoint(path, model, info)
    return path


def test_mean_of_every_weight(tmp_path: Path) -> None:
    paths = [checkpoint(tmp_path / f"{seed}.safetensors", seed) for seed in (1, 2)]
    model, info = average_checkpoints(paths, [3, 1])
    one, two = (load_checkpoint(path)[0].state_dict() for path in paths)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, 0.75 * one[name] + 0.25 * two[name])
    assert info["training"] == {
        "steps": 2,
        "averaged": ["0.75 {}/{}".format(*paths[0].parts[-2:]), "0.25 {}/{}".format(*paths[1].parts[-2:])],
    }
    assert not {"temperature", "metrics"} & info.keys(), "they are of other weights"


def test_a_network_is_grown_to_be_averaged_with_what_it_grew_into(tmp_path: Path) -> None:
    paths = [
        checkpoint(tmp_path / "small.safetensors", 1),
        checkpoint(tmp_path / "grown.safetensors", 2, blocks=(2, 1, 1), fpn=True),
    ]
    model, _ = average_checkpoints(paths, [3, 1])
    (small, _), (grown, _) = (load_checkpoint(path) for path in paths)
    assert model.architecture == grown.architecture
    for ours, theirs in ((0, 0), (2, 1), (3, 2)):  # blocks that both have
        mean = 0.75 * small.backbone.stages[theirs].conv1[0].weight + 0.25 * grown.backbone.stages[ours].conv1[0].weight
        torch.testing.assert_close(model.backbone.stages[ours].conv1[0].weight, mean)
    for name in ("backbone.stages.1.conv2", "backbone.lateral"):  # what only one has counts with its share
        found, whole = model.get_submodule(name), grown.get_submodule(name)
        torch.testing.assert_close(found[1].weight, 0.25 * whole[1].weight)
        torch.testing.assert_close(found[0].weight, whole[0].weight)
    with pytest.raises(StrAppError, match="its architecture"):
        average_checkpoints(paths[::-1], [1, 1])


@pytest.mark.parametrize(
    ("part", "other"),
    [("architecture", {"hidden_size": 12}), ("charset", {"charset": "abc"}), ("preprocessing", {"widen_below": 0})],
)
def test_other_kinds_have_no_mean(tmp_path: Path, part: str, other: dict) -> None:
    paths = [checkpoint(tmp_path / "1.safetensors", 1, **other), checkpoint(tmp_path / "2.safetensors", 2)]
    with pytest.raises(StrAppError, match=f"1.safetensors: its {part} differs from that of .*2.safetensors"):
        average_checkpoints(paths, [1, 1])


@pytest.mark.parametrize("shares", [[1.0], [1.0, 0.0], [1.0, -1.0], [1.0, math.nan], [1.0, math.inf], [1.0, 1.0, 1.0]])
def test_each_needs_a_share(tmp_path: Path, shares: list[float]) -> None:
    paths = [checkpoint(tmp_path / f"{seed}.safetensors", seed) for seed in (1, 2)]
    with pytest.raises(StrAppError, match="give one share above 0 per checkpoint"):
        average_checkpoints(paths, shares)


def test_the_moving_average_follows_quickly_at_first_and_by_its_decay_later() -> None:
    network = torch.nn.Linear(1, 1)
    averaged = averaged_copy(network, 0.9)

    def update(value: float) -> float:
        torch.nn.init.constant_(network.weight, value)
        averaged.update_parameters(network)
        return float(averaged.module.weight.detach())

    update(0.0)
    assert update(1.0) > 0.8, "initial weights are soon forgotten"
    for _ in range(200):
        latest = update(1.0)
    assert latest == pytest.approx(1.0)
    assert update(0.0) == pytest.approx(0.9)
