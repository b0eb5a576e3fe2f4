"""Convolution followed by batch norm, and folding the two into one for inference."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from str_app.models.kernels.convolution import Convolution

Model = TypeVar("Model", bound=nn.Module)


class ConvNorm(nn.Sequential):
    """Convolution without bias, batch norm and, by default, ReLU."""

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


def fold_batch_norms(model: Model) -> Model:
    """A copy of `model` to read with, whose every `ConvNorm` has its batch norm folded into the convolution.

    It is in evaluation mode and not to be trained, so that transformed weights are kept (`Convolution`).
    """
    model = copy.deepcopy(model).eval()
    for module in model.modules():
        if isinstance(module, ConvNorm):
            convolution, norm = module[0], module[1]
            assert isinstance(convolution, nn.Conv2d)
            assert isinstance(norm, nn.BatchNorm2d)
            module[0] = fuse_conv_bn_eval(convolution, norm)
            module[1] = nn.Identity()
    return model.requires_grad_(False)
