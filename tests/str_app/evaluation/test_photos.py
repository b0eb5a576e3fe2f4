"""Scores of found and read words, against counts made by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from str_app.datasets.labelled_photos import LabelledWord
from str_app.evaluation.photos import PhotoScore, Score, as_json, total
from str_app.photos.reading import PhotoReading, PhotoWord, in_lines
from str_app.reading import Reading

pytest.importorskip("shapely")


def corners(x: float, y: float, width: float = 50, height: float = 20) -> tuple[tuple[float, float], ...]:
    return ((x, y), (x + width, y), (x + width, y + height), (x, y + height))


def label(text: str | None, x: float, y: float, **size: float) -> LabelledWord:
    return LabelledWord(corners(x, y, **size), text)


def word(text: str, x: float, y: float, confidence: float = 0.9, **size: float) -> PhotoWord:
    return PhotoWord(Reading(text, confidence, ()), corners(x, y, **size), 0.8, 0)


def score(labels: list[LabelledWord], words: list[PhotoWord]) -> PhotoScore:
    reading: PhotoReading = in_lines((480, 640), [[each] for each in words])
    return PhotoScore(Path("photo.jpg"), reading, labels)


def test_found_and_read_without_regard_to_case_and_punctuation() -> None:
    photo = score([label("Exit!", 0, 0), label("way", 100, 0)], [word("EXIT", 2, 1), word("why", 100, 0)])
    assert photo.detection() == Score(2, 2, 2)
    assert photo.end_to_end() == Score(1, 2, 2)


def test_an_overlap_of_half_is_not_enough() -> None:
    half = word("exit", 0, 0, width=100)  # intersection over union is exactly 0.5
    assert score([label("exit", 0, 0)], [half]).detection() == Score(0, 1, 1)
    assert score([label("exit", 0, 0)], [word("exit", 0, 0, width=98)]).detection() == Score(1, 1, 1)


def test_one_to_one_with_the_better_overlap() -> None:
    photo = score([label("exit", 0, 0)], [word("wrong", 5, 0), word("exit", 1, 0)])
    assert photo.end_to_end() == Score(1, 2, 1)


def test_a_word_is_found_for_one_label_only() -> None:
    assert score([label("exit", 0, 0), label("exit", 2, 0)], [word("exit", 1, 0)]).end_to_end() == Score(1, 1, 2)


def test_ignored_words_count_neither_way() -> None:
    labels = [label(None, 0, 0, width=200), label("!?", 300, 0), label("in", 0, 100)]
    inside = [word("a", 10, 0), word("b", 60, 0, width=20), word("!", 300, 0)]
    assert score(labels, inside).end_to_end() == Score(0, 0, 1)
    straddling = word("c", 170, 0, width=100)  # 30 % inside
    assert score(labels, [straddling]).end_to_end() == Score(0, 1, 1)


def test_a_word_inside_one_ignored_word_may_touch_another() -> None:
    labels = [label(None, 0, 0, width=100), label(None, 55, 0), label("in", 0, 100)]
    assert score(labels, [word("a", 10, 0)]).end_to_end() == Score(0, 0, 1)


def test_corners_in_a_crossed_order_are_those_of_a_hull() -> None:
    top_left, top_right, bottom_right, bottom_left = corners(0, 0)
    crossed = LabelledWord((top_left, bottom_right, top_right, bottom_left), "exit")
    assert score([crossed], [word("exit", 0, 0)]).end_to_end() == Score(1, 1, 1)


def test_words_below_the_threshold_or_without_text_are_left_out() -> None:
    labels = [label("exit", 0, 0), label("way", 100, 0)]
    words = [word("exit", 0, 0, confidence=0.4), word("way", 100, 0), word("", 200, 0)]
    assert score(labels, words).end_to_end(0.5) == Score(1, 1, 2)
    assert score(labels, words).end_to_end() == Score(2, 2, 2)


def test_a_weak_word_does_not_hide_a_sure_one() -> None:
    words = [word("wrong", 0, 0, confidence=0.2), word("exit", 2, 0)]
    assert score([label("exit", 0, 0)], words).end_to_end(0.5) == Score(1, 1, 1)


def test_curved_words_are_polygons() -> None:
    arc = LabelledWord(((0, 0), (25, -10), (50, 0), (50, 20), (25, 10), (0, 20)), "arc")
    assert score([arc], [word("ARC", 0, -5, height=25)]).end_to_end() == Score(1, 1, 1)


def test_percentages() -> None:
    counts = total([Score(1, 2, 4), Score(2, 2, 2)])
    assert counts == Score(3, 4, 6)
    assert (counts.precision, counts.recall, counts.h_mean) == (75.0, 50.0, 60.0)
    assert total([]).h_mean == 0


def test_json() -> None:
    result = as_json("small", "known", [score([label("exit", 0, 0)], [word("exit", 0, 0, confidence=0.6)])], 0.5)
    assert result["end_to_end"] == {
        **{"precision": 100.0, "recall": 100.0, "h_mean": 100.0},
        **{"right": 1, "returned": 1, "labelled": 1},
    }
    assert result["curve"][0]["threshold"] == 0.0
    assert result["curve"][-1]["end_to_end"]["h_mean"] == 0


def test_unreadable_photographs_miss_their_words_and_take_no_time() -> None:
    read = replace(score([label("exit", 0, 0)], [word("exit", 0, 0)]), seconds=2.0)
    result = as_json("small", "known", [read, PhotoScore.unreadable(Path("gone.jpg"), [label("way", 0, 0)])], 0.0)
    assert (result["photographs"], result["unreadable"]) == (2, 1)
    assert result["seconds"] == {"median": 2.0, "max": 2.0}
    assert (result["end_to_end"]["recall"], result["end_to_end"]["labelled"]) == (50.0, 2)
