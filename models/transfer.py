"""Starting a model from the weights of another one, also when the charset differs or the network has grown."""

from __future__ import annotations

import dataclasses
import operator
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from str_app.models.backbones.conv_norm import ConvNorm
from str_app.models.backbones.resnet import BasicBlock, ResNet, ResNetConfig
from str_app.models.decoders.attention_decoder import AttentionDecoderConfig
from str_app.models.recognizer import Recognizer, RecognizerConfig

_POSITIONS = "decoder.attention.position"
_PER_GLIMPSE = ("decoder.cell.weight_ih", "decoder.cell.weight_feature", "decoder.classifier.weight")
_PER_CLASS = ("decoder.embedding.weight", "decoder.classifier.weight", "decoder.classifier.bias")


# Settings in which a network may differ from the one that it grows from.
_MAY_GROW: dict[type, dict[str, Callable[[Any, Any], bool]]] = {
    ResNetConfig: {
        "blocks": lambda before, after: len(before) == len(after) and all(map(operator.le, before, after)),
        "fpn": operator.le,  # where it does not widen the map, see `_section_can_grow`
    },
    AttentionDecoderConfig: {"positional_glimpse": operator.le, "dropout": lambda before, after: True},
}


def can_grow(source: RecognizerConfig, target: RecognizerConfig) -> bool:
    """Whether `target` is `source`, or a larger network that can begin as the same function.

    A ResNet may gain blocks in its stages and a feature pyramid (`fpn`), an attention decoder positional glimpses.
    Dropout may differ: it has no weights.
    """
    pairs = [(source.backbone, target.backbone), (source.decoder, target.decoder)]
    rest_is_equal = dataclasses.replace(source, backbone=target.backbone, decoder=target.decoder) == target
    return rest_is_equal and all(_section_can_grow(before, after) for before, after in pairs)


def _section_can_grow(source: Any, target: Any) -> bool:
    if type(source) is not type(target):
        return False
    if isinstance(target, ResNetConfig) and target.fpn and not source.fpn and target.strides[-1][1] != 1:
        return False  # new columns would have no position
    allowed = _MAY_GROW.get(type(source), {})
    pairs = {key.name: (getattr(source, key.name), getattr(target, key.name)) for key in dataclasses.fields(source)}
    return all(allowed.get(name, operator.eq)(*pair) for name, pair in pairs.items())


@torch.no_grad()
def transfer_weights(source: Recognizer, target: Recognizer) -> list[str]:
    """Copy every weight of `source` that fits `target`; rows of characters that both know are copied one by one.

    On a wider canvas, position embeddings beyond the source's last column start as copies of that column; on one of
    another height they are those of the nearest row above. A grown network (`can_grow`) starts as the source's
    function: additional blocks are identities (the scale of their last norm is 0, as in arXiv 1706.02677, section 5.1),
    a new feature pyramid repeats the coarse rows, and the weights that read the position part of a glimpse are 0.

    Returns:
        Names of the target's tensors that kept their fresh values, entirely (new, or of another shape) or in part
        (rows of characters that the source does not know).
    """
    weights = _with_target_names(source, target)
    fresh: list[str] = []
    shared = [char for char in target.charset.characters if char in source.charset]
    target_rows = [0, *(target.charset.encode(char)[0] for char in shared)]
    source_rows = [0, *(source.charset.encode(char)[0] for char in shared)]
    for name, tensor in target.state_dict().items():
        if name not in weights:
            fresh.append(name)
        elif name in _PER_CLASS and tensor.shape[1:] == weights[name].shape[1:]:
            tensor[target_rows] = weights[name][source_rows]
            if len(target_rows) < len(tensor):
                fresh.append(name)
        elif name == _POSITIONS and tensor.shape[2] == weights[name].shape[2]:  # (H', W', A)
            rows = torch.arange(len(tensor)) * len(weights[name]) // len(tensor)
            columns = torch.arange(tensor.shape[1]).clamp_max(weights[name].shape[1] - 1)
            tensor.copy_(weights[name][rows][:, columns])
        elif tensor.shape == weights[name].shape:
            tensor.copy_(weights[name])
        else:
            fresh.append(name)
    if can_grow(source.architecture, target.architecture) and isinstance(target.backbone, ResNet):
        _silence(target.backbone, fresh)
    return fresh


def _with_target_names(source: Recognizer, target: Recognizer) -> dict[str, Tensor]:
    """The source's state dict with the target's names and shapes.

    Additional blocks are the last of their stage, and the position part is the last part of a glimpse.
    """
    index_of = {block: index for index, block in enumerate(_blocks(target))}
    blocks = _blocks(source)
    renamed = {}
    for name, tensor in source.state_dict().items():
        if blocks and index_of and (match := re.match(r"backbone\.stages\.(\d+)\.", name)):
            index = index_of.get(blocks[int(match[1])])
            if index is None:
                continue  # a block that the target does not have
            name = f"backbone.stages.{index}.{name[match.end() :]}"
        if name in _PER_GLIMPSE and (size := _added_to_glimpse(source.architecture, target.architecture)):
            tensor = F.pad(tensor, (0, size))
        renamed[name] = tensor
    return renamed


def _blocks(model: Recognizer) -> list[tuple[int, int]]:
    """(stage, block of the stage) of every block of a ResNet; empty for other backbones."""
    if not isinstance(model.backbone, ResNet):
        return []
    return [(stage, block) for stage, count in enumerate(model.backbone.config.blocks) for block in range(count)]


def _added_to_glimpse(source: RecognizerConfig, target: RecognizerConfig) -> int:
    """By how much a glimpse of `target` is longer because it has a position part."""
    before, after = source.decoder, target.decoder
    if not (isinstance(before, AttentionDecoderConfig) and isinstance(after, AttentionDecoderConfig)):
        return 0
    return before.attention_size if after.positional_glimpse and not before.positional_glimpse else 0


def _silence(backbone: ResNet, fresh: list[str]) -> None:
    """Make what is new in the backbone contribute 0 at first."""
    for name, module in backbone.named_modules():
        last = module.conv2 if isinstance(module, BasicBlock) else module if name == "lateral" else None
        if isinstance(last, ConvNorm) and any(parameter.startswith(f"backbone.{name}.") for parameter in fresh):
            norm = last[1]
            assert isinstance(norm, torch.nn.BatchNorm2d)
            torch.nn.init.zeros_(norm.weight)
