"""The attention decoder: one refined-LSTM step a character."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from str_app.models.decoders.attention import AdditiveAttention, Memory
from str_app.models.gates.cells import RefinedLSTMCell
from str_app.models.gates.gate import RefinedGate

State = tuple[Tensor, Tensor]  # (h, c), each (B, H)


class AttentionDecoder(nn.Module):
    """Looks at the feature map, reads one character, remembers; until it reads the end token.

    Step t: attend with h_{t-1}, feed [embedding of the previous character; glimpse] to the cell, classify
    [h_t; glimpse].

    Args:
        channels: C of the feature map.
        grid: (H', W') of the feature map.
        num_classes: characters plus the end token (index 0, also fed before the first character).
        hidden_size: H of the cell.
        attention_size: size of keys and query.
        embedding_size: size of a character's embedding.
        dropout: on the classifier's input, training only.
        gate: refined-gate choices.
        locate: whether a glimpse also holds where it was taken, the attention's mean of position embeddings. Without,
            the decoder reckons where it is by the letters it has seen.
    """

    def __init__(
        self,
        channels: int,
        grid: tuple[int, int],
        num_classes: int,
        hidden_size: int,
        attention_size: int,
        embedding_size: int,
        dropout: float,
        gate: RefinedGate,
        locate: bool = False,
    ) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.locate = locate
        glimpse_size = channels + attention_size if locate else channels
        self.attention = AdditiveAttention(channels, hidden_size, attention_size, grid)
        self.embedding = nn.Embedding(num_classes, embedding_size)
        self.cell = RefinedLSTMCell(
            embedding_size + glimpse_size,
            hidden_size,
            refine=gate.refine,
            gates=gate.gates,
            feature=gate.feature,
            activation=gate.activation,
        )
        self.dropout = dropout
        self.classifier = nn.Linear(hidden_size + glimpse_size, num_classes)

    def remember(self, values: Tensor, padding: Tensor) -> Memory:
        """The feature map's positions (B, N, C) and which of them are padding (B, N) → what the steps look at."""
        keys = self.attention.project_keys(values)
        if self.locate:
            places = self.attention.positions(values.shape[1])
            values = torch.cat([values, places.to(values.dtype).expand(values.shape[0], -1, -1)], dim=-1)
        return Memory(values, keys, padding)

    def initial_state(self, memory: Memory) -> State:
        """Zeros, (B, H) each."""
        zeros = memory.values.new_zeros(memory.values.shape[0], self.hidden_size)
        return zeros, zeros

    def step(self, memory: Memory, state: State, tokens: Tensor) -> tuple[Tensor, State, Tensor]:
        """One character for every sequence.

        Args:
            memory: from the encoder.
            state: from `initial_state` or the previous step.
            tokens: int64 (B,), previous characters; 0 before the first.

        Returns:
            Logits (B, num_classes), the next state, attention weights (B, N).
        """
        state, glimpse, weights = self._advance(memory, state, self.embedding(tokens))
        return self.classifier(torch.cat([state[0], glimpse], dim=-1)), state, weights

    def forward(self, memory: Memory, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Teacher forcing.

        Args:
            memory: from the encoder.
            targets: int64 (B, T), character indices, 0 from the end token on.

        Returns:
            Logits (B, T, num_classes) and attention weights (B, T, N).
        """
        previous = F.pad(targets[:, :-1], (1, 0))
        embedded = self.embedding(previous)
        state = self.initial_state(memory)
        outputs, attention = [], []
        for t in range(targets.shape[1]):
            state, glimpse, weights = self._advance(memory, state, embedded[:, t])
            outputs.append(torch.cat([state[0], glimpse], dim=-1))
            attention.append(weights)
        hidden = F.dropout(torch.stack(outputs, dim=1), self.dropout, training=self.training)
        return self.classifier(hidden), torch.stack(attention, dim=1)

    def _advance(self, memory: Memory, state: State, embedded: Tensor) -> tuple[State, Tensor, Tensor]:
        glimpse, weights = self.attention(memory, state[0])
        return self.cell(torch.cat([embedded, glimpse], dim=-1), state), glimpse, weights
