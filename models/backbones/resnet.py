"""Convolutional backbones: a crop in, a feature map out."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from str_app.models.kernels.convolution import Convolution


class ConvNorm(nn.Sequential):
    """Convolution without bias, batch norm and, unless told otherwise, ReLU."""

    def __init__(
        self, in_channels: int, channels: int, kernel: int = 3, stride: int | tuple[int, int] = 1, relu: bool = True
    ) -> None:
        layers: list[nn.Module] = [
            Convolution(in_channels, channels, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(channels),
        ]
        if relu:
            layers.append(nn.ReLU(inplace=True))
        super().__init__(*layers)


class BasicBlock(nn.Module):
    """The two-convolution residual block of arXiv 1512.03385, figure 5 left.

    Its shortcut averages before the 1×1 convolution instead of skipping pixels by a stride (ResNet-D, arXiv
    1812.01187, figure 2c). Besides, torch 2.13's strided 1×1 convolution corrupts the heap in its backward pass on
    the CPU for channels-last inputs with few channels and odd batches.
    """

    def __init__(self, in_channels: int, channels: int, stride: int | tuple[int, int] = 1) -> None:
        super().__init__()
        self.conv1 = ConvNorm(in_channels, channels, stride=stride)
        self.conv2 = ConvNorm(channels, channels, relu=False)
        same = in_channels == channels and stride in (1, (1, 1))
        self.shortcut: nn.Module = nn.Identity()
        if not same:
            self.shortcut = nn.Sequential(nn.AvgPool2d(stride), ConvNorm(in_channels, channels, 1, relu=False))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) → (B, C, H / stride, W / stride)."""
        return F.relu(self.conv2(self.conv1(x)) + self.shortcut(x), inplace=True)


class ResNet(nn.Module):
    """A residual network for word crops: height shrinks faster than width, since text is read along the width.

    Args:
        stem: channels of the two stem convolutions.
        stem_strides: their strides.
        stages: channels of each residual stage.
        blocks: residual blocks of each stage.
        strides: (vertical, horizontal) stride of each stage's first block.
        pyramid: enlarge the last stage's map to the size of the one before and add that, by a 1×1 convolution
            (arXiv 1612.03144): the last stage's channels at the finer stride.
    """

    def __init__(
        self,
        stem: tuple[int, int],
        stem_strides: tuple[int, int],
        stages: tuple[int, ...],
        blocks: tuple[int, ...],
        strides: tuple[tuple[int, int], ...],
        pyramid: bool = False,
    ) -> None:
        super().__init__()
        if not len(stages) == len(blocks) == len(strides):
            raise ValueError(
                f"stages, blocks and strides must have one entry a stage, got {stages}, {blocks}, {strides}"
            )
        self.stem = nn.Sequential(
            ConvNorm(3, stem[0], stride=stem_strides[0]), ConvNorm(stem[0], stem[1], stride=stem_strides[1])
        )
        layers: list[nn.Module] = []
        channels = stem[1]
        for width, count, stride in zip(stages, blocks, strides, strict=True):
            for index in range(count):
                layers.append(BasicBlock(channels, width, stride if index == 0 else 1))
                channels = width
        self.stages = nn.Sequential(*layers)
        self.out_channels = channels
        self.lateral: ConvNorm | None = None
        if pyramid:
            if len(stages) < 2:
                raise ValueError("a pyramid needs two stages at least")
            self.lateral = ConvNorm(stages[-2], channels, 1, relu=False)
        self._frozen: list[nn.Module] = []
        self._blocks = blocks
        self._enlarge = strides[-1]
        self._last_stage = sum(blocks[:-1])
        kept = strides[:-1] if pyramid else strides
        self.stride = (
            math.prod(stem_strides) * math.prod(s[0] for s in kept),
            math.prod(stem_strides) * math.prod(s[1] for s in kept),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def freeze(self, stages: int) -> None:
        """Let the stem and the first `stages` stages learn no more: weights and batch statistics stay as they are.

        First filters are the ones that training settles first; without gradients for them a step takes less time.

        Args:
            stages: 0 freezes the stem alone.
        """
        self._frozen = [self.stem, *list(self.stages)[: sum(self._blocks[:stages])]]
        for module in self._frozen:
            module.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> ResNet:
        """As every module, but what is frozen stays in evaluation mode."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in, unless autocast says otherwise."""
        return next(self.parameters()).dtype

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, out_channels, H / stride[0], W / stride[1])."""
        features: Tensor = self.stem(images)
        finer = features
        for index, block in enumerate(self.stages):
            if index == self._last_stage:
                finer = features
            features = block(features)
        if self.lateral is None:
            return features
        rows, columns = self._enlarge
        return self.lateral(finer) + F.interpolate(features, scale_factor=(float(rows), float(columns)))


def fold_batch_norms(model: nn.Module) -> nn.Module:
    """A copy of `model`, in evaluation mode, with every ConvNorm's batch norm folded into its convolution."""
    model = copy.deepcopy(model).eval()
    for module in model.modules():
        if isinstance(module, ConvNorm):
            convolution, norm = module[0], module[1]
            assert isinstance(convolution, nn.Conv2d)
            assert isinstance(norm, nn.BatchNorm2d)
            module[0] = fuse_conv_bn_eval(convolution, norm)
            module[1] = nn.Identity()
    return model
