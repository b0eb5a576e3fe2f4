"""Calibrated log-probabilities from an engine's logits."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from str_app.engines.base import Engine, Memory, State, step_greedily
from str_app.models.charset import Charset
from str_app.models.preprocessing import Preprocessing

Array = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


class ScoredStep(NamedTuple):
    """As `str_app.engines.base.Step`, with log-probabilities float32 (R, V) instead of logits."""

    log_probs: Array
    state: State
    attention: Array


class ScoredGreedy(NamedTuple):
    """As `str_app.engines.base.GreedySteps`, with log-probabilities float32 (B, T, V) instead of logits."""

    log_probs: Array
    attention: Array


class ScoredMemory(NamedTuple):
    """What the engine keeps of B crops.

    Attributes:
        memory: the engine's.
        allowed: bool (B, V), the classes that the text of each crop may have; None: all.
    """

    memory: Memory
    allowed: Mask | None


class Scorer:
    """What decoding knows of a network: an engine whose scores are calibrated log-probabilities.

    Args:
        engine: runs the network. Its logits are divided by the temperature of its `info`, or 1 (arXiv 1706.04599).
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.temperature = float(engine.info.get("temperature", 1.0))
        self._other_case = np.array(engine.charset.other_case)

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

    def encode(
        self, canvases: npt.NDArray[np.uint8], widths: npt.NDArray[np.int64], allowed: Mask | None = None
    ) -> tuple[ScoredMemory, State]:
        """See `Engine.encode` and `ScoredMemory`."""
        memory, state = self.engine.encode(canvases, widths)
        return ScoredMemory(memory, allowed), state

    def step(
        self,
        memory: ScoredMemory,
        state: State,
        tokens: npt.NDArray[np.int64],
        crops: npt.NDArray[np.int64],
        parents: npt.NDArray[np.int64],
    ) -> ScoredStep:
        """See `Engine.step`; classes that a crop's text may not have get -inf."""
        step = self.engine.step(memory.memory, state, tokens, crops, parents)
        log_probs = log_softmax(step.logits, self.temperature)
        if memory.allowed is not None:
            log_probs = restrict(log_probs, memory.allowed[crops], self._other_case)
        return ScoredStep(log_probs, step.state, step.attention)

    def decode_greedy(self, memory: ScoredMemory, state: State) -> ScoredGreedy:
        """See `Engine.decode_greedy`."""
        if memory.allowed is None:
            steps = self.engine.decode_greedy(memory.memory, state)
            return ScoredGreedy(log_softmax(steps.logits, self.temperature), steps.attention)
        rows = np.arange(len(memory.allowed))
        step = partial(self.step, memory, crops=rows, parents=rows)
        return ScoredGreedy(*step_greedily(step, state, len(rows), self.max_length))


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


def restrict(log_probs: Array, allowed: Mask, other_case: npt.NDArray[np.int64]) -> Array:
    """The distribution given that only allowed classes may follow.

    Where a letter is allowed in one case only, what the network gives the other case is its own: in a picture the cases
    of many letters look the same.

    Args:
        log_probs: (..., V).
        allowed: bool (..., V), of each distribution.
        other_case: (V,), `Charset.other_case`.
    """
    takes_other = allowed & ~allowed[..., other_case]
    either = np.where(takes_other, np.logaddexp(log_probs, log_probs[..., other_case]), log_probs)
    restricted = np.where(allowed, either, -np.inf)
    restricted = restricted - np.logaddexp.reduce(restricted, axis=-1, keepdims=True)
    # Dividing by a sum that is 1 changes the last digits, and readings must not depend on what is in the batch.
    return np.where(allowed.all(axis=-1, keepdims=True), log_probs, restricted)
