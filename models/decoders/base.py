"""What the recogniser, training and the engines need of a decoder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

State = tuple[Tensor, Tensor]
"""What a decoder carries from step to step: two tensors with one row per sequence; (h, c) of an LSTM, for example."""


class Memory(NamedTuple):
    """What the steps of a decoder look at; computed once per crop.

    Attributes:
        values: (B, N, C), one vector per position of the feature map, row by row.
        keys: (B, N, A), attention keys of the positions.
        padding: bool (B, N), True where a position lies in the padding of the canvas.
    """

    values: Tensor
    keys: Tensor
    padding: Tensor


class Decoder(nn.Module, ABC):
    """Predicts one character per step from the feature map and the previous character."""

    @abstractmethod
    def build_memory(self, values: Tensor, padding: Tensor) -> Memory:
        """Positions of the feature map (B, N, C) and which are padding (B, N) → memory."""

    @abstractmethod
    def initial_state(self, memory: Memory) -> State:
        """State before the first step."""

    @abstractmethod
    def step(self, memory: Memory, state: State, tokens: Tensor) -> tuple[Tensor, State, Tensor]:
        """One character for every sequence.

        Args:
            memory: from `build_memory`.
            state: from `initial_state` or the previous step.
            tokens: int64 (B,), previous characters; 0 before the first.

        Returns:
            Logits (B, num_classes), the next state, attention weights (B, N).
        """

    def forward(self, memory: Memory, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Teacher forcing, here by calling `step`; override it where that saves time.

        Args:
            memory: from `build_memory`.
            targets: int64 (B, T), character indices, 0 from the end token on.

        Returns:
            Logits (B, T, num_classes) and attention weights (B, T, N). After the step of a label's end token they have
            no meaning: a decoder need not compute them.
        """
        state = self.initial_state(memory)
        logits, attention = [], []
        for tokens in F.pad(targets[:, :-1], (1, 0)).unbind(dim=1):
            step_logits, state, weights = self.step(memory, state, tokens)
            logits.append(step_logits)
            attention.append(weights)
        return torch.stack(logits, dim=1), torch.stack(attention, dim=1)


class DecoderConfig(Protocol):
    """Settings of a decoder: a frozen dataclass whose first field is `name: Literal["…"] = "…"`."""

    @property
    def name(self) -> str:
        """Key of the class in `str_app.models.decoders.DECODERS`."""

    def build(self, channels: int, grid: tuple[int, int], num_classes: int) -> Decoder:
        """A decoder with fresh weights.

        Args:
            channels: C of the feature map.
            grid: (H', W') of the feature map of the widest canvas.
            num_classes: characters plus the end token (index 0, also fed before the first character).
        """
