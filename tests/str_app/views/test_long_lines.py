"""Lines too long for the widest canvas: cut into parts that overlap, and joined where both say the same."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from str_app.policy import DEFAULT_POLICY
from str_app.reader import Reader
from str_app.reading import Character, Reading
from str_app.views import MAX_VIEWS, merge, views_of
from str_app.views.canvas import Span
from str_app.views.long_lines import MAX_PARTS, joined, parts_of, whole_or_parts
from tests.str_app.fake_engine import CELL, CELLS, FakeEngine, paint

CANVAS = (32, 160)
PITCH = 10  # pixels a letter


def reading(text: str, confidence: float = 0.99, shift: float = 0.0, attention: bool = False) -> Reading:
    """Letters `PITCH` apart, in pixels of their own part; the maps have a column for each and for the end."""
    characters = tuple(
        Character(char, confidence, (PITCH * k + shift, 0, PITCH * (k + 1) + shift, 20)) for k, char in enumerate(text)
    )
    maps = np.eye(len(text) + 1, dtype=np.float32)[:, None, :] if attention else None
    covered = len(text) / (len(text) + 1)
    return Reading(text, confidence ** len(text), characters, maps, covered)


def cut(text: str, *ends: tuple[int, int]) -> tuple[list[str], list[Span]]:
    """Parts of a text and their spans."""
    return [text[first:last] for first, last in ends], [(PITCH * first, PITCH * last) for first, last in ends]


@given(st.integers(4, 200), st.integers(4, 20_000))
def test_parts_cover_the_crop_and_overlap(height: int, width: int) -> None:
    parts = parts_of((height, width), CANVAS)
    columns = width * 32 / height
    assert bool(parts) == (columns > DEFAULT_POLICY.squeeze * 160)
    if parts:
        assert 2 <= len(parts) <= MAX_PARTS
        assert (parts[0][0], parts[-1][1]) == (0, width)
        for (_, end), (begin, _) in pairwise(parts):
            assert (end - begin) * 32 / height == pytest.approx(DEFAULT_POLICY.overlap, abs=40 / height + 0.1)
        if columns <= 50 * 32:
            longest = max(end - begin for begin, end in parts)
            assert (longest - 1) * 32 / height <= DEFAULT_POLICY.squeeze * 160, "a part is squeezed no more than a crop"


@pytest.mark.parametrize("size", [(32, 32), (32, 100), (90, 32), (32, 600), (32, 1600), (1600, 32), (4, 4000)])
def test_no_crop_has_more_views_than_a_server_expects(size: tuple[int, int]) -> None:
    crop = np.zeros((*size, 3), np.uint8)
    views = views_of(crop, Reader(FakeEngine()).preprocessing, rotate=True)
    assert len(views) <= MAX_VIEWS
    assert views[0].turn == 0
    assert views[0].span is None


@pytest.mark.parametrize("count", [33, 50, 100])
def test_a_line_of_many_characters_is_read_in_as_many_parts_as_it_takes(count: int) -> None:
    """With three parts, lines of 80 digits came back empty."""
    text = "".join(chr(97 + index * 7 % 26) for index in range(count))
    crop = paint(text, 0.999)[:, : CELL * count]
    policy = replace(DEFAULT_POLICY, squeeze=1.0, overlap=4 * CELL)  # this engine cannot read what is squeezed
    reader = Reader(FakeEngine(), policy=policy)
    views = views_of(crop, reader.preprocessing, policy=policy)
    _, *parts = reader.read_canvases(views)
    assert joined(parts, [view.span for view in views if view.span], 32, policy).text == text


@pytest.mark.parametrize("turn", [0, 1, 2, 3])
def test_a_turned_line_is_read_in_parts_too(turn: int) -> None:
    text = "abcdefghijklmnopqrstuvwxyz0123456789"[: 2 * CELLS]
    upright = paint(text, 0.99)[:, : CELL * len(text)]
    given = np.ascontiguousarray(np.rot90(upright, -turn))
    reader = Reader(FakeEngine())
    views = views_of(given, reader.preprocessing, rotate=True)
    own = [view for view in views if view.turn == turn]
    assert [view.span for view in own] == [None, *parts_of(upright.shape[:2], (32, CELL * CELLS))]
    assert all((a.pixels == b.pixels).all() for a, b in zip(own, views_of(upright, reader.preprocessing), strict=True))
    blank = Reading("", 0.0, ())
    readings = iter(reader.read_canvases(own))
    each = [
        blank if view.turn != turn else replace(next(readings), confidence=0.01 if view.span is None else 0.99)
        for view in views
    ]
    reading = merge(views, each)
    assert (reading.text, reading.rotation) == (text, 90 * turn)
    mask = np.zeros(upright.shape[:2], dtype=int)
    mask[:, :CELL] = 1
    rows, columns = np.nonzero(np.rot90(mask, -turn))
    x0, y0, x1, y1 = reading.characters[0].box
    assert (x0, y0) == pytest.approx((columns.min(), rows.min()), abs=1)
    assert (x1, y1) == pytest.approx((columns.max() + 1, rows.max() + 1), abs=1)


@pytest.mark.parametrize("shift", [0.0, 6.0, -6.0])
def test_parts_are_joined_without_a_letter_twice_or_lost(shift: float) -> None:
    text = "www.CartoonStockBookkeeper.com"
    parts, spans = cut(text, (0, 13), (7, 24), (19, 30))
    readings = [reading(part, shift=shift * (k == 1)) for k, part in enumerate(parts)]
    line = joined(readings, spans, height=20)
    assert line.text == text
    assert line.confidence == pytest.approx(0.99 ** len(text))
    assert [round(c.box[0] / PITCH) for c in line.characters] == pytest.approx(list(range(len(text))), abs=1)


def test_letters_cut_by_an_edge_are_left_out() -> None:
    parts, spans = cut("internationalisation", (0, 12), (7, 20))
    parts = [parts[0][:-1] + "i", "l" + parts[1][1:]]
    assert joined([reading(part) for part in parts], spans, height=20).text == "internationalisation"


def test_parts_that_agree_on_nothing_meet_in_the_middle() -> None:
    line = joined([reading("aaaaaa"), reading("bbbbbb")], [(0, 60), (40, 100)], height=20)
    assert line.text == "aaaaabbbbb"
    assert line.confidence < 0.5 * 0.99**10, "less than the product of its characters"


def test_a_doubled_digit_is_read_once_at_the_seam() -> None:
    """The second part sees its first letter twice, the first part its last one once: neither is at the same place."""
    parts, spans = cut("689966448496200", (0, 9), (6, 15))
    shifted = [reading(parts[0], shift=3), reading("4" + parts[1], shift=-8)]
    assert joined(shifted, spans, height=20).text == "689966448496200"


def test_letters_at_other_places_are_the_same_where_the_texts_agree() -> None:
    """Attention is imprecise: here by more than a letter. By place alone, letters would be lost or doubled."""
    parts, spans = cut("4ED5MTCXWSTE0F3UC8TVJ", (0, 12), (7, 21))
    assert joined([reading(parts[0], shift=-7), reading(parts[1], shift=7)], spans, 20).text == "4ED5MTCXWSTE0F3UC8TVJ"


def test_a_dispute_costs_confidence_and_less_at_an_edge_than_in_the_middle() -> None:
    parts, spans = cut("internationalisation", (0, 12), (5, 20))
    agreed = joined([reading(part) for part in parts], spans, 20)
    disputed = joined([reading(parts[0][:8] + "x" + parts[0][9:]), reading(parts[1])], spans, 20)
    assert agreed.confidence == pytest.approx(0.99**20)
    assert disputed.confidence < 0.8 * agreed.confidence
    at_edge = joined([reading(parts[0][:-1] + "x"), reading(parts[1])], spans, 20)
    assert at_edge.text == "internationalisation"
    assert disputed.confidence < at_edge.confidence < agreed.confidence


def test_a_letter_that_one_part_alone_has_costs_confidence() -> None:
    parts, spans = cut("internationalisation", (0, 12), (5, 20))
    left, right = (reading(part) for part in parts)
    agreed = joined([left, right], spans, 20)
    without = replace(right, text=parts[1][:3] + parts[1][4:], characters=right.characters[:3] + right.characters[4:])
    line = joined([left, without], spans, 20)
    assert line.text == agreed.text
    assert line.confidence < 0.8 * agreed.confidence


def test_a_line_whose_end_was_not_read_is_unsure() -> None:
    parts, spans = cut("Z8H6WXJPDJHZ21", (0, 8), (5, 14))
    whole = joined([reading(part) for part in parts], spans, 20)
    short = joined([reading(parts[0]), reading(parts[1][:-4])], spans, 20)
    assert whole.confidence > 0.8
    assert short.text == "Z8H6WXJPDJ"
    assert short.confidence < 0.2


def test_a_line_whose_beginning_was_not_read_is_unsure() -> None:
    parts, spans = cut("Z8H6WXJPDJHZ21", (0, 8), (5, 14))
    short = joined([reading(parts[0][4:], shift=4 * PITCH), reading(parts[1])], spans, 20)
    assert short.text == "WXJPDJHZ21"
    assert short.confidence < 0.2


def test_doubled_digits_cost_confidence_and_doubled_letters_do_not() -> None:
    spans = [(0, 100), (60, 200)]
    blank = [Reading("", 0.0, ())] * 2
    confidences = [
        whole_or_parts(Reading(text, 0.99, ()), blank, spans, 20).confidence
        for text in ("12345", "12245", "bookkeeper")
    ]
    assert confidences == pytest.approx([0.99, 0.99 * DEFAULT_POLICY.doubled, 0.99])


def test_one_part_says_nothing() -> None:
    assert joined([reading(""), reading("abc")], [(0, 60), (40, 100)], height=20).text.endswith("bc")
    assert joined([reading("abc"), reading("")], [(0, 60), (40, 100)], height=20).text == "abc"
    assert joined([reading(""), reading("")], [(0, 60), (40, 100)], height=20).text == ""


def test_attention_lies_over_the_whole_crop() -> None:
    parts, spans = cut("abcdefgh", (0, 5), (3, 8))
    line = joined([reading(part, attention=True) for part in parts], spans, height=20)
    assert line.attention is not None
    np.testing.assert_array_equal(line.attention[:-1, 0], np.eye(8))
    assert line.attention.shape == (9, 1, 8)
    assert line.covered == 1.0
    assert joined([reading("abc", attention=True), reading("cde")], [(0, 30), (20, 50)], 20).attention is None


def test_the_attention_at_the_end_of_a_line_is_that_of_its_last_part() -> None:
    maps = np.eye(6, dtype=np.float32)[:, None]  # a column a letter, and one of paper for the end
    spans = [(0, 60), (30, 90)]
    parts = [replace(reading(text), attention=maps, covered=1.0) for text in ("abcde", "defgh")]
    line = joined(parts, spans, height=20)
    assert line.text == "abcdefgh"
    assert line.attention is not None
    assert line.attention[-1, 0].tolist() == [0.0] * 8 + [1.0]


@pytest.mark.parametrize(("whole", "kept"), [(0.2, True), (1.0, False)])
def test_the_more_confident_of_whole_and_parts(whole: float, kept: bool) -> None:
    text = "abcdefghijklmno"
    parts, spans = cut(text, (0, 10), (6, 15))
    best = whole_or_parts(Reading("whole", whole, ()), [reading(part) for part in parts], spans, height=20)
    assert best.text == (text if kept else "whole")


def test_a_reader_cuts_a_line_longer_than_its_canvas() -> None:
    text = "abcdefghijklmnopqrstuvwxyz0123456789"[: 2 * CELLS]
    crop = paint(text, 0.99)[:, : CELL * len(text)]
    reader = Reader(FakeEngine())
    views = views_of(crop, reader.preprocessing)
    spans = [view.span for view in views if view.span]
    assert views[0].span is None
    assert spans == parts_of((32, crop.shape[1]), (32, CELL * CELLS))
    whole, *parts = reader.read_canvases(views, attention=True)
    line = joined(parts, spans, height=32)
    assert line.text == text
    assert line.attention is not None
    assert len(line.attention) == len(text) + 1
    unsure = replace(whole, confidence=0.1)
    assert merge(views, [unsure, *parts]).text == text
    assert merge(views, [whole, *parts]) == whole, "this engine is sure of each second letter"


def test_no_parts_of_what_is_chosen_from_a_lexicon() -> None:
    reader = Reader(FakeEngine())
    crop = paint("a" * 2 * CELLS)
    assert all(view.span is None for view in views_of(crop, reader.preprocessing, rotate=True, parts=False))
    assert reader.read_crops([crop], lexicon=["xyz", "abc"])[0].text in ("abc", "xyz")
