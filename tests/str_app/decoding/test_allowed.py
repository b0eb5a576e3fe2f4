"""Texts of allowed characters only: how the list is written, and what decoding makes of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from str_app.decoding import beam_search, mask_of, parse_characters
from str_app.decoding.scoring import log_softmax, restrict
from str_app.errors import StrAppError
from str_app.models.charset import PRINTABLE_94, Charset
from str_app.reader import Reader
from tests.str_app.decoding.test_search import ONE_LOOK, crops, random_scorer
from tests.str_app.fake_engine import FakeEngine, paint

PRINTABLE = Charset(PRINTABLE_94 + " é")


@pytest.mark.parametrize(
    ("text", "characters"),
    [
        ("0-9", "0123456789"),
        ("A-CX0-2", "ABCX012"),
        ("0-2-", "012-"),
        ("-x", "-x"),
        ("a\\-c", "a-c"),
        ("\\\\", "\\"),
        ("aa", "a"),
        ("+-/", "+,-./"),
        (" é", " é"),
        ("e\u0301", "é"),
    ],
)
def test_lists(text: str, characters: str) -> None:
    assert parse_characters(text, PRINTABLE) == characters


@pytest.mark.parametrize(
    ("text", "charset", "characters"),
    [("u\u0308", "u\u0308", "u\u0308"), ("\u09dc", "\u09a1\u09dc", "\u09dc"), ("\u0958-\u095a", "\u0959", "\u0959")],
)
def test_characters_that_the_charset_has_are_taken_as_they_are(text: str, charset: str, characters: str) -> None:
    """NFC divides some letters of India in two."""
    assert parse_characters(text, Charset(charset)) == characters


@pytest.mark.parametrize(("text", "message"), [("", "empty"), ("9-0", "9-0 runs backwards"), ("ab\\", "backslash")])
def test_lists_that_mean_nothing(text: str, message: str) -> None:
    with pytest.raises(StrAppError, match=message):
        parse_characters(text, PRINTABLE)


@given(st.text(PRINTABLE_94, min_size=1))
def test_every_character_can_be_escaped(characters: str) -> None:
    assert parse_characters("".join(f"\\{char}" for char in characters), PRINTABLE) == "".join(
        dict.fromkeys(characters)
    )


def test_the_widest_range_is_the_charset() -> None:
    assert sorted(parse_characters("\0-\U0010ffff", PRINTABLE)) == sorted(PRINTABLE.characters)


def test_what_is_allowed_shares_the_probability() -> None:
    charset = Charset("aAb1")
    log_probs = log_softmax(np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32))
    other_case = np.array(charset.other_case)
    lower = restrict(log_probs, mask_of("ab", charset)[None].repeat(6, axis=0), other_case)
    probs, restricted = np.exp(log_probs), np.exp(lower)
    np.testing.assert_allclose(restricted.sum(axis=1), 1, rtol=1e-5)
    assert (restricted[:, [2, 4]] == 0).all()
    kept = probs[:, 0] + probs[:, 1] + probs[:, 2] + probs[:, 3]
    np.testing.assert_allclose(restricted[:, 1], (probs[:, 1] + probs[:, 2]) / kept, rtol=1e-4)
    np.testing.assert_allclose(restricted[:, 3], probs[:, 3] / kept, rtol=1e-4)
    both = np.exp(restrict(log_probs, mask_of("aA", charset)[None].repeat(6, axis=0), other_case))
    np.testing.assert_allclose(both[:, 1] / both[:, 2], probs[:, 1] / probs[:, 2], rtol=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_each_crop_has_its_own_characters(seed: int) -> None:
    """A batch reads as its crops do alone; crops without a list as they do without any."""
    scorer = random_scorer(seed, max_length=6)
    canvases, widths = crops(4, seed)
    everything = np.ones(scorer.charset.num_classes, dtype=bool)
    allowed = np.stack([mask_of("a", scorer.charset), everything, mask_of("bB", scorer.charset), everything])
    together = beam_search(scorer, canvases, widths, allowed=allowed)
    assert set(together[0].text) <= {"a"}
    assert set(together[2].text) <= {"b", "B"}
    free = beam_search(scorer, canvases, widths)
    for row in (1, 3):
        assert together[row].text == free[row].text
        assert together[row].log_confidence == pytest.approx(free[row].log_confidence, abs=1e-4)
    for row in range(4):
        (alone,) = beam_search(scorer, canvases[[row]], widths[[row]], allowed=allowed[[row]])
        assert alone.text == together[row].text
        assert alone.log_prob == pytest.approx(together[row].log_prob, abs=1e-4)


def test_allowing_everything_changes_nothing() -> None:
    scorer = random_scorer(2, max_length=6)
    canvases, widths = crops(5, 2)
    everything = np.ones((5, scorer.charset.num_classes), dtype=bool)
    masked = beam_search(scorer, canvases, widths, policy=ONE_LOOK, allowed=everything)
    for one, free in zip(masked, beam_search(scorer, canvases, widths, policy=ONE_LOOK), strict=True):
        assert one.text == free.text
        np.testing.assert_allclose(one.character_log_probs, free.character_log_probs, atol=1e-4)


def test_a_reader_reads_digits_only() -> None:
    reader = Reader(FakeEngine())  # the likeliest mistake for a character is the next of the charset: 9 for 8, a for 9
    crop = paint("8a9", [0.9, 0.9, 0.9])
    assert reader.recognize(crop)[0].text == "8a9"
    (reading,) = reader.recognize(crop, characters="0-9")
    assert reading.text[0] == "8"
    assert reading.text.isdigit()
    assert reading.confidence < 0.5, "the middle one is hardly any digit"
    (upside_down,) = reader.recognize(np.rot90(crop, 2), characters="0-9a", rotate=True)
    assert set(upside_down.text) <= set("0123456789a"), "every turn is restricted"


def test_what_cannot_be_asked_for() -> None:
    reader = Reader(FakeEngine())
    with pytest.raises(StrAppError, match="charset has none of them"):
        reader.recognize(paint("a"), characters="äö")
    with pytest.raises(StrAppError, match="not both"):
        reader.recognize(paint("a"), characters="0-9", lexicon=["a"])


def test_what_may_have_all_characters_is_bit_for_bit_as_without_any_list() -> None:
    """Beside a crop that may not: readings do not depend on what is in the batch."""
    charset = Charset()
    log_probs = log_softmax(np.random.default_rng(0).normal(size=(2, charset.num_classes)).astype(np.float32))
    allowed = np.stack([np.ones(charset.num_classes, np.bool_), mask_of("0123456789", charset)])
    restricted = restrict(log_probs, allowed, np.array(charset.other_case))
    assert np.array_equal(restricted[0], log_probs[0])
    assert not np.array_equal(restricted[1], log_probs[1])
