"""Calibrated log-probabilities from an engine's logits."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from str_app.engines.base import Engine, Memory, State
from str_app.models.charset import Charset
from str_app.models.preprocessing import Preprocessing

Array = npt.NDArray[np.float32]


class ScoredStep(NamedTuple):
    """As `str_app.engines.base.Step`, with log-probabilities float32 (R, V) instead of logits."""

    log_probs: Array
    state: State
    attention: Array


class ScoredGreedy(NamedTuple):
    """As `str_app.engines.base.GreedySteps`, with log-probabilities float32 (B, T, V) instead of logits."""

    log_probs: Array
    attention: Array


class Scorer:
    """What decoding knows of a network: an engine whose scores are calibrated log-probabilities.

    Args:
        engine: runs the network.
        temperature: divides its logits; by default that of the engine's `info`, or 1 (arXiv 1706.04599).
    """

    def __init__(self, engine: Engine, temperature: float | None = None) -> None:
        self.engine = engine
        self.temperature = float(engine.info.get("temperature", 1.0)) if temperature is None else temperature

    @property
    def charset(self) -> Charset:
        """See `Engine.charset`."""
        return self.engine.charset

    @property
    def preprocessing(self) -> Preprocessing:
        """See `Engine.preprocessing`."""
        return self.engine.preprocessing

    @property
    def max_length(self) -> int:
        """See `Engine.max_length`."""
        return self.engine.max_length

    def encode(self, canvases: npt.NDArray[np.uint8], widths: npt.NDArray[np.int64]) -> tuple[Memory, State]:
        """See `Engine.encode`."""
        return self.engine.encode(canvases, widths)

    def step(
        self,
        memory: Memory,
        state: State,
        tokens: npt.NDArray[np.int64],
        crops: npt.NDArray[np.int64],
        parents: npt.NDArray[np.int64],
    ) -> ScoredStep:
        """See `Engine.step`."""
        step = self.engine.step(memory, state, tokens, crops, parents)
        return ScoredStep(log_softmax(step.logits, self.temperature), step.state, step.attention)

    def decode_greedy(self, memory: Memory, state: State) -> ScoredGreedy:
        """See `Engine.decode_greedy`."""
        steps = self.engine.decode_greedy(memory, state)
        return ScoredGreedy(log_softmax(steps.logits, self.temperature), steps.attention)


def log_softmax(logits: Array, temperature: float = 1.0) -> Array:
    """Log-probabilities over the last axis of `logits / temperature`."""
    scaled = logits / np.float32(temperature)
    scaled -= scaled.max(axis=-1, keepdims=True)
    scaled -= np.log(np.exp(scaled).sum(axis=-1, keepdims=True))
    return scaled


def other_case_log_probs(log_probs: Array, tokens: npt.NDArray[np.int64], other_case: npt.NDArray[np.int64]) -> Array:
    """Log-probabilities of the same letters in their other case; -inf where there is none.

    Args:
        log_probs: (..., V).
        tokens: (..., k), classes of each distribution.
        other_case: (V,), `Charset.other_case`.

    Returns:
        (..., k).
    """
    other = other_case[tokens]
    return np.where(other == tokens, -np.inf, np.take_along_axis(log_probs, other, axis=-1))
