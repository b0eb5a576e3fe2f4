"""The training stream: which sample of which data set is at each position."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from str_app.datasets.sample import DataError, Source


class _Block(NamedTuple):
    number: int
    sources: npt.NDArray[np.int64]  # (BLOCK,) index of the source at each position
    occurrences: npt.NDArray[np.int64]  # (BLOCK,) earlier positions with the same source


class _Round(NamedTuple):
    number: int
    order: npt.NDArray[np.uint32]  # (len(source),)


class Mixture:
    """A weighted, shuffled, infinite mixture of data sets: a pure function from position to sample.

    Every block of 10,000 positions has a fixed number of samples of each source, ordered by a function of (seed,
    block). The samples of a source come in rounds; each round is a permutation that depends on (seed, source, round),
    so no sample repeats before all have been used. There is no other state: training resumes at any step, and any
    number of ranks or workers share the stream by position.

    Args:
        sources: the data sets; their order matters.
        weights: shares of the stream, in any unit; 0 leaves a source out. Default: the sources' sizes. Rounded
            to ten-thousandths, but a positive weight never to 0.
        seed: non-negative.

    Raises:
        DataError: no sources, an empty source, or unusable weights.
    """

    BLOCK = 10_000

    def __init__(self, sources: Sequence[Source], weights: Sequence[float] | None = None, seed: int = 0) -> None:
        if not sources:
            raise DataError("nothing to mix: give at least one data set")
        self._sizes = [len(source) for source in sources]
        for source, size in zip(sources, self._sizes, strict=True):
            if size == 0:
                raise DataError(f"{source.name}: the data set is empty")
        if weights is None:
            weights = self._sizes
        if len(weights) != len(sources):
            raise DataError(f"{len(weights)} weights for {len(sources)} data sets: give one each")
        for source, weight in zip(sources, weights, strict=True):
            if not (np.isfinite(weight) and weight >= 0):
                raise DataError(f"{source.name}: the weight is {weight}: it must be finite and at least 0")
        if not any(weights):
            raise DataError("all weights are 0: give at least one positive weight")
        if seed < 0:
            raise DataError(f"the seed is {seed}: it must be at least 0")
        self._seed = seed
        self.counts = _shares(np.asarray(weights, dtype=np.float64), self.BLOCK)
        self._block: _Block | None = None
        self._rounds: dict[int, _Round] = {}

    def locate(self, position: int) -> tuple[int, int]:
        """Index of the source, and index in it, of the sample at `position` ≥ 0."""
        if position < 0:
            raise IndexError(f"position {position} of the training stream")
        number, offset = divmod(position, self.BLOCK)
        block = self._block_at(number)
        source_index = int(block.sources[offset])
        round_number, occurrence = divmod(
            number * int(self.counts[source_index]) + int(block.occurrences[offset]), self._sizes[source_index]
        )
        return source_index, int(self._round_of(source_index, round_number).order[occurrence])

    # The latest block and each source's latest round are cached: positions come almost in order.

    def _block_at(self, number: int) -> _Block:
        block = self._block
        if block is None or block.number != number:
            rng = np.random.default_rng([self._seed, 0, number])
            sources = rng.permutation(np.repeat(np.arange(len(self.counts)), self.counts))
            occurrences = np.empty_like(sources)
            for source_index, count in enumerate(self.counts):
                occurrences[sources == source_index] = np.arange(count)
            block = self._block = _Block(number, sources, occurrences)
        return block

    def _round_of(self, source_index: int, number: int) -> _Round:
        cached = self._rounds.get(source_index)
        if cached is None or cached.number != number:
            rng = np.random.default_rng([self._seed, 1, source_index, number])
            cached = self._rounds[source_index] = _Round(
                number, rng.permutation(self._sizes[source_index]).astype(np.uint32)
            )
        return cached


def _shares(weights: npt.NDArray[np.float64], total: int) -> npt.NDArray[np.int64]:
    """Whole numbers proportional to `weights` that sum to `total`, at least one for every positive weight."""
    positive = int((weights > 0).sum())
    if positive > total:
        raise DataError(f"{positive} data sets are too many to mix: at most {total}")
    # Largest remainder method.
    quotas = weights / weights.sum() * total
    shares = np.floor(quotas).astype(np.int64)
    shares[np.argsort(shares - quotas, kind="stable")[: total - int(shares.sum())]] += 1
    for left_out in np.flatnonzero((weights > 0) & (shares == 0)):
        shares[np.argmax(shares)] -= 1
        shares[left_out] = 1
    return shares
