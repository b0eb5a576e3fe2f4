"""What the crops say."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from str_app.datasets.renderer import patterns
from str_app.datasets.renderer.fonts import PRINTABLE
from str_app.datasets.renderer.words import TextSource, WordError, WordList, frequent_words, letter_case, read_words


@pytest.fixture(scope="module")
def texts() -> list[str]:
    source = TextSource(frequent_words())
    rng = np.random.default_rng(0)
    return [source.draw(rng) for _ in range(60_000)]


def test_texts_are_printable_and_of_sane_length(texts: list[str]) -> None:
    assert set("".join(texts)) == set(PRINTABLE)
    assert {len(text) for text in texts} <= set(range(1, 33))


def test_every_character_occurs_often_enough_to_be_learnt(texts: list[str]) -> None:
    counts = Counter("".join(texts))
    total = sum(counts.values())
    assert {char: counts[char] for char in PRINTABLE if counts[char] < 0.0005 * total} == {}


def test_shares_are_those_of_signs(texts: list[str]) -> None:
    words = [text for text in texts if text.isalpha() and len(text) > 1]
    upper = sum(text.isupper() for text in words) / len(words)
    capitalised = sum(text.istitle() for text in words) / len(words)
    short = sum(len(text) <= 3 for text in texts) / len(texts)
    without_letters = sum(not any(char.isalpha() for char in text) for text in texts) / len(texts)
    assert upper == pytest.approx(0.5, abs=0.06)
    assert capitalised == pytest.approx(0.25, abs=0.06)
    assert short == pytest.approx(0.27, abs=0.06)
    assert without_letters == pytest.approx(0.12, abs=0.04)


def test_frequent_words_are_drawn_more_often(texts: list[str]) -> None:
    counts = Counter(text.lower() for text in texts)
    assert counts["the"] > counts["theatre"]


def test_own_words_are_read_with_counts(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text(
        "# my words\n\nopen 100\nclosed\t1\n#hashtag\nCafé 5\n" + "x" * 33 + "\nopen 44\n", encoding="utf-8"
    )
    words = read_words(path)
    source, rng = TextSource(words, only_words=True), np.random.default_rng(0)
    counts = Counter(source.draw(rng) for _ in range(2000))
    assert set(counts) == {"open", "closed", "#hashtag"}
    assert counts["open"] > 5 * counts["closed"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no word of 1 to 32"),
        ("Café".encode(), "no word of 1 to 32"),
        (b"open\nshut many\n", "line 2: the count 'many' is not a number"),
        (b"open nan\n", "line 1: the count 'nan' is not a number"),
        (b"\xff\xfe\x00", "cannot read the word list"),
    ],
)
def test_unusable_word_lists_are_explained(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "words.txt"
    path.write_bytes(content)
    with pytest.raises(WordError, match=message):
        read_words(path)
    with pytest.raises(WordError, match="cannot read"):
        read_words(tmp_path / "missing.txt")


def test_a_list_without_short_words_still_gives_short_texts() -> None:
    words = WordList(["restaurant", "coffee"], [1, 1])
    assert len(words.draw_short(np.random.default_rng(0))) <= 3


def test_letter_case_keeps_the_letters() -> None:
    rng = np.random.default_rng(0)
    assert {letter_case(rng, "open").lower() for _ in range(200)} == {"open"}


def test_numbers_hold_digits_and_addresses_hold_dots() -> None:
    rng = np.random.default_rng(0)
    for _ in range(500):
        assert any(char.isdigit() for char in patterns.number(rng))
        assert "." in patterns.address(rng, "open", "door")
        assert patterns.invented_name(rng).isalpha()
        assert set("open") <= set(patterns.with_random_punctuation(rng, "open"))
