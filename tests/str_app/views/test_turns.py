"""Readings of turned pictures, and their one form in JSON."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from str_app.pipeline import CanvasPipeline
from str_app.policy import DEFAULT_POLICY
from str_app.reader import Reader
from str_app.reading import Character, Reading
from str_app.views.turns import best_turn, turns_of
from tests.str_app.fake_engine import AS_PAINTED, FakeEngine, paint


def sure(text: str) -> np.ndarray:
    """A crop that is read most confidently the right way up: turned sideways, all is its doubtful middle letter."""
    chances = [0.99] * len(text)
    chances[len(text) // 2] = 0.6
    return paint(text, chances, scale=2)


@pytest.mark.parametrize("turn", [0, 1, 2, 3])
def test_the_most_probable_turn_is_kept_and_boxes_are_of_the_picture_given(turn: int) -> None:
    upright = sure("EXIT")
    given = np.rot90(upright, -turn)  # turning it counter-clockwise `turn` times sets it upright
    (reading,) = Reader(FakeEngine(), policy=AS_PAINTED).read_crops([given], rotate=True)
    assert reading.text == "EXIT"
    assert reading.rotation == 90 * turn
    (plain,) = Reader(FakeEngine(), policy=AS_PAINTED).read_crops([upright])
    mask = np.zeros(upright.shape[:2], dtype=int)
    for number, character in enumerate(plain.characters, 1):
        x0, y0, x1, y1 = map(round, character.box)
        mask[y0:y1, x0:x1] = number
    turned = np.rot90(mask, -turn)
    for number, character in enumerate(reading.characters, 1):
        x0, y0, x1, y1 = map(round, character.box)
        assert (turned[y0:y1, x0:x1] == number).all()
        assert (turned == number).sum() == (x1 - x0) * (y1 - y0)


@pytest.mark.parametrize("turn", [1, 3])
def test_a_tall_crop_is_read_on_its_side_too(turn: int) -> None:
    lying = np.rot90(sure("ENTRANCE"), -turn)
    reader = Reader(FakeEngine())
    (reading,) = reader.read_crops([lying])
    assert (reading.text, reading.rotation) == ("ENTRANCE", 90 * turn)
    (of_four,) = reader.read_crops([lying], rotate=True)
    assert (reading.text, reading.rotation, reading.characters) == (of_four.text, of_four.rotation, of_four.characters)


@pytest.mark.parametrize(
    ("size", "turns"),
    [((32, 32), (0,)), ((32, 100), (0,)), ((44, 32), (0,)), ((45, 32), (0, 1, 3)), ((90, 32), (0, 1, 3))],
)
def test_turns_that_are_tried(size: tuple[int, int], turns: tuple[int, ...]) -> None:
    assert turns_of(size, rotate=False) == turns
    assert turns_of(size, rotate=True) == (0, 1, 2, 3)


def seen(text: str, confidence: float, characters: float) -> Reading:
    """A reading whose confidence the prior made of its characters'."""
    each = characters ** (1 / max(1, len(text)))
    return Reading(text, confidence, tuple(Character(char, each, (0, 0, 1, 1)) for char in text))


def test_a_tie_keeps_the_picture_as_it_is() -> None:
    readings = [seen("ab", 0.5, 0.5), seen("bc", 0.5, 0.5), seen("cd", 0.4, 0.4), seen("de", 0.5, 0.5)]
    assert best_turn(readings, (0, 1, 2, 3), (10, 20)).text == "ab"


@pytest.mark.parametrize(
    ("upright", "others"),
    [
        (seen("10-02-99", 0.5, 0.48), [seen("F", 0.99, 0.6), seen("66-20-01", 0.2, 0.2), seen("I", 0.9, 0.5)]),
        (seen("SALE", 0.7, 0.5), [seen("E", 0.99, 0.9), seen("ETVS", 0.1, 0.1), seen("I", 0.99, 0.9)]),
        (seen("Z", 0.99, 0.97), [seen("N", 0.999, 0.999), seen("Z", 0.99, 0.97), seen("N", 0.999, 0.999)]),
        (seen("3", 0.9998, 0.99), [seen("w", 0.9999, 0.9999), seen("E", 0.9, 0.8), seen("m", 0.99, 0.99)]),
    ],
)
def test_an_upright_crop_stays_as_it_is(upright: Reading, others: list[Reading]) -> None:
    """A word seen from its side is often a sure single letter, and a turned letter another one."""
    best = best_turn([upright, *others], (0, 1, 2, 3), (20, 20))
    assert (best.text, best.rotation) == (upright.text, 0)


def test_a_word_on_its_side_is_found_under_a_single_letter() -> None:
    lying, lone = seen("ENTRANCE", 0.8, 0.7), seen("I", 0.9, 0.6)
    best = best_turn([lone, lying, seen("", 0.9, 0)], (0, 1, 3), (90, 30))
    assert (best.text, best.rotation) == ("ENTRANCE", 90)


def test_confidence_counts_the_doubt_about_the_turn() -> None:
    sure, rival = seen("NOW", 0.9, 0.9), seen("MON", 0.9, 0.9)
    assert best_turn([sure, seen("", 0.1, 0)], (0, 2), (10, 30)).confidence == pytest.approx(0.9)
    assert 0.6 < best_turn([sure, rival], (0, 2), (10, 30)).confidence < 0.8
    assert best_turn([sure, replace(rival, text="now")], (0, 2), (10, 30)).confidence == pytest.approx(0.9)
    assert best_turn([sure], (0,), (10, 30)) == sure


def test_a_turn_in_which_nothing_is_seen_is_no_reading() -> None:
    assert best_turn([seen("", 0.99, 0), *[seen("a", 0.5, 0.5)] * 3], (0, 1, 2, 3), (10, 20)).text == "a"
    assert best_turn([seen("", 0.99, 0), seen("", 0.5, 0)], (0, 1), (10, 20)).rotation == 0


def test_a_lexicon_per_crop_goes_through_all_turns() -> None:
    crops = [np.rot90(sure("dog")), sure("cat")]
    readings = Reader(FakeEngine()).read_crops(crops, lexicons=[["dog", "cow"], iter(["cat", "car"])], rotate=True)
    assert [reading.text for reading in readings] == ["dog", "cat"]


def test_the_lengths_of_a_lexicon_s_words_are_no_evidence() -> None:
    readings = [seen("caterpillars", 1e-6, 1e-6), seen("a", 0.9, 0.9)]
    assert best_turn(readings, (0, 1), (30, 20)).text == "caterpillars"
    without_length = replace(DEFAULT_POLICY, turns=DEFAULT_POLICY.turns._replace(length=0.0))  # as `Reader` does
    assert best_turn(readings, (0, 1), (30, 20), without_length).text == "a"


def test_a_reader_with_a_lexicon_does_not_prefer_long_words(monkeypatch: pytest.MonkeyPatch) -> None:
    of_turns = [seen("caterpillars", 1e-6, 1e-6), seen("a", 0.9, 0.9), *[seen("a", 1e-9, 1e-9)] * 2]
    monkeypatch.setattr(CanvasPipeline, "read_canvases", lambda self, canvases, **given: of_turns[: len(canvases)])
    (reading,) = Reader(FakeEngine()).read_crops([sure("x")], lexicon=["a", "caterpillars"], rotate=True)
    assert (reading.text, reading.rotation) == ("a", 90)


def test_json_form_is_rounded_and_comes_back() -> None:
    (reading,) = Reader(FakeEngine()).read_crops([sure("ab")], attention=True)
    fields = json.loads(json.dumps(reading.as_dict()))
    assert fields["text"] == "ab"
    assert fields["confidence"] == round(reading.confidence, 4)
    assert fields["characters"][1]["box"] == [round(edge, 1) for edge in reading.characters[1].box]
    assert np.shape(fields["attention"]["maps"]) == (3, 1, 16)
    assert fields["attention"]["covered"] == 24 / 128
    assert "rotation" not in fields
    assert Reading.from_dict(fields).as_dict() == fields
    assert "attention" not in Reader(FakeEngine()).read_crops([sure("ab")])[0].as_dict()
