"""What the recogniser, training and the engines need of a backbone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

import torch
from torch import Tensor, nn


class Backbone(nn.Module, ABC):
    """A convolutional network: normalised crops in, a feature map out.

    A subclass sets the two attributes in `__init__` and defines `forward` and `first_stages`.

    Attributes:
        out_channels: C of the feature map.
        stride: canvas pixels per feature-map cell, (vertical, horizontal).
    """

    out_channels: int
    stride: tuple[int, int]

    def __init__(self) -> None:
        super().__init__()
        self._frozen: list[nn.Module] = []

    @property
    def coarsest_stride(self) -> tuple[int, int]:
        """The largest stride of any of its maps; canvases are multiples of it."""
        return self.stride

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, out_channels, H / stride[0], W / stride[1])."""

    @abstractmethod
    def first_stages(self, count: int) -> list[nn.Module]:
        """Modules that run before the end of stage `count`; with 0, those before the first stage."""

    def freeze(self, stages: int) -> None:
        """Stop training the first `stages` stages and what precedes them: weights and batch statistics stay fixed.

        The first filters settle first, and a step without gradients for them takes less time.

        Args:
            stages: 0 freezes only what precedes the first stage.
        """
        self._frozen = self.first_stages(stages)
        for module in self._frozen:
            module.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Backbone:
        """As `nn.Module.train`, except that frozen modules stay in evaluation mode."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    @property
    def dtype(self) -> torch.dtype:
        """Data type of the weights."""
        return next(self.parameters()).dtype


class BackboneConfig(Protocol):
    """Settings of a backbone: a frozen dataclass whose first field is `name: Literal["…"] = "…"`."""

    @property
    def name(self) -> str:
        """Key of the class in `str_app.models.backbones.BACKBONES`."""

    @property
    def num_stages(self) -> int:
        """Largest argument of `Backbone.freeze`."""

    def build(self) -> Backbone:
        """A backbone with fresh weights."""
