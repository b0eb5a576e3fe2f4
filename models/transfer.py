"""Starting a model from another one's weights, also when the charset differs or the network has grown."""

from __future__ import annotations

import dataclasses
import re

import torch
from torch import Tensor
from torch.nn import functional as F

from str_app.models.backbones.resnet import BasicBlock, ConvNorm
from str_app.models.recognizer import Architecture, Recognizer

_POSITIONS = "decoder.attention.position"
_PER_GLIMPSE = ("decoder.cell.weight_ih", "decoder.cell.weight_feature", "decoder.classifier.weight")
_PER_CLASS = ("decoder.embedding.weight", "decoder.classifier.weight", "decoder.classifier.bias")


def can_grow(source: Architecture, target: Architecture) -> bool:
    """Whether `target` is `source`, or `source` with more blocks in its stages, a pyramid or located glimpses.

    Dropout may differ: it has no weights.
    """
    free = {name: getattr(target, name) for name in ("blocks", "pyramid", "locate", "dropout")}
    alike = dataclasses.replace(source, **free) == target
    deeper = len(source.blocks) == len(target.blocks) and all(
        ours >= theirs for ours, theirs in zip(target.blocks, source.blocks, strict=True)
    )
    return alike and deeper and target.pyramid >= source.pyramid and target.locate >= source.locate


@torch.no_grad()
def transfer_weights(source: Recognizer, target: Recognizer) -> list[str]:
    """Copy every weight of `source` that fits `target`; rows of characters that both know are copied one by one.

    On a wider canvas, columns beyond the source's last begin as copies of its last. A grown network (`can_grow`)
    begins as the source's function: further blocks pass on what they get (their last norm's scale is 0, as in arXiv
    1706.02677, section 5.1), a new pyramid repeats the coarse rows, and nobody listens yet to where a glimpse was.

    Returns:
        Names of the target's tensors that kept their fresh values, wholly (another shape or new) or in part (the
        rows of characters that the source does not know).
    """
    theirs = _by_targets_names(source, target)
    fresh: list[str] = []
    shared = [char for char in target.charset.characters if char in source.charset]
    ours_rows = [0, *(target.charset.encode(char)[0] for char in shared)]
    their_rows = [0, *(source.charset.encode(char)[0] for char in shared)]
    for name, tensor in target.state_dict().items():
        if name not in theirs:
            fresh.append(name)
        elif name in _PER_CLASS and tensor.shape[1:] == theirs[name].shape[1:]:
            tensor[ours_rows] = theirs[name][their_rows]
            if len(ours_rows) < len(tensor):
                fresh.append(name)
        elif name == _POSITIONS and len(tensor) % len(theirs[name]) == 0:  # (H', W', A)
            rows = torch.arange(len(tensor)) * len(theirs[name]) // len(tensor)
            columns = torch.arange(tensor.shape[1]).clamp_max(theirs[name].shape[1] - 1)
            tensor.copy_(theirs[name][rows][:, columns])
        elif tensor.shape == theirs[name].shape:
            tensor.copy_(theirs[name])
        else:
            fresh.append(name)
    if can_grow(source.architecture, target.architecture):
        _silence(target, fresh)
    return fresh


def _by_targets_names(source: Recognizer, target: Recognizer) -> dict[str, Tensor]:
    """The source's state dict as the target names and shapes it.

    A stage's further blocks come last, and so does a glimpse's place among what reads glimpses.
    """
    number = {place: index for index, place in enumerate(_block_places(target.architecture.blocks))}
    places = _block_places(source.architecture.blocks)
    renamed = {}
    for name, tensor in source.state_dict().items():
        if found := re.match(r"backbone\.stages\.(\d+)\.", name):
            index = number.get(places[int(found[1])])
            if index is None:
                continue  # a block that the target does not have
            name = f"backbone.stages.{index}.{name[found.end() :]}"
        if name in _PER_GLIMPSE and target.architecture.locate and not source.architecture.locate:
            tensor = F.pad(tensor, (0, source.architecture.attention_size))
        renamed[name] = tensor
    return renamed


def _block_places(blocks: tuple[int, ...]) -> list[tuple[int, int]]:
    """(stage, block of the stage) of every block."""
    return [(stage, block) for stage, count in enumerate(blocks) for block in range(count)]


def _silence(target: Recognizer, fresh: list[str]) -> None:
    """Let what is new in the backbone add nothing yet."""
    for name, module in target.backbone.named_modules():
        last = module.conv2 if isinstance(module, BasicBlock) else module if name == "lateral" else None
        if isinstance(last, ConvNorm) and any(f.startswith(f"backbone.{name}.") for f in fresh):
            norm = last[1]
            assert isinstance(norm, torch.nn.BatchNorm2d)
            torch.nn.init.zeros_(norm.weight)
