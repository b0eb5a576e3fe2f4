"""A small network that tells the words of a line from the gaps between them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from str_app.models.detectors.gap_columns import STRIDE


class WordGapNetwork(nn.Module):
    """For every column of a line, whether it lies within a word, and how high the word is there.

    Convolutions take the height down to one; dilated ones see the spacing of some four heights to either side, and the
    line's mean tells how it is spaced on the whole, for S A L E is one word.
    """

    def __init__(self) -> None:
        super().__init__()
        channels = 64  # of the context layers

        def conv(inputs: int, outputs: int, stride: tuple[int, int]) -> nn.Sequential:
            layers = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
            return nn.Sequential(*layers)

        self.stem = nn.Sequential(
            conv(3, 16, (2, STRIDE)), conv(16, 32, (2, 1)), conv(32, 48, (2, 1)), conv(48, 64, (2, 1))
        )
        self.flatten = nn.Sequential(nn.Conv2d(64, channels, (2, 1), bias=False), nn.BatchNorm2d(channels), nn.ReLU())
        self.context = nn.ModuleList(
            nn.Sequential(
                nn.Conv1d(2 * channels, channels, 3, padding=dilation, dilation=dilation, bias=False),
                nn.BatchNorm1d(channels),
                nn.ReLU(),
            )
            for dilation in (1, 2, 4, 8, 16, 1)
        )
        self.head = nn.Conv1d(channels, 3, 1)

    def forward(self, lines: Tensor, widths: Tensor | None = None) -> Tensor:
        """float (B, 3, W / STRIDE): logit of lying within a word; its top and bottom there, as shares of the height.

        Args:
            lines: float (B, 3, HEIGHT, W), −1 to 1, W a multiple of STRIDE.
            widths: int (B,), pixels of each line that are not padding; None: all.
        """
        columns = self.flatten(self.stem(lines)).squeeze(2)  # (B, C, W / STRIDE)
        inside = columns.new_ones(columns.shape[0], 1, columns.shape[2])
        if widths is not None:
            places = torch.arange(columns.shape[2], device=columns.device)
            inside = (places < (widths[:, None, None] / STRIDE)).to(columns.dtype)
        for layer in self.context:
            mean = (columns * inside).sum(2, keepdim=True) / inside.sum(2, keepdim=True)
            columns = columns + layer(torch.cat([columns * inside, mean.expand_as(columns)], dim=1))
        outputs: Tensor = self.head(columns)
        return outputs
