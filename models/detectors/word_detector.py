"""A network that finds words: a residual pyramid, a map of the words' cores, and maps of their edges and direction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from str_app.models.backbones.conv_norm import ConvNorm
from str_app.models.backbones.resnet import BasicBlock
from str_app.models.detectors.word_maps import CORE_STRIDE, EDGE_STRIDE


class WordMaps(NamedTuple):
    """What the network says of B pictures.

    Attributes:
        cores: (B, 1, H / 2, W / 2), logit of being in the core of a word: its quad, shrunk by `word_maps.INSET`.
        edges: (B, 4, H / 4, W / 4): logarithms of the distances to the upper and the lower edge of the word, measured
            across its direction in units of `word_maps.DISTANCE_UNIT`; cosine and sine of the direction.
    """

    cores: Tensor
    edges: Tensor


@dataclass(frozen=True)
class WordDetectorConfig:
    """Settings of `WordDetector`.

    Attributes:
        stem: channels of the two stem convolutions, which halve the picture twice.
        stages: channels of the residual stages at strides 4, 8, 16 and 32.
        blocks: residual blocks of each stage.
        pyramid: channels of the feature pyramid and the head.
    """

    stem: tuple[int, int] = (24, 40)
    stages: tuple[int, int, int, int] = (40, 80, 128, 192)
    blocks: tuple[int, int, int, int] = (1, 2, 2, 2)
    pyramid: int = 48


class WordDetector(nn.Module):
    """ResNet (arXiv 1512.03385) and feature pyramid (arXiv 1612.03144) with a head of two maps.

    Cores are shrunk quads as in DB (arXiv 1911.08947): neighbouring words come apart because what lies between two
    cores is wider than what lies between the words. The edges of a word are read from distances, as in EAST (arXiv
    1704.03155), but only across the word, where they are near: the ends come from the core.
    """

    def __init__(self, config: WordDetectorConfig = WordDetectorConfig()) -> None:
        super().__init__()
        self.config = config
        self.stem = nn.Sequential(
            ConvNorm(3, config.stem[0], stride=2),
            ConvNorm(config.stem[0], config.stem[1], stride=2),
        )
        stages = []
        channels = config.stem[1]
        for i, (width, count) in enumerate(zip(config.stages, config.blocks, strict=True)):
            layers = []
            for k in range(count):
                layers.append(BasicBlock(channels, width, 2 if i and not k else 1))
                channels = width
            stages.append(nn.Sequential(*layers))
        self.stages = nn.ModuleList(stages)
        self.laterals = nn.ModuleList(ConvNorm(width, config.pyramid, 1, relu=False) for width in config.stages)
        self.merges = nn.ModuleList(ConvNorm(config.pyramid, config.pyramid) for _ in config.stages)
        self.head = ConvNorm(config.pyramid, config.pyramid)
        self.cores = nn.Conv2d(config.pyramid, (EDGE_STRIDE // CORE_STRIDE) ** 2, 1)
        self.edges = nn.Conv2d(config.pyramid, 4, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.constant_(self.cores.bias, -2.0)  # type: ignore[arg-type]  # most of a picture is no word
        for classifier in (self.cores, self.edges):
            nn.init.normal_(classifier.weight, std=0.01)

    def forward(self, pictures: Tensor) -> WordMaps:
        """Pictures (B, 3, H, W), RGB, 0 to 255, H and W multiples of `word_maps.MULTIPLE`."""
        x = self.stem((pictures - 127.5) / 64)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        merged = self.merges[-1](self.laterals[-1](features[-1]))
        for i in range(len(features) - 2, -1, -1):
            merged = F.interpolate(merged, scale_factor=2.0, mode="nearest")
            merged = self.merges[i](merged + self.laterals[i](features[i]))
        merged = self.head(merged)
        return WordMaps(F.pixel_shuffle(self.cores(merged), EDGE_STRIDE // CORE_STRIDE), self.edges(merged))

    @property
    def num_parameters(self) -> int:
        """Number of weights."""
        return sum(parameter.numel() for parameter in self.parameters())


class ExportedDetector(nn.Module):
    """The network as it is exported: pictures as they are in memory in, scores instead of logits out."""

    def __init__(self, detector: WordDetector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 (B, H, W, 3), RGB → scores (B, H / 2, W / 2) in [0, 1], and `WordMaps.edges`."""
        maps = self.detector(pictures.permute(0, 3, 1, 2).float())
        return torch.sigmoid(maps.cores[:, 0]), maps.edges
