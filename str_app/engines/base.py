"""The boundary below decoding: whatever runs the network looks like this. NumPy in, NumPy out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from str_app.models.charset import Charset
from str_app.models.preprocessing import Preprocessing

Memory = Any  # what `encode` hands to `step` and `decode_greedy`; opaque outside of the engine
State = Any  # the decoder's recurrent state; opaque outside of the engine


class Step(NamedTuple):
    """One decoding step of R prefixes.

    Attributes:
        logits: float32 (R, charset.num_classes); class 0 is the end token.
        state: for the next `step`.
        attention: float32 (R, H', W'), non-negative, sums to 1 over the feature map; H' is 1 for 1-D attention.
    """

    logits: npt.NDArray[np.float32]
    state: State
    attention: npt.NDArray[np.float32]


class GreedySteps(NamedTuple):
    """All T steps of greedy decoding of B crops: as many as the longest reading has characters, and one for its end.

    Attributes:
        logits: float32 (B, T, charset.num_classes), as of `Step`.
        attention: float32 (B, T, H', W'), as of `Step`.
    """

    logits: npt.NDArray[np.float32]
    attention: npt.NDArray[np.float32]


def step_greedily(
    step: Callable[[State, npt.NDArray[np.int64]], tuple[npt.NDArray[np.float32], State, npt.NDArray[np.float32]]],
    state: State,
    count: int,
    max_length: int,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Feed each step the likeliest class of the one before until every sequence has ended; see `Engine.decode_greedy`.

    Args:
        step: state and last classes int64 (B,) → scores (B, V), next state, attention (B, H', W').
        state: before the first step.
        count: B.
        max_length: most characters.

    Returns:
        Scores (B, T, V) and attention (B, T, H', W').
    """
    tokens, ended = np.zeros(count, np.int64), np.zeros(count, np.bool_)
    scores: list[npt.NDArray[np.float32]] = []
    attention: list[npt.NDArray[np.float32]] = []
    while len(scores) <= max_length and not ended.all():
        of_step, state, maps = step(state, tokens)
        scores.append(of_step)
        attention.append(maps)
        tokens = of_step.argmax(axis=1)
        ended |= tokens == Charset.END
    return np.stack(scores, axis=1), np.stack(attention, axis=1)


class Engine(Protocol):
    """Runs the encoder once a crop and the decoder step by step. Thread-safe: no call changes the engine.

    Attributes:
        name: of the model.
        charset: its classes.
        preprocessing: the canvases it takes.
        max_length: most characters of one reading.
        info: the checkpoint's metadata; empty if there is none. `temperature` in it calibrates the logits, which the
            engine leaves as they are: see `str_app.decoding.scoring.Scorer`.
        caches_shapes: whether the first batch of every shape takes longer than later ones.
    """

    name: str
    charset: Charset
    preprocessing: Preprocessing
    max_length: int
    info: Mapping[str, Any]
    caches_shapes: bool

    def encode(self, canvases: npt.NDArray[np.uint8], widths: npt.NDArray[np.int64]) -> tuple[Memory, State]:
        """Encode a batch.

        Args:
            canvases: uint8 (B, height, W, 3), RGB, of one width, as `Preprocessing` makes them.
            widths: int64 (B,), canvas columns that each crop covers.
        """

    def step(
        self,
        memory: Memory,
        state: State,
        tokens: npt.NDArray[np.int64],
        crops: npt.NDArray[np.int64],
        parents: npt.NDArray[np.int64],
    ) -> Step:
        """Advance R prefixes by one character.

        Args:
            memory: of all crops, from `encode`.
            state: from `encode`, or from the previous step.
            tokens: (R,), each prefix's last class, 0 before the first.
            crops: (R,), index in `memory` of each prefix's crop.
            parents: (R,), index in `state` of the prefix that each continues; repeats are allowed, as beam search
                needs.
        """

    def decode_greedy(self, memory: Memory, state: State) -> GreedySteps:
        """Feed each step the most probable class of the one before, until every sequence has ended.

        At most `max_length + 1` steps.
        """

    def use_threads(self, count: int) -> None:
        """Set the CPU threads for what the calling thread computes from now on."""
