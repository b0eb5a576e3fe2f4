"""The mean of several checkpoints' weights."""

from __future__ import annotations

import copy
import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from str_app.errors import StrAppError
from str_app.models.checkpoint import load_checkpoint
from str_app.models.recognizer import Recognizer
from str_app.models.transfer import can_grow, transfer_weights


def average_checkpoints(paths: Sequence[Path], shares: Sequence[float]) -> tuple[Recognizer, dict[str, Any]]:
    """The weights' mean, and the last checkpoint's info with what was averaged.

    Worth trying for runs that went on from the same weights, and for several moments of one run (arXiv 2203.05482,
    1803.05407): the mean often reads better than each. Weights that were trained apart have no useful mean.

    Args:
        paths: checkpoints of one charset, preprocessing and architecture, or of networks that grew into the last one's:
            those are grown first (`str_app.models.transfer`).
        shares: of each; any scale.

    Raises:
        StrAppError: shares that are not one a checkpoint and above 0, or a checkpoint of another kind.
        CheckpointError: a file that cannot be used.
    """
    if len(shares) != len(paths) or not paths or min(shares) <= 0:
        raise StrAppError(f"{len(paths)} checkpoints and shares {list(shares)}: give each a share above 0")
    loaded = [load_checkpoint(path) for path in paths]
    model, info = loaded[-1]
    mean: dict[str, Tensor] = {}
    for path, share, (other, _) in zip(paths, shares, loaded, strict=True):
        for part in ("architecture", "charset", "preprocessing"):
            fits = can_grow if part == "architecture" else operator.eq
            if not fits(getattr(other, part), getattr(model, part)):
                raise StrAppError(f"{path}: its {part} is not that of {paths[-1]}, so they have no mean")
        grown = copy.deepcopy(model)  # what the other lacks is this one's, and silent
        transfer_weights(other, grown)
        for name, tensor in grown.state_dict().items():
            if tensor.is_floating_point():
                mean[name] = mean.get(name, torch.zeros(())) + tensor.double() * (share / sum(shares))
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name in mean:
                tensor.copy_(mean[name])
    parts = [f"{share / sum(shares):.3g} {path}" for path, share in zip(paths, shares, strict=True)]
    info = {key: value for key, value in info.items() if key not in ("temperature", "metrics")}
    return model, {**info, "training": {**info.get("training", {}), "averaged": parts}}
