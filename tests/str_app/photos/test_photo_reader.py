"""Photographs of painted words: all of them are read, in the order in which a person reads them."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pytest
from PIL import Image

from str_app.errors import ImageError
from str_app.inputs.images import ImageLimits
from str_app.photos.photo_reader import PhotoPipeline, PhotoPolicy, PhotoReader
from str_app.photos.reading import PhotoReading
from str_app.policy import SearchPolicy, TurnWeights
from str_app.reader import Reader
from tests.str_app.fake_engine import FakeEngine, paint
from tests.str_app.photos.painted_photo import AtGrey, KnownPlaces, box, photo_of

WORDS = {(20, 10): "Mind", (80, 10): "the", (130, 10): "gap", (24, 60): "between", (110, 60): "train"}


def photo_reader(quads: object, unit: str = "word") -> PhotoReader:
    exact = PhotoPolicy(room=0.0)  # painted words have no room around them
    pipeline = PhotoPipeline(KnownPlaces(quads, unit), AtGrey() if unit == "line" else None, exact)
    return PhotoReader(Reader(FakeEngine(), policy=SearchPolicy(tall=math.inf)), pipeline)  # painted letters are tall


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [4, 2, 0, 3, 1]])
def test_words_come_in_reading_order(order: list[int]) -> None:
    photo, quads = photo_of(WORDS)
    reading = photo_reader([quads[index] for index in order]).read(photo)
    assert reading.text == "Mind the gap\nbetween train"
    assert [word.text for word in reading.words] == list(WORDS.values())
    assert [line.words for line in reading.lines] == [(0, 1, 2), (3, 4)]
    assert [word.line for word in reading.words] == [0, 0, 0, 1, 1]
    assert [word.quad for word in reading.words] == [tuple(map(tuple, quad)) for quad in quads]


def test_a_price_list_is_read_row_by_row() -> None:
    photo, quads = photo_of(
        {(20, 10): "Tea", (300, 10): "2.20", (20, 60): "Apple", (82, 60): "cake", (300, 60): "4.10"}
    )
    reading = photo_reader(quads).read(photo)
    assert reading.text == "Tea 2.20\nApple cake 4.10"
    assert [line.words for line in reading.lines] == [(0, 1), (2, 3, 4)]


def test_lines_are_taken_apart() -> None:
    photo, _ = photo_of(WORDS)
    reading = photo_reader([box(10, 10, 200, 42), box(10, 60, 200, 92)], "line").read(photo)
    assert reading.text == "Mind the gap\nbetween train"
    assert np.allclose(reading.words[1].quad, box(80, 10, 112, 42), atol=0.5)


def test_a_line_may_be_longer_than_any_crop() -> None:
    places = {(10 + 50 * column, 10): f"w{column:02}" for column in range(40)}
    photo, _ = photo_of(places, (60, 2100))
    reading = photo_reader([box(8, 10, 2090, 42)], "line").read(photo)
    assert reading.text == " ".join(places.values())


def test_characters_are_in_pixels_of_the_photograph() -> None:
    photo, quads = photo_of(WORDS)
    word = photo_reader(quads).read(photo).words[1]
    assert word.reading.characters[0].box == pytest.approx((80, 10, 88, 42))


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_text_in_every_direction(turns: int) -> None:
    """The photograph turned counter-clockwise by quarter turns: the line is read, and its corners turn with it."""
    photo, _ = photo_of({(20, 10): "Mind", (80, 10): "the", (130, 10): "gap"})
    turned = np.ascontiguousarray(np.rot90(photo, turns))
    height, width = photo.shape[:2]
    x0, y0, x1, y1 = 10, 10, 180, 42
    lines = [box(x0, y0, x1, y1), box(y0, width - x1, y1, width - x0)]
    lines += [box(width - x1, height - y1, width - x0, height - y0), box(height - y1, x0, height - y0, x1)]
    reading = photo_reader([lines[turns]], "line").read(turned)
    assert reading.text == "Mind the gap"
    first_corner = [(20, 10), (10, width - 20), (width - 20, height - 10), (height - 10, 20)][turns]
    assert reading.words[0].quad[0] == pytest.approx(first_corner, abs=0.5)


def test_the_readers_policy_says_which_way_up_a_line_is_read() -> None:
    photo, _ = photo_of({(20, 10): "Mind"}, probability=0.6)
    pipeline = photo_reader([box(20, 10, 52, 42)]).pipeline
    on_its_head = SearchPolicy(tall=math.inf, blank=False, turns=TurnWeights(turned=1e3))
    for policy, text in ((SearchPolicy(tall=math.inf, blank=False), "Mind"), (on_its_head, "dniM")):
        assert PhotoReader(Reader(FakeEngine(), policy=policy), pipeline).read(photo).text == text


def test_letters_at_even_distances_are_one_word() -> None:
    """Read again as one; the fake engine reads its grey gaps as the end of the word."""
    photo, _ = photo_of({(20 + 30 * place, 10): letter for place, letter in enumerate("SALE")})
    (word,) = photo_reader([box(10, 10, 140, 42)], "line").read(photo).words
    assert word.text.startswith("S")
    assert np.allclose(word.quad, box(20, 10, 126, 42), atol=0.5)


def test_short_words_at_uneven_distances_stay_apart() -> None:
    photo, _ = photo_of({(20, 10): "I", (54, 10): "am", (90, 10): "in", (128, 10): "it"})
    assert photo_reader([box(10, 10, 160, 42)], "line").read(photo).text == "I am in it"


@pytest.mark.parametrize("parts", [("$9.", "99"), ("14:11", "-16"), ("192.", "168.", "0")])
def test_parts_of_a_number_without_a_space_are_one_word(parts: tuple[str, ...]) -> None:
    photo, places = photo_of(side_by_side(parts, gap=4))
    (word,) = photo_reader([line_around(places)], "line").read(photo).words
    assert word.text.startswith(parts[0]), "read again as one; the fake engine ends at a gap"
    assert np.allclose(word.quad, line_around(places), atol=0.5)


@pytest.mark.parametrize(("parts", "gap"), [(("1.", "25"), 12), (("7", "8"), 4), (("St.", "9"), 4), (("9.", "May"), 4)])
def test_numbers_and_words_with_a_space_stay_apart(parts: tuple[str, ...], gap: int) -> None:
    photo, places = photo_of(side_by_side(parts, gap))
    assert photo_reader([line_around(places)], "line").read(photo).text == " ".join(parts)


def side_by_side(parts: Sequence[str], gap: int) -> dict[tuple[int, int], str]:
    """Where the parts of a line stand, with so many pixels between them."""
    places, x = {}, 20
    for part in parts:
        places[(x, 10)] = part
        x += 8 * (len(part) + 1) + gap  # one more for the end
    return places


def line_around(places: list[list[list[float]]]) -> list[list[float]]:
    return box(20, 10, places[-1][1][0], 42)


def test_two_parted_numbers_in_a_line() -> None:
    first, second = side_by_side(("1.", "25"), gap=4), side_by_side(("2.", "50"), gap=4)
    photo, places = photo_of({**first, **{(x + 150, y): text for (x, y), text in second.items()}})
    words = photo_reader([line_around(places)], "line").read(photo).words
    expected = [box(20, 10, 72, 42), box(170, 10, 222, 42)]
    assert np.allclose([word.quad for word in words], expected, atol=0.5)


def test_a_word_is_part_of_one_run_only() -> None:
    """The 3 may continue 12. or begin a word of letters that stand apart: none of them is lost."""
    photo, places = photo_of(side_by_side(("12.", "3", "4", "5"), gap=4))
    words = photo_reader([line_around(places)], "line").read(photo).words
    assert np.allclose([word.quad for word in words], [places[0], box(56, 10, 112, 42)], atol=0.5)


def test_a_narrow_letter_is_not_turned() -> None:
    photo, (place,) = photo_of({(20, 10): "I"})
    assert photo_reader([place], "line").read(photo).text == "I"


def test_a_word_that_the_reader_turned_begins_at_its_first_letter() -> None:
    photo = np.full((120, 120, 3), 128, np.uint8)
    photo[20:84, 30:62] = np.rot90(paint("upwards", 0.98))
    pipeline = photo_reader([box(30, 20, 62, 84)]).pipeline
    (word,) = PhotoReader(Reader(FakeEngine()), pipeline).read(photo).words
    assert word.text == "upwards"
    assert word.quad == ((30, 84), (30, 20), (62, 20), (62, 84))


def test_a_line_that_is_read_well_is_read_once() -> None:
    photo, quads = photo_of(WORDS)
    reader = photo_reader(quads)
    engine = reader.reader.engine
    assert isinstance(engine, FakeEngine)
    reader.read(photo)
    assert sum(engine.batches) == len(WORDS)


def test_words_are_read_with_room_around_them() -> None:
    pipeline = PhotoPipeline(KnownPlaces([box(100, 100, 200, 132)]), policy=PhotoPolicy(room=0.25))
    (crop,) = next(pipeline.steps(np.full((240, 640, 3), 128, np.uint8)))
    assert crop.shape == (32 + 2 * 8, 100 + 2 * 8, 3)


def test_doubtful_words_are_marked_and_kept() -> None:
    photo, quads = photo_of({(20, 10): "perhaps"}, probability=0.6)
    (word,) = photo_reader(quads).read(photo).words
    assert word.text == "perhaps"
    assert word.doubtful


def test_a_blank_wall_has_no_words() -> None:
    reading = photo_reader([]).read(np.full((64, 64, 3), 200, np.uint8))
    assert reading == PhotoReading(64, 64, (), ())
    assert reading.text == ""


def test_a_detection_at_the_edge_that_leaves_no_pixels_is_dropped() -> None:
    photo, quads = photo_of(WORDS)
    reading = photo_reader([*quads, box(630, 100, 641, 101)]).read(photo)
    assert len(reading.words) == len(WORDS)


def test_a_photograph_may_have_more_pixels_than_a_crop() -> None:
    encoded = io.BytesIO()
    Image.new("L", (8000, 6000), 200).save(encoded, "PNG")
    with pytest.raises(ImageError, match="shrink it"):
        Reader(FakeEngine()).recognize([encoded.getvalue()])
    reading = photo_reader([]).read(encoded.getvalue())
    assert (reading.width, reading.height) == (8000, 6000)


@pytest.mark.parametrize("limits", [ImageLimits(min_side=200), ImageLimits(max_aspect=3.0)])
def test_the_shape_that_a_photograph_must_have_is_not_that_of_its_words(limits: ImageLimits) -> None:
    photo, quads = photo_of({(20, 10): "Mind", (80, 10): "gap", (24, 60): "lengthy-word"})
    assert photo_reader(quads).read(photo, limits=limits).text == "Mind gap\nlengthy-word"


@pytest.mark.parametrize("of", [list, iter])
def test_a_lexicon_may_be_an_iterator(of: Callable[[list[str]], Iterable[str]]) -> None:
    """Text on its head is read in a second round."""
    photo, quads = photo_of({(20, 10): "Mind", (80, 10): "gap"}, probability=0.6)
    reading = photo_reader(quads).read(photo, lexicon=of(["mind", "gap", "other"]))
    assert reading.text == "mind gap"


def test_exif_turns_are_applied_first() -> None:
    photo, quads = photo_of(WORDS)
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise when shown
    Image.fromarray(np.ascontiguousarray(np.rot90(photo))).save(buffer, "PNG", exif=exif)
    reading = photo_reader(quads).read(buffer.getvalue())
    assert (reading.width, reading.height) == (640, 240)
    assert reading.text == "Mind the gap\nbetween train"


def test_a_thousand_words() -> None:
    places = {(10 + 50 * column, 10 + 44 * row): f"w{row:02}{column:02}" for row in range(50) for column in range(20)}
    photo, quads = photo_of(places, (2220, 1020))
    reading = photo_reader(quads).read(photo)
    assert [word.text for word in reading.words] == list(places.values())
    assert [len(line.words) for line in reading.lines] == [20] * 50


def test_a_broken_file_names_itself(tmp_path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff nothing")
    with pytest.raises(ImageError, match=r"bad\.jpg"):
        photo_reader([]).read(tmp_path / "bad.jpg")


def test_json_and_back() -> None:
    photo, quads = photo_of(WORDS)
    reading = photo_reader(quads).read(photo)
    assert PhotoReading.from_dict(reading.as_dict()).as_dict() == reading.as_dict()
    fields = reading.as_dict()
    assert fields["lines"][1] == {"text": "between train", "words": [3, 4]}
    assert set(fields["words"][0]) == {"text", "confidence", "characters", "quad", "detection", "line", "doubtful"}


def test_a_run_whose_joined_crop_is_refused_keeps_its_parts() -> None:
    long = {(20 + 30 * place, 10): "i" for place in range(80)}  # too long for a crop, once joined
    short = {(20 + 30 * place, 90): letter for place, letter in enumerate("SALE")}
    photo, _ = photo_of(long | short, size=(240, 2500))
    lines = photo_reader([box(10, 10, 2420, 42), box(10, 90, 140, 122)], "line").read(photo).text.split("\n")
    assert lines[0] == " ".join("i" * 80)
    assert lines[1].startswith("S")
