"""What counts as a known word or a number, and for how much."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from str_app.decoding.word_prior import MEASURES, NUMBERS, UNKNOWN, WEIGHT, WordPrior
from str_app.reader import Reader

RELEASED = WordPrior.released()
PRIOR = WordPrior({"the": 0.05, "exit": 1e-5, "dada": UNKNOWN / 10})


def test_bonus_grows_with_frequency() -> None:
    assert PRIOR("exit") == pytest.approx(WEIGHT * math.log(1e-5 / UNKNOWN))
    assert PRIOR("the") > PRIOR("exit") > PRIOR("exti") == 0


@pytest.mark.parametrize("text", ["EXIT", "Exit", "exit.", "(exit)", "exit's", '"EXIT\'S"', "#exit"])
def test_case_marks_and_possessive_do_not_count(text: str) -> None:
    assert PRIOR(text) == PRIOR("exit")


@pytest.mark.parametrize("text", ["", ".", "'s", "e-xit", "exit1", "dada", "ex it", "²", "٣", "1a", "2km2", "kg"])
def test_what_is_not_known_gets_nothing(text: str) -> None:
    assert PRIOR(text) == 0


@pytest.mark.parametrize(
    ("text", "digits"), [("7", 1), ("$4.54", 3), ("12:30", 4), ("50%", 2), ("020-7946", 7), ("1990's", 4)]
)
def test_numbers_count_by_their_digits(text: str, digits: int) -> None:
    assert PRIOR(text) == pytest.approx(WEIGHT * math.log(NUMBERS * 10.0**-digits / UNKNOWN))


@pytest.mark.parametrize(("text", "digits"), [("25TH", 2), ("1kg", 1), ("10,000th", 5), ("9:00am", 3), ("(3D)", 1)])
def test_so_do_measures(text: str, digits: int) -> None:
    assert PRIOR(text) == pytest.approx(WEIGHT * math.log(NUMBERS * 10.0**-digits * MEASURES / UNKNOWN))


@given(st.text(max_size=20))
def test_bonus_lies_between_zero_and_the_largest(text: str) -> None:
    for prior in (PRIOR, WordPrior({}), RELEASED):
        assert 0 <= prior(text) <= prior.max_bonus


WORDS = st.sampled_from(
    [*"the restaurant x i zzz don't o'clock 7 $4.50 10:30 12,000 1/2 50% #1 25th 3.5km".split(), ""]
)
MARKS = st.sampled_from(["", "(", "'", '"', ".", "!", "'s", "-", "...", ")"])


@given(MARKS, WORDS, MARKS, st.booleans())
def test_upper_bound_holds_for_every_text_with_the_prefix(before: str, word: str, after: str, upper: bool) -> None:
    text = before + (word.upper() if upper else word) + after
    for length in range(len(text) + 1):
        assert RELEASED.upper_bound(text[:length]) >= RELEASED(text)
    assert RELEASED.upper_bound("xqz") == RELEASED.upper_bound("a1") == 0


def test_the_released_one_knows_english() -> None:
    released = WordPrior.released()
    assert released("the") == released.max_bonus
    assert released("the") > released("restaurant") > released("xylophone") > released("restuarnt") == 0
    assert released("strasse") > 0, "and some of its neighbours"
    assert released("DON'T") > released("o'clock") > released("d'ont") == 0
    assert WordPrior.released() is released, "it is read once"


def test_readers_have_it_unless_told_otherwise() -> None:
    assert Reader.load("small").prior is WordPrior.released()
    assert Reader.load("small", prior=False).prior is None
