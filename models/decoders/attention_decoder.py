"""The attention decoder: one refined-LSTM step per character."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from str_app.models.decoders.attention import AdditiveAttention
from str_app.models.decoders.base import Decoder, Memory, State
from str_app.models.decoders.teacher_forcing import TeacherForcing, pack, unpack
from str_app.models.gates.cells import RefinedLSTMCell
from str_app.models.gates.gate import Activation, FeatureMap, Refine
from str_app.models.kernels.dispatch import can_take, is_traced


@dataclass(frozen=True)
class AttentionDecoderConfig:
    """Settings of `AttentionDecoder`.

    Attributes:
        name: selects this decoder.
        hidden_size: H of the cell.
        attention_size: A, size of attention keys and queries.
        embedding_size: of the previous character.
        dropout: on the classifier's input, while training.
        positional_glimpse: append to each glimpse the attention-weighted mean of the position embeddings. Without it
            the decoder knows only from the characters read so far where in the crop it is.
        refine, gates, feature, activation: the refined gates of the cell, see `str_app.models.gates.gate.RefinedGate`.

    Raises:
        ValueError: dropout outside [0, 1).
    """

    name: Literal["attention"] = "attention"
    hidden_size: int = 256
    attention_size: int = 128
    embedding_size: int = 64
    dropout: float = 0.1
    positional_glimpse: bool = False
    refine: Refine = "mul"
    gates: tuple[str, ...] = ("input", "output")
    feature: FeatureMap = "linear"
    activation: Activation = "tanh"

    def __post_init__(self) -> None:
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}: it must be at least 0 and below 1")

    def build(self, channels: int, grid: tuple[int, int], num_classes: int) -> AttentionDecoder:
        """See `DecoderConfig`."""
        return AttentionDecoder(self, channels, grid, num_classes)


class AttentionDecoder(Decoder):
    """Additive attention and a refined LSTM cell.

    Step t: attend with h_{t-1}, feed [embedding of the previous character; glimpse] to the cell, classify
    [h_t; glimpse].

    Args:
        config: sizes and choices.
        channels, grid, num_classes: see `DecoderConfig.build`.
    """

    def __init__(self, config: AttentionDecoderConfig, channels: int, grid: tuple[int, int], num_classes: int) -> None:
        super().__init__()
        self.config = config
        glimpse_size = channels + config.attention_size if config.positional_glimpse else channels
        self.attention = AdditiveAttention(channels, config.hidden_size, config.attention_size, grid)
        self.embedding = nn.Embedding(num_classes, config.embedding_size)
        self.cell = RefinedLSTMCell(
            config.embedding_size + glimpse_size,
            config.hidden_size,
            refine=config.refine,
            gates=tuple(config.gates),
            feature=config.feature,
            activation=config.activation,
        )
        self.classifier = nn.Linear(config.hidden_size + glimpse_size, num_classes)

    def build_memory(self, values: Tensor, padding: Tensor) -> Memory:
        """See `Decoder`. With `positional_glimpse`, the values hold the position embeddings as well."""
        keys = self.attention.project_keys(values)
        if self.config.positional_glimpse:
            positions = self.attention.positions(values.shape[1])
            values = torch.cat([values, positions.to(values.dtype).expand(values.shape[0], -1, -1)], dim=-1)
        return Memory(values, keys, padding)

    def initial_state(self, memory: Memory) -> State:
        """Zeros: (h, c), each (B, H)."""
        zeros = memory.values.new_zeros(memory.values.shape[0], self.config.hidden_size)
        return zeros, zeros

    def step(self, memory: Memory, state: State, tokens: Tensor) -> tuple[Tensor, State, Tensor]:
        """See `Decoder`."""
        state, glimpse, weights = self._advance(memory, state, self.embedding(tokens))
        return self.classifier(torch.cat([state[0], glimpse], dim=-1)), state, weights

    def forward(self, memory: Memory, targets: Tensor) -> tuple[Tensor, Tensor]:
        """See `Decoder`. Embedding and classifier run once over all steps."""
        embedded = self.embedding(F.pad(targets[:, :-1], (1, 0)))
        if self._takes_one_pass(memory):
            return self._one_pass(memory, targets, embedded)
        state = self.initial_state(memory)
        outputs, attention = [], []
        for t in range(targets.shape[1]):
            state, glimpse, weights = self._advance(memory, state, embedded[:, t])
            outputs.append(torch.cat([state[0], glimpse], dim=-1))
            attention.append(weights)
        return self._classify(torch.stack(outputs, dim=1)), torch.stack(attention, dim=1)

    def _takes_one_pass(self, memory: Memory) -> bool:
        """Whether `TeacherForcing` knows this cell's equations and can take the tensors; it is for CPUs."""
        gate = self.cell.gate
        known = gate.has_weight and gate.activation == "tanh" and gate.has_kernels and len(memory.values) > 0
        tensors = memory.values, memory.keys, *self.parameters()
        return known and not is_traced() and can_take("cpu", (torch.float32, torch.float64), tensors)

    def _one_pass(self, memory: Memory, targets: Tensor, embedded: Tensor) -> tuple[Tensor, Tensor]:
        order, sizes = pack((targets != 0).sum(dim=1).add(1).clamp_max(targets.shape[1]))
        attention, cell = self.attention, self.cell
        assert cell.weight_feature is not None
        outputs, weights = TeacherForcing.apply(
            *(cell.gate, sizes, *(tensor[order] for tensor in (*memory, embedded))),
            *(attention.query.weight, attention.score.weight.squeeze(0)),
            *(cell.weight_ih, cell.weight_hh, cell.bias_ih + cell.bias_hh, cell.weight_feature),
        )
        steps = targets.shape[1]
        return unpack(self._classify(outputs), order, sizes, steps), unpack(weights, order, sizes, steps)

    def _classify(self, outputs: Tensor) -> Tensor:
        logits: Tensor = self.classifier(F.dropout(outputs, self.config.dropout, training=self.training))
        return logits

    def _advance(self, memory: Memory, state: State, embedded: Tensor) -> tuple[State, Tensor, Tensor]:
        glimpse, weights = self.attention(memory, state[0])
        return self.cell(torch.cat([embedded, glimpse], dim=-1), state), glimpse, weights
