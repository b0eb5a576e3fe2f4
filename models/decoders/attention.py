"""Additive attention over a feature map."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Memory(NamedTuple):
    """What the encoder hands to the decoder; computed once for each crop.

    Attributes:
        values: (B, N, C), the feature map's positions, row by row, and their embeddings if glimpses are located.
        keys: (B, N, A), their attention keys.
        padding: bool (B, N), True where a position lies in the canvas's padding.
    """

    values: Tensor
    keys: Tensor
    padding: Tensor


class AdditiveAttention(nn.Module):
    """score = vᵀ tanh(keys + W h), with the keys projected once for a crop, not once a step (arXiv 1409.0473).

    A learned position embedding is added to the keys: the values alone do not tell the first E from the second.

    Args:
        channels: C of the values.
        hidden_size: size of the decoder state that asks.
        attention_size: A, size of keys and query.
        grid: (H', W') of the widest feature map.
    """

    def __init__(self, channels: int, hidden_size: int, attention_size: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.key = nn.Linear(channels, attention_size)
        self.query = nn.Linear(hidden_size, attention_size, bias=False)
        self.score = nn.Linear(attention_size, 1, bias=False)
        self.position = nn.Parameter(torch.randn(*grid, attention_size) * 0.1)

    def project_keys(self, values: Tensor) -> Tensor:
        """(B, N, C) → (B, N, A); N is the rows of the grid times the columns of this feature map."""
        keys: Tensor = self.key(values) + self.positions(values.shape[1])
        return keys

    def positions(self, count: int) -> Tensor:
        """Embeddings of the `count` positions of a feature map that has all rows of the grid, (count, A)."""
        return self.position[:, : count // self.position.shape[0]].flatten(0, 1)

    def forward(self, memory: Memory, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Glimpse (B, C) and weights (B, N) for the state `hidden` (B, H); padding gets weight 0."""
        # vᵀ tanh(s) = 2 vᵀ σ(2 s) − Σ v, and softmax ignores the constant: on CPUs torch's σ takes a tenth of its tanh.
        scores = 2 * self.score(torch.sigmoid(2 * (memory.keys + self.query(hidden).unsqueeze(1)))).squeeze(-1)
        weights = scores.masked_fill(memory.padding, -torch.inf).softmax(dim=-1)
        glimpse = torch.bmm(weights.unsqueeze(1), memory.values).squeeze(1)
        return glimpse, weights
