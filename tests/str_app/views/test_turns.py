"""Readings of turned pictures, and their one form in JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest

from str_app.reader import Reader
from str_app.reading import Reading
from str_app.views.turns import best_turn, turns_of
from tests.str_app.fake_engine import FakeEngine, paint


def sure(text: str) -> np.ndarray:
    """A crop that is read most confidently the right way up: turned sideways, all is its doubtful middle letter."""
    chances = [0.99] * len(text)
    chances[len(text) // 2] = 0.6
    return paint(text, chances, scale=2)


@pytest.mark.parametrize("turn", [0, 1, 2, 3])
def test_the_most_confident_turn_is_kept_and_boxes_are_of_the_picture_given(turn: int) -> None:
    upright = sure("EXIT")
    given = np.rot90(upright, -turn)  # turning it counter-clockwise `turn` times sets it upright
    (reading,) = Reader(FakeEngine()).read_crops([given], rotate=True)
    assert reading.text == "EXIT"
    assert reading.rotation == 90 * turn
    (plain,) = Reader(FakeEngine()).read_crops([upright])
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
    assert reading == reader.read_crops([lying], rotate=True)[0]


@pytest.mark.parametrize(
    ("size", "turns"),
    [((32, 32), (0,)), ((32, 100), (0,)), ((44, 32), (0,)), ((45, 32), (0, 1, 3)), ((90, 32), (0, 1, 3))],
)
def test_turns_that_are_tried(size: tuple[int, int], turns: tuple[int, ...]) -> None:
    assert turns_of(size, rotate=False) == turns
    assert turns_of(size, rotate=True) == (0, 1, 2, 3)


def test_one_tall_letter_stays_upright() -> None:
    (reading,) = Reader(FakeEngine()).read_crops([paint("I")])
    assert (reading.text, reading.rotation) == ("I", 0)


def test_a_tie_keeps_the_picture_as_it_is() -> None:
    readings = [Reading("a", 0.5, ()), Reading("b", 0.5, ()), Reading("c", 0.4, ()), Reading("d", 0.5, ())]
    assert best_turn(readings, (0, 1, 2, 3), (10, 20)).text == "a"


def test_a_turn_in_which_nothing_is_seen_is_no_reading() -> None:
    assert best_turn([Reading("", 0.99, ()), *[Reading("a", 0.5, ())] * 3], (0, 1, 2, 3), (10, 20)).text == "a"


def test_a_lexicon_per_crop_goes_through_all_turns() -> None:
    crops = [np.rot90(sure("dog")), sure("cat")]
    readings = Reader(FakeEngine()).read_crops(crops, lexicons=[["dog", "cow"], iter(["cat", "car"])], rotate=True)
    assert [reading.text for reading in readings] == ["dog", "cat"]


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


def test_a_doubtful_lone_letter_twice_as_tall_as_wide_is_rather_a_word_on_its_side() -> None:
    lone, word = Reading("I", 0.7, ()), Reading("EXIT", 0.3, ())
    readings, turns = [lone, word, Reading("", 0.9, ())], (0, 1, 3)
    assert best_turn(readings, turns, (64, 32)).text == "EXIT"
    assert best_turn(readings, turns, (60, 32)).text == "I"
    assert best_turn([Reading("I", 0.99, ()), *readings[1:]], turns, (64, 32)).text == "I"
    assert best_turn([word, lone], (0, 1), (32, 64)).text == "EXIT", "the same of a crop that is tall when turned"
