"""Additive attention over a feature map."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from str_app.models.decoders.base import Memory


class AdditiveAttention(nn.Module):
    """score = vᵀ tanh(keys + W h), with the keys projected once per crop, not once per step (arXiv 1409.0473).

    A learned position embedding is added to the keys: the values alone do not distinguish the first E of a word from
    the second.

    Args:
        channels: C of the values.
        hidden_size: H, size of the decoder's hidden state.
        attention_size: A, size of keys and queries.
        grid: (H', W') of the feature map of the widest canvas.
    """

    def __init__(self, channels: int, hidden_size: int, attention_size: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.key = nn.Linear(channels, attention_size)
        self.query = nn.Linear(hidden_size, attention_size, bias=False)
        self.score = nn.Linear(attention_size, 1, bias=False)
        self.position = nn.Parameter(torch.randn(*grid, attention_size) * 0.1)

    def project_keys(self, values: Tensor) -> Tensor:
        """(B, N, C) → (B, N, A); N is H' times the columns of this feature map."""
        keys: Tensor = self.key(values) + self.positions(values.shape[1])
        return keys

    def positions(self, count: int) -> Tensor:
        """Embeddings (count, A) of the `count` positions of a feature map of H' rows."""
        return self.position[:, : count // self.position.shape[0]].flatten(0, 1)

    def forward(self, memory: Memory, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Glimpse (B, C) and weights (B, N) for the state `hidden` (B, H); padding gets weight 0."""
        sums = memory.keys + self.query(hidden).unsqueeze(1)
        if torch.compiler.is_exporting():
            scores = self.score(torch.tanh(sums)).squeeze(-1)
        else:
            # vᵀ tanh(s) = 2 vᵀ σ(2 s) − Σ v, and softmax ignores the constant; torch's sigmoid is 10× faster than tanh.
            scores = 2 * self.score(torch.sigmoid(2 * sums)).squeeze(-1)
        weights = scores.masked_fill(memory.padding, -torch.inf).softmax(dim=-1)
        glimpse = torch.bmm(weights.unsqueeze(1), memory.values).squeeze(1)
        return glimpse, weights
