"""The one boundary below `Reader`: whatever runs the network, it looks like this. NumPy in, NumPy out."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from models.charset import Charset
from models.preprocessing import Preprocessing

Memory = Any  # what `encode` hands to `start` and `step`; only the engine looks inside
State = Any  # the decoder's recurrent state; only the engine looks inside


class Step(NamedTuple):
    """One decoding step of a batch.

    Attributes:
        log_probs: float32 (B, charset.num_classes), log-softmax with the calibrated temperature applied; index 0 is the
            end token.
        state: handed to the next `step`.
        attention: float32 (B, H', W'), non-negative, sums to 1 over the feature map; H' is 1 for 1-D attention.
    """

    log_probs: npt.NDArray[np.float32]
    state: State
    attention: npt.NDArray[np.float32]


class Followed(NamedTuple):
    """All T steps of greedy decoding: as many as the batch's longest reading has characters, and one for its end.

    Attributes:
        log_probs: float32 (B, T, charset.num_classes), as of `Step`.
        attention: float32 (B, T, H', W'), as of `Step`.
    """

    log_probs: npt.NDArray[np.float32]
    attention: npt.NDArray[np.float32]


class Engine(Protocol):
    """Runs the encoder once and the decoder step by step. Thread-safe: no call changes the engine."""

    name: str
    charset: Charset
    preprocessing: Preprocessing
    max_length: int  # characters a reading can have at most

    def encode(self, canvases: npt.NDArray[np.uint8], widths: npt.NDArray[np.int64]) -> tuple[Memory, State]:
        """Encode a batch.

        Args:
            canvases: uint8 (B, height, W, 3), RGB, of one width, as `Preprocessing` makes them.
            widths: int64 (B,), canvas columns covered by each crop.
        """

    def step(self, memory: Memory, state: State, tokens: npt.NDArray[np.int64]) -> Step:
        """Advance every sequence by one character; `tokens` (B,) are the previous ones, 0 before the first."""

    def follow(self, memory: Memory, state: State) -> Followed:
        """Steps from the first on, each fed what the one before found most probable, until every sequence has ended.

        At most `max_length + 1`.
        """

    def select(self, memory: Memory, state: State, rows: npt.NDArray[np.int64]) -> tuple[Memory, State]:
        """Memory and state of `rows` (repeats allowed) of the batch, in that order: beam search needs it."""

    def use_threads(self, count: int) -> None:
        """CPU threads for what the calling thread computes from now on."""
