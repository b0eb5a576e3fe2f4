"""Which sample of which data set stands at a position of the training stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from str_app.datasets.sample import DataError, Source


class _Block(NamedTuple):
    number: int
    sources: npt.NDArray[np.int64]  # (BLOCK,) which source stands at each position
    turns: npt.NDArray[np.int64]  # (BLOCK,) how many of the same source stand before it in the block


class _Round(NamedTuple):
    number: int
    order: npt.NDArray[np.uint32]  # (len(source),)


class Mixture:
    """A weighted, shuffled, endless mixture of data sets: a pure function from position to sample.

    Every block of 10,000 positions holds the same whole number of samples of each source, in an order drawn from
    (seed, block). A source's own samples come in rounds, each a permutation drawn from (seed, source, round), so that
    none comes again before all have come. Nothing depends on what was asked before: training resumes at any step, and
    any number of ranks or workers share the stream by position alone.

    Args:
        sources: what is mixed; the order matters for what stands where.
        weights: how much of the stream comes from each, in any unit; 0 leaves a source out. By default proportional to
            the sources' sizes. Rounded to ten-thousandths, but never to nothing.
        seed: non-negative.

    Raises:
        DataError: no sources, an empty one, or weights that do not fit.
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
                raise DataError(f"{source.name}: the weight is {weight}: it must be 0 or more")
        if not any(weights):
            raise DataError("all weights are 0: there is nothing to draw from")
        if seed < 0:
            raise DataError(f"the seed is {seed}: it must be 0 or more")
        self._seed = seed
        self.counts = _shares(np.asarray(weights, dtype=np.float64), self.BLOCK)
        self._block: _Block | None = None
        self._rounds: dict[int, _Round] = {}

    def __len__(self) -> int:
        """Samples in all sources together; the stream itself has no end."""
        return sum(self._sizes)

    def locate(self, position: int) -> tuple[int, int]:
        """Source and index in it of the sample at `position`, from 0 without end."""
        if position < 0:
            raise IndexError(f"position {position} of the training stream")
        number, place = divmod(position, self.BLOCK)
        block = self._block_at(number)
        which = int(block.sources[place])
        round_number, turn = divmod(number * int(self.counts[which]) + int(block.turns[place]), self._sizes[which])
        return which, int(self._round_of(which, round_number).order[turn])

    # The last block and each source's last round are kept, since positions are asked for nearly in order.

    def _block_at(self, number: int) -> _Block:
        block = self._block
        if block is None or block.number != number:
            rng = np.random.default_rng([self._seed, 0, number])
            sources = rng.permutation(np.repeat(np.arange(len(self.counts)), self.counts))
            turns = np.empty_like(sources)
            for which, count in enumerate(self.counts):
                turns[sources == which] = np.arange(count)
            block = self._block = _Block(number, sources, turns)
        return block

    def _round_of(self, which: int, number: int) -> _Round:
        known = self._rounds.get(which)
        if known is None or known.number != number:
            rng = np.random.default_rng([self._seed, 1, which, number])
            known = self._rounds[which] = _Round(number, rng.permutation(self._sizes[which]).astype(np.uint32))
        return known


def _shares(weights: npt.NDArray[np.float64], total: int) -> npt.NDArray[np.int64]:
    """Whole numbers proportional to `weights` that sum to `total`, at least one for every positive weight."""
    wanted = int((weights > 0).sum())
    if wanted > total:
        raise DataError(f"{wanted} data sets cannot be mixed: at most {total}")
    spare = weights / weights.sum() * (total - wanted)
    # Largest remainders; one is set aside for each first, so that rounding cannot take a small source away.
    shares = np.floor(spare).astype(np.int64)
    missing = total - wanted - int(shares.sum())
    shares[np.argsort(shares - spare, kind="stable")[:missing]] += 1
    return shares + (weights > 0)
