"""A residual network for word crops (arXiv 1512.03385)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from str_app.models.backbones.base import Backbone
from str_app.models.backbones.conv_norm import ConvNorm


@dataclass(frozen=True)
class ResNetConfig:
    """Settings of `ResNet`.

    Attributes:
        name: selects this backbone.
        stem: channels of the two stem convolutions.
        stem_strides: their strides, equal in both directions.
        stages: channels of each residual stage.
        blocks: residual blocks of each stage.
        strides: (vertical, horizontal) stride of the first block of each stage.
        fpn: upsample the feature map of the last stage to the size of the stage before it and add that stage's map
            through a 1×1 convolution (feature pyramid, arXiv 1612.03144): the last stage's channels at a finer stride.
    """

    name: Literal["resnet"] = "resnet"
    stem: tuple[int, int] = (32, 48)
    stem_strides: tuple[int, int] = (2, 1)
    stages: tuple[int, ...] = (96, 160, 256)
    blocks: tuple[int, ...] = (1, 2, 2)
    strides: tuple[tuple[int, int], ...] = ((2, 2), (2, 1), (2, 1))
    fpn: bool = False

    @property
    def num_stages(self) -> int:
        """See `BackboneConfig`."""
        return len(self.stages)

    def build(self) -> ResNet:
        """See `BackboneConfig`."""
        return ResNet(self)


class BasicBlock(nn.Module):
    """The two-convolution residual block of arXiv 1512.03385, figure 5 left.

    Its shortcut averages before the 1×1 convolution instead of skipping pixels by a stride (ResNet-D, arXiv
    1812.01187, figure 2c). This also avoids a bug of torch 2.13: the backward pass of a strided 1×1 convolution
    corrupts the heap on the CPU for channels-last inputs with few channels and odd batch sizes.
    """

    def __init__(self, in_channels: int, channels: int, stride: int | tuple[int, int] = 1) -> None:
        super().__init__()
        self.conv1 = ConvNorm(in_channels, channels, stride=stride)
        self.conv2 = ConvNorm(channels, channels, relu=False)
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != channels or stride not in (1, (1, 1)):
            self.shortcut = nn.Sequential(nn.AvgPool2d(stride), ConvNorm(in_channels, channels, 1, relu=False))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) → (B, C, H / stride, W / stride)."""
        return F.relu(self.conv2(self.conv1(x)) + self.shortcut(x), inplace=True)


class ResNet(Backbone):
    """Two stem convolutions, then stages of residual blocks.

    Height shrinks faster than width, because text runs along the width.

    Raises:
        ValueError: `stages`, `blocks` and `strides` differ in length, or `fpn` with fewer than two stages.
    """

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        stages, blocks, strides = config.stages, config.blocks, config.strides
        if not len(stages) == len(blocks) == len(strides):
            raise ValueError(
                f"stages, blocks and strides must have one entry per stage, got {stages}, {blocks}, {strides}"
            )
        if config.fpn and len(stages) < 2:
            raise ValueError(f"fpn needs at least two stages, got {stages}")
        self.config = config
        self.stem = nn.Sequential(
            ConvNorm(3, config.stem[0], stride=config.stem_strides[0]),
            ConvNorm(config.stem[0], config.stem[1], stride=config.stem_strides[1]),
        )
        layers: list[nn.Module] = []
        channels = config.stem[1]
        for width, count, stride in zip(stages, blocks, strides, strict=True):
            for index in range(count):
                layers.append(BasicBlock(channels, width, stride if index == 0 else 1))
                channels = width
        self.stages = nn.Sequential(*layers)
        self.lateral = ConvNorm(stages[-2], channels, 1, relu=False) if config.fpn else None
        self.out_channels = channels
        stem_stride = math.prod(config.stem_strides)
        down, across = (stem_stride * math.prod(each) for each in zip(*strides, strict=True))
        self._coarsest = down, across
        last = strides[-1] if config.fpn else (1, 1)
        self.stride = down // last[0], across // last[1]
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @property
    def coarsest_stride(self) -> tuple[int, int]:
        """See `Backbone`: of the last stage, also where `fpn` makes the result finer."""
        return self._coarsest

    def first_stages(self, count: int) -> list[nn.Module]:
        """See `Backbone`."""
        return [self.stem, *list(self.stages)[: sum(self.config.blocks[:count])]]

    def forward(self, images: Tensor) -> Tensor:
        """See `Backbone`."""
        features: Tensor = self.stem(images)
        finer = features
        first_of_last_stage = sum(self.config.blocks[:-1])
        for index, block in enumerate(self.stages):
            if index == first_of_last_stage:
                finer = features
            features = block(features)
        if self.lateral is None:
            return features
        rows, columns = self.config.strides[-1]
        return self.lateral(finer) + F.interpolate(features, scale_factor=(float(rows), float(columns)))
