"""Averages of weights: of a run's steps, and of several checkpoints."""

from __future__ import annotations

import copy
import math
import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from str_app.engines.load import checkpoint_file
from str_app.errors import StrAppError
from str_app.models.checkpoint import load_checkpoint
from str_app.models.recognizer import Recognizer
from str_app.models.transfer import can_grow, transfer_weights


def averaged_copy(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of the network that holds the exponential moving average of its weights.

    Args:
        model: the network in training; call `update_parameters(model)` after every step.
        decay: weight of the previous average. It is less in the first steps: the average follows quickly, or it would
            retain the initial weights.
    """

    @torch.no_grad()
    def average(averaged: list[Tensor], current: list[Tensor], count: Tensor | int) -> None:
        weight = 1 - min(decay, (1 + int(count)) / (10 + int(count)))
        torch._foreach_lerp_(averaged, current, weight)

    return AveragedModel(model, multi_avg_fn=average)  # type: ignore[arg-type]


def average_checkpoints(paths: Sequence[Path], shares: Sequence[float]) -> tuple[Recognizer, dict[str, Any]]:
    """The mean of the weights, and the info of the last checkpoint with the list of what was averaged, folder and file.

    The mean often reads better than each checkpoint if they were fine-tuned from the same weights or come from one run
    (arXiv 2203.05482, 1803.05407). The mean of independently trained weights is useless.

    Args:
        paths: checkpoints of the same charset, preprocessing and architecture. Smaller architectures that can grow into
            the last one's are grown first (`str_app.models.transfer`).
        shares: weight of each checkpoint, above 0, on any scale.

    Raises:
        StrAppError: wrong number of shares, a share that is not a positive number, or checkpoints that do not match.
        CheckpointError: a file that cannot be loaded.
    """
    if len(shares) != len(paths) or not paths or not all(0 < share < math.inf for share in shares):
        raise StrAppError(f"{len(paths)} checkpoints, but shares {list(shares)}: give one share above 0 per checkpoint")
    loaded = [load_checkpoint(checkpoint_file(path)) for path in paths]
    model, info = loaded[-1]
    mean: dict[str, Tensor] = {}
    for path, share, (source, _) in zip(paths, shares, loaded, strict=True):
        for part in ("architecture", "charset", "preprocessing"):
            matches = can_grow if part == "architecture" else operator.eq
            if not matches(getattr(source, part), getattr(model, part)):
                raise StrAppError(f"{path}: its {part} differs from that of {paths[-1]}; they cannot be averaged")
        grown = copy.deepcopy(model)  # layers that the source lacks are added so that they change nothing
        transfer_weights(source, grown)
        for name, tensor in grown.state_dict().items():
            if tensor.is_floating_point():
                mean[name] = mean.get(name, torch.zeros(())) + tensor.double() * (share / sum(shares))
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name in mean:
                tensor.copy_(mean[name])
    # Whoever gets the weights need not learn where the files were.
    parts = [f"{share / sum(shares):.3g} {Path(*path.parts[-2:])}" for path, share in zip(paths, shares, strict=True)]
    info = {key: value for key, value in info.items() if key not in ("temperature", "metrics")}
    return model, {**info, "training": {**info.get("training", {}), "averaged": parts}}
