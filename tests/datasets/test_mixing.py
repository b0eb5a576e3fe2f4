"""The training stream: exact shares, every sample once a round, the same from wherever it is entered."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from str_app.datasets.mixing import Mixture
from str_app.datasets.sample import DataError, Sample


class Sized:
    """A source of which only the size matters."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.name = f"of {size}"

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Sample:
        raise NotImplementedError

    def label(self, index: int) -> str:
        raise NotImplementedError

    def identifier(self, index: int) -> str:
        raise NotImplementedError


def mixture(sizes: list[int], weights: list[float] | None = None, seed: int = 0) -> Mixture:
    return Mixture([Sized(size) for size in sizes], weights, seed)


def test_shares_are_exact_in_every_block() -> None:
    stream = mixture([70, 5000], [3, 1])
    for block in (0, 1, 7):
        drawn = Counter(stream.locate(block * Mixture.BLOCK + place)[0] for place in range(Mixture.BLOCK))
        assert drawn == {0: 7500, 1: 2500}


@pytest.mark.parametrize(
    ("weights", "counts"),
    [
        ([0.9, 0.1], [9000, 1000]),
        ([0.999, 0.001], [9990, 10]),
        ([9999, 1], [9999, 1]),
        ([1e9, 1], [9999, 1]),
        ([1, 1, 1], [3334, 3333, 3333]),
        ([1, 0], [10_000, 0]),
    ],
)
def test_shares_are_rounded_and_none_is_lost(weights: list[float], counts: list[int]) -> None:
    assert list(mixture([10] * len(weights), weights).counts) == counts


def test_default_weights_follow_the_sizes() -> None:
    stream = mixture([300, 100])
    assert list(stream.counts) == [7500, 2500]


def test_sources_are_mixed_within_a_block() -> None:
    stream = mixture([100, 100])
    first = [stream.locate(place)[0] for place in range(1000)]
    assert 400 < sum(first) < 600


@given(st.integers(1, 60), st.integers(0, 5), st.integers(0, 3))
@settings(max_examples=30, deadline=None)
def test_every_sample_comes_once_a_round(size: int, seed: int, start: int) -> None:
    stream = mixture([size], seed=seed)
    draws = [stream.locate(start * size + place)[1] for place in range(size)]
    assert sorted(draws) == list(range(size))


def test_rounds_differ_and_seeds_differ() -> None:
    def order(seed: int, start: int) -> list[int]:
        stream = mixture([50], seed=seed)
        return [stream.locate(start + place)[1] for place in range(50)]

    assert len({tuple(order(seed, start)) for seed in (0, 1) for start in (0, 50, 100)}) == 6


@given(
    st.lists(st.integers(1, 3000), min_size=1, max_size=4),
    st.integers(0, 2**32),
    st.lists(st.integers(0, 10**7), min_size=1, max_size=30),
)
@settings(max_examples=40, deadline=None)
def test_a_position_is_the_same_from_wherever_it_is_asked(sizes: list[int], seed: int, places: list[int]) -> None:
    once = mixture(sizes, seed=seed)
    found = {place: once.locate(place) for place in places}
    random.Random(0).shuffle(places)
    assert {place: mixture(sizes, seed=seed).locate(place) for place in places} == found
    assert all(0 <= index < sizes[which] for which, index in found.values())


def test_ranks_share_the_stream() -> None:
    alone = mixture([40, 13])
    ranks = [mixture([40, 13]) for _ in range(3)]
    for position in range(600):
        assert ranks[position % 3].locate(position) == alone.locate(position)


def test_a_tiny_source_is_not_rounded_away_and_zero_is() -> None:
    stream = mixture([1, 14_000_000, 50], [1, 14_000_000, 0])
    assert list(stream.counts) == [1, 9999, 0]


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=8).filter(any))
@settings(deadline=None)
def test_counts_fill_the_block(weights: list[float]) -> None:
    counts = mixture([10] * len(weights), weights).counts
    assert counts.sum() == Mixture.BLOCK
    assert [bool(count) for count in counts] == [weight > 0 for weight in weights]


@pytest.mark.parametrize(
    ("sizes", "weights", "message"),
    [
        ([], None, "nothing to mix"),
        ([3, 0], None, "of 0: the data set is empty"),
        ([3, 4], [1.0], "1 weights for 2 data sets"),
        ([3, 4], [1.0, -1.0], "of 4: the weight is -1.0"),
        ([3, 4], [1.0, float("nan")], "of 4: the weight is nan"),
        ([3, 4], [0.0, 0.0], "all weights are 0"),
    ],
)
def test_what_cannot_be_mixed(sizes: list[int], weights: list[float] | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        mixture(sizes, weights)


def test_negative_seed_and_position() -> None:
    with pytest.raises(DataError, match="seed is -1"):
        mixture([3], seed=-1)
    with pytest.raises(IndexError):
        mixture([3]).locate(-1)


def test_the_order_of_sources_depends_on_the_seed_and_the_block() -> None:
    def sources(seed: int, start: int) -> tuple[int, ...]:
        stream = mixture([70, 70], seed=seed)
        return tuple(stream.locate(start + place)[0] for place in range(50))

    assert len({sources(seed, start) for seed in (0, 1) for start in (0, Mixture.BLOCK)}) == 4


def test_sources_of_one_size_have_orders_of_their_own() -> None:
    stream = mixture([50, 50])
    draws = [stream.locate(place) for place in range(300)]
    first, second = ([index for which, index in draws if which == source][:50] for source in (0, 1))
    assert sorted(first) == sorted(second)
    assert first != second
