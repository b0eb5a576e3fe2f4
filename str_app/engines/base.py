"""The one boundary below `Reader`: whatever runs the network, it looks like this. NumPy in, NumPy out."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from str_app.models.charset import Charset
from str_app.models.preprocessing import Preprocessing

Memory = Any  # what `encode` hands to `step` and `follow`; only the engine looks inside
State = Any  # the decoder's recurrent state; only the engine looks inside


class Description(NamedTuple):
    """What is known of an engine elsewhere: enough to fit crops to its canvases."""

    name: str
    charset: Charset
    preprocessing: Preprocessing
    info: dict[str, Any]


class Step(NamedTuple):
    """One decoding step of R prefixes.

    Attributes:
        log_probs: float32 (R, charset.num_classes), log-softmax with the calibrated temperature applied; index 0 is the
            end token.
        state: handed to the next `step`.
        attention: float32 (R, H', W'), non-negative, sums to 1 over the feature map; H' is 1 for 1-D attention.
    """

    log_probs: npt.NDArray[np.float32]
    state: State
    attention: npt.NDArray[np.float32]


class Followed(NamedTuple):
    """All T steps of greedy decoding: as many as the batch's longest reading has characters, and one for its end.

    Attributes:
        log_probs: float32 (B, T, charset.num_classes), as of `Step`, one row a crop.
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
            state: from `encode`, or from the step before.
            tokens: (R,), each prefix's last character, 0 before the first.
            crops: (R,), whose prefix it is, by the place in `memory`.
            parents: (R,), what it goes on from, by the place in `state`; repeats are allowed, as beam search needs.
        """

    def follow(self, memory: Memory, state: State) -> Followed:
        """Steps from the first on, each fed what the one before found most probable, until every sequence has ended.

        At most `max_length + 1`.
        """

    def use_threads(self, count: int) -> None:
        """CPU threads for what the calling thread computes from now on."""
