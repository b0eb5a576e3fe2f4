"""Words marked in a photograph."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from str_app.errors import ImageError, StrAppError
from str_app.inputs import regions
from str_app.inputs.images import ImageLimits
from str_app.reader import Reader
from tests.str_app.fake_engine import FakeEngine, paint

HEIGHT, WIDTH = 300, 400


def photo() -> np.ndarray:
    """`left` upright at (20, 30), `sold` seen at an angle on `CORNERS`."""
    picture = np.full((HEIGHT, WIDTH, 3), 128, dtype=np.uint8)
    word = paint("left")
    picture[30 : 30 + word.shape[0], 20 : 20 + word.shape[1]] = word
    word = paint("sold", scale=4)
    height, width = word.shape[:2]
    matrix = cv2.getPerspectiveTransform(
        np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32) - 0.5,
        np.array(CORNERS, np.float32) - 0.5,
    )
    warped = cv2.warpPerspective(word, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_NEAREST)
    inside = cv2.warpPerspective(np.ones((height, width), np.uint8), matrix, (WIDTH, HEIGHT)) > 0
    picture[inside] = warped[inside]
    return picture


CORNERS = [(150.0, 100.0), (310.0, 80.0), (312.0, 210.0), (148.0, 226.0)]
BOX = [20, 30, 60, 62]


@pytest.mark.parametrize(
    "corners",
    [CORNERS, [edge for corner in CORNERS for edge in corner], [CORNERS[0], CORNERS[3], CORNERS[2], CORNERS[1]]],
    ids=["pairs", "eight numbers", "counter-clockwise"],
)
def test_boxes_and_quadrilaterals_are_read_in_order(corners: list) -> None:
    readings = Reader(FakeEngine()).recognize_regions(photo(), [BOX, corners, BOX])
    assert [reading.text for reading in readings] == ["left", "sold", "left"]


def test_characters_are_placed_in_the_photograph() -> None:
    upright, slanted = Reader(FakeEngine()).recognize_regions(photo(), [BOX, CORNERS])
    assert upright.characters[0].box == pytest.approx((20, 30, 28, 62), abs=0.5)
    for number, character in enumerate(slanted.characters):
        x0, y0, x1, y1 = character.box
        middle = photo()[round((y0 + y1) / 2), round((x0 + x1) / 2), 0]
        assert abs(int(middle) - FakeEngine().charset.encode("sold"[number])[0] * 2) <= 1


def test_characters_stay_within_the_photograph() -> None:
    region = regions.parse_region([[-10, -5], [40, -5], [40, 15], [-10, 15]])
    assert regions.to_photo((0.0, 0.0, 30.0, 20.0), region, (12, 100)) == pytest.approx((0, 0, 20, 12))


def test_a_box_reads_as_the_crop_cut_out_by_hand() -> None:
    picture = photo()
    (cut,) = Reader(FakeEngine()).read_crops([picture[30:62, 20:60]])
    (marked,) = Reader(FakeEngine()).recognize_regions(picture, [BOX])
    assert (marked.text, marked.confidence) == (cut.text, cut.confidence)


def test_turned_words_are_set_upright() -> None:
    picture = np.full((200, 200, 3), 128, dtype=np.uint8)
    word = np.rot90(paint("down", [0.99, 0.99, 0.6, 0.99], scale=2), 2)
    picture[50 : 50 + word.shape[0], 40 : 40 + word.shape[1]] = word
    box = [40, 50, 40 + word.shape[1], 50 + word.shape[0]]
    (reading,) = Reader(FakeEngine()).recognize_regions(picture, [box], rotate=True)
    assert (reading.text, reading.rotation) == ("down", 180)
    assert reading.characters[0].box[0] > reading.characters[3].box[0]


@pytest.mark.parametrize("number", [Decimal, Fraction, np.float32])
def test_numbers_of_any_type(number: Callable[[int], Any]) -> None:
    ((marked, _),) = regions.crops_of_regions(photo(), [[number(edge) for edge in BOX]])
    assert marked == regions.parse_region(BOX)


def test_a_box_is_cut_off_at_the_edges() -> None:
    ((marked, crop),) = regions.crops_of_regions(photo(), [[-10.5, 280, 50.2, 999]])
    assert crop.shape == (20, 51, 3)
    assert marked.corners[0] == (0.0, 280.0)


BAD = {
    "no numbers": "word",
    "an object": {"x": 1},
    "five numbers": [1, 2, 3, 4, 5],
    "texts of numbers": ["0", "0", "9", "9"],
    "truth values": [True, 0, 9, 9],
    "NumPy's truth values": [np.True_, 0, 9, 9],
    "a truth value in a point": [[0, 0], [9, 0], [9, 9], [False, 9]],
    "nothing": [None, 0, 9, 9],
    "ragged": [[1, 2], [3]],
    "not finite": [0, 0, float("nan"), 5],
    "huge": [0, 0, 1e300, 5],
    "overflow": [0, 0, 10**400, 5],
    "swapped": [60, 30, 20, 62],
    "crossed": [[0, 0], [50, 50], [50, 0], [0, 50]],
    "a line": [[0, 0], [10, 0], [20, 0], [30, 0]],
    "two corners almost equal": [[126, 87], [283, 81], [144, 275], [143.99999, 275.000006]],
    "three corners almost on a line": [[20, 20], [60, 19.9999999], [100, 20], [60, 60]],
    "outside": [WIDTH + 1, 0, WIDTH + 50, 50],
    "far outside": [[-5000, 0], [50, 0], [50, 50], [-5000, 50]],
    "mostly outside": [[-0.6 * WIDTH, 0], [50, 0], [50, 50], [-0.6 * WIDTH, 50]],
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_region_is_named_and_spoils_no_other(kind: str) -> None:
    first, bad, last = regions.crops_of_regions(photo(), [BOX, BAD[kind], BOX])
    assert isinstance(bad, ImageError)
    assert bad.code == "bad_region"
    assert "region 2 of 3" in bad.message
    assert not isinstance(first, ImageError)
    assert not isinstance(last, ImageError)
    with pytest.raises(ImageError, match="region 1 of 1"):
        Reader(FakeEngine()).recognize_regions(photo(), [BAD[kind]])


def test_crops_are_within_limits_each_and_together() -> None:
    limits = ImageLimits(max_pixels=HEIGHT * WIDTH)
    whole = [0, 0, WIDTH, HEIGHT]
    fits, beyond = regions.crops_of_regions(photo(), [whole, BOX], limits)
    assert not isinstance(fits, ImageError)
    assert isinstance(beyond, ImageError)
    assert beyond.code == "too_many_pixels"
    (tiny,) = regions.crops_of_regions(photo(), [[5, 5, 6, 6]])
    assert isinstance(tiny, ImageError)
    assert tiny.code == "too_small"


@given(st.lists(st.floats(-500, 900) | st.floats() | st.integers(), min_size=3, max_size=9))
@settings(max_examples=150, deadline=None)
def test_any_numbers_give_a_crop_or_a_named_error(numbers: list[float]) -> None:
    (outcome,) = regions.crops_of_regions(np.zeros((HEIGHT, WIDTH, 3), np.uint8), [numbers])
    if isinstance(outcome, ImageError):
        assert outcome.code in ("bad_region", "too_small", "extreme_aspect", "too_many_pixels")
    else:
        marked, crop = outcome
        x0, y0, x1, y1 = regions.to_photo((0, 0, crop.shape[1], crop.shape[0]), marked, (HEIGHT, WIDTH))
        assert 0 <= x0 <= x1 <= WIDTH
        assert 0 <= y0 <= y1 <= HEIGHT


FILES = {
    "json": ("[[20, 30, 60, 62], [[1, 2], [3, 2], [3, 4], [1, 4]]]", [BOX, [[1, 2], [3, 2], [3, 4], [1, 4]]]),
    "boxes": ("20,30,60,62\n\n", [BOX]),
    "IC15": ("\ufeff1,2,3,2,3,4,1,4,a, b\n", [[1, 2, 3, 2, 3, 4, 1, 4]]),
    "box with its text": ("20,30,60,62,left\n", [BOX]),
}


@pytest.mark.parametrize("kind", FILES)
def test_files_of_regions(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "regions.txt"
    path.write_text(FILES[kind][0], encoding="utf-8")
    assert regions.read_regions_file(path) == FILES[kind][1]


def test_a_file_of_regions_may_be_utf_16(tmp_path: Path) -> None:
    """As PowerShell writes it."""
    path = tmp_path / "regions.txt"
    path.write_text("20,30,60,62\n", encoding="utf-16")
    assert regions.read_regions_file(path) == [BOX]
    path.write_bytes(b"\xff1,2")
    with pytest.raises(StrAppError, match=r"regions\.txt"):
        regions.read_regions_file(path)


@pytest.mark.parametrize("text", ["", "[1, 2", "[" * 100_000, "left\n", "1,2,x,4\n", "0,0,60,24,58,25\n", "1,2,3\n"])
def test_a_file_without_regions_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "regions.txt"
    path.write_text(text)
    with pytest.raises(StrAppError, match=r"regions\.txt"):
        regions.read_regions_file(path)


def test_what_follows_the_numbers_of_a_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "regions.txt"
    path.write_text('20,30,60,62,"EXIT"\n20,30,60,62,12\n1,2,3,4,5,6,7,8,9,10\n')
    assert regions.read_regions_file(path) == [BOX, BOX, [1, 2, 3, 4, 5, 6, 7, 8]]
    path.write_text('20,30,60,62,"a,b,c,d"\n20,30,60,62,1,2,3,four\n20,30,60,62,a\u2028b\x0cc\n', encoding="utf-8")
    assert regions.read_regions_file(path) == [BOX, BOX, BOX]
    path.write_text("10,10,110,12,108,60,8,5B,EXIT\n")  # not the box 10, 10, 110, 12
    with pytest.raises(StrAppError, match=r"regions\.txt line 1: not 4 or 8 numbers"):
        regions.read_regions_file(path)


def test_quadrilaterals_are_flattened_and_placed_again_or_refused() -> None:
    random = np.random.default_rng(0)
    photo_size = (3000, 4000)
    blank, refused, read = np.zeros((*photo_size, 3), np.uint8), 0, 0
    for exponent in np.linspace(-9, 2, 45):
        for place in range(2):
            corners = np.array([[500, 500], [3000, 400], [3000, 800], [500, 900]]) + random.uniform(-9, 9, (4, 2))
            if place:
                corners[3] = corners[2] + random.normal(0, 10.0**exponent, 2)  # almost equal
            else:
                middle, across = (corners[0] + corners[2]) / 2, np.array([0.0, 10.0**exponent])
                corners[1] = middle - across  # almost on a line
            (result,) = regions.crops_of_regions(blank, [corners.tolist()])
            if isinstance(result, ImageError):
                refused += 1
                continue
            read += 1
            region, crop = result
            box = regions.to_photo((0, 0, crop.shape[1], crop.shape[0]), region, photo_size)
            points = np.array(region.corners)
            expected = [*points.min(axis=0), *points.max(axis=0)]
            assert np.abs(np.array(box) - expected).max() < 100, (exponent, place)
    assert min(refused, read) > 10
