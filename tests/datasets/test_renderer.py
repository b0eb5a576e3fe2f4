"""What is drawn: the same crops again, boxes where the characters are, readable."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from str_app.datasets.lmdb_source import LmdbSource
from str_app.datasets.renderer import (
    FontError,
    FontSet,
    Renderer,
    Style,
    TextSource,
    WordList,
    encode,
    find_fonts,
    find_photographs,
    make_style,
)
from str_app.datasets.renderer.geometry import Curve, View, choose_view
from str_app.datasets.renderer.render import _is_legible
from str_app.datasets.renderer.sheet import contact_sheet
from str_app.datasets.renderer.writing import render_to_lmdb
from str_app.datasets.sample import DataError, Sample
from tests.datasets.renderer_fonts import write_font

WORDS = WordList(["open", "exit", "to", "a", "restaurant", "we're", "coffee"], [9, 5, 9, 9, 2, 1, 3])


@pytest.fixture(scope="module")
def fonts(tmp_path_factory: pytest.TempPathFactory) -> FontSet:
    folder = tmp_path_factory.mktemp("fonts")
    write_font(folder / "plain.ttf")
    write_font(folder / "poor.ttf", without="0123456789@")
    write_font(folder / "capitals.ttf", small_as_capitals=True)
    return find_fonts(folder, cache=folder / "cache.json")


@pytest.fixture(scope="module")
def samples(fonts: FontSet) -> list[Sample]:
    renderer = Renderer(fonts, WORDS, seed=3)
    return [renderer.render(index) for index in range(400)]


def test_samples_are_what_a_source_yields(samples: list[Sample]) -> None:
    for sample in samples:
        height, width, channels = sample.image.shape
        assert (channels, sample.image.dtype) == (3, np.uint8)
        assert 8 <= height <= 200
        assert 4 <= width <= 400
        assert 1 <= len(sample.text) <= 32
    assert len({sample.image.shape for sample in samples}) > 200


def test_every_character_has_a_box_inside_the_crop(samples: list[Sample]) -> None:
    for sample in samples:
        height, width = sample.image.shape[:2]
        assert sample.boxes is not None
        assert sample.boxes.shape == (len(sample.text), 4)
        assert sample.boxes.dtype == np.float32
        x0, y0, x1, y1 = sample.boxes.T
        assert (x0 >= 0).all()
        assert (y0 >= 0).all()
        assert (x1 <= width).all()
        assert (y1 <= height).all()
        assert (x1 > x0).all()
        assert (y1 > y0).all()


def test_effects_that_are_off_by_default(fonts: FontSet, samples: list[Sample]) -> None:
    def rendered(**shares: float) -> list[Sample]:
        renderer = Renderer(fonts, WORDS, 3, Style(**shares))
        changed = [renderer.render(index) for index in range(60)]
        for sample in changed:
            assert sample.boxes is not None
            assert len(sample.boxes) == len(sample.text)
        return changed

    ordinary = [sample.text.lower() for sample in samples[:60]]
    fragments = [sample.text.lower() for sample in rendered(fragment=1.0)]
    long = [(part, text) for part, text in zip(fragments, ordinary, strict=True) if len(text) > 3]
    assert len(long) > 15
    assert all(part in text and len(text) > len(part) >= len(text) / 3 for part, text in long)
    assert sum(s.text.lower() not in ordinary for s in rendered(contextless=1.0)) > 50
    confused = [sample.text.lower() for sample in rendered(confused=1.0)]
    assert sum(one != other for one, other in zip(confused, ordinary, strict=True)) > 30
    assert [sample.text for sample in rendered(oblique=1.0)] == [sample.text for sample in samples[:60]]
    distorted = rendered(elastic=1.0)[7]
    assert distorted.text == samples[7].text
    assert distorted.image.shape == samples[7].image.shape
    assert (distorted.image != samples[7].image).any()


def test_hidden_letters_show_a_quarter_at_most() -> None:
    boxes = np.array([[60 + 30 * k, 50, 80 + 30 * k, 75] for k in range(6)], np.float32)
    style = Style(rotation=0.0, curve=0.0)
    seen = 0
    for seed in range(60):
        view = choose_view(np.random.default_rng(seed), boxes, 75.0, style, hidden=(2, 1))
        places = view.boxes(boxes)
        for index in (1, 5):
            x0, x1 = np.clip(places[index, [0, 2]], 0, view.width)
            assert x1 - x0 <= 0.3 * (places[index, 2] - places[index, 0]) + 1
            seen += x1 > x0
        assert places[0, 2] <= 0
        assert places[2, 2] > 0
        assert places[4, 0] < view.width
    assert seen > 10


def test_oblique_words_are_narrow_on_steep_lines_with_upright_strokes() -> None:
    left = np.arange(60, 300, 30, dtype=np.float32)
    boxes = np.stack([left, left * 0 + 50, left + 20, left * 0 + 75], axis=1)
    slopes, shares, leans = [], [], []
    for seed in range(200):
        view = choose_view(np.random.default_rng(seed), boxes, 75.0, Style(oblique=1.0, curve=0.0))
        places = view.boxes(boxes)
        (x0, y0), (x1, y1) = ((places[k, :2] + places[k, 2:]) / 2 for k in (0, -1))
        slopes.append(abs(y1 - y0) / (x1 - x0))
        shares.append((x1 - x0) / np.median(places[:, 3] - places[:, 1]))
        top, bottom = view.project(np.array([175, 175], np.float32), np.array([50, 75], np.float32))
        leans.append(abs(bottom[0] - top[0]) / (bottom[1] - top[1]))
        assert view.height <= 121
    assert np.median(slopes) > 0.25
    assert max(slopes) < 1.6
    assert np.median(leans) < 0.15
    assert np.median(shares) < 0.6 * (left[-1] - left[0]) / 25  # of the word as it is written


@pytest.mark.parametrize("style", [Style(), Style(oblique=1.0)])
def test_boxes_follow_the_ink_through_curve_and_perspective(style: Style) -> None:
    """A disc drawn where a box is in the plane is found where the box is in the crop."""
    boxes = np.array([[60, 50, 80, 70], [100, 50, 120, 70], [220, 50, 240, 70], [330, 50, 350, 70]], np.float32)
    for seed in range(60):
        view = choose_view(np.random.default_rng(seed), boxes, 70.0, style)
        places = view.boxes(boxes)
        for box, place in zip(boxes, places, strict=True):
            plane = np.zeros((120, 420), np.uint8)
            plane[int(box[1]) : int(box[3]), int(box[0]) : int(box[2])] = 255
            rows, columns = np.nonzero(view.sample(plane) > 100)
            inside = np.clip(place, 0, [view.width, view.height, view.width, view.height])
            if len(rows) == 0 or (inside != place).any():
                continue  # partly cut off
            found = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            assert np.abs(found - place).max() < 2.5, seed


def test_a_curve_goes_there_and_back() -> None:
    x, y = np.linspace(10, 300, 40, dtype=np.float32), np.linspace(20, 90, 40, dtype=np.float32)
    for curve in (
        Curve(),
        Curve("arch", (150, 80), 160),
        Curve("smile", (150, 80), 220),
        Curve("bow", (150, 80), 140, 12),
        Curve("wave", (150, 80), 50, 9, 1.0),
    ):
        back = curve.backward(*curve.forward(x, y))
        np.testing.assert_allclose(back, (x, y), atol=1e-2)


def test_the_same_index_is_the_same_crop_in_any_order(fonts: FontSet, samples: list[Sample]) -> None:
    again = Renderer(fonts, WORDS, seed=3)
    for index in (399, 7, 250, 7):
        sample = again.render(index)
        assert sample.text == samples[index].text
        np.testing.assert_array_equal(sample.image, samples[index].image)
        np.testing.assert_array_equal(sample.boxes, samples[index].boxes)


def test_another_seed_is_another_data_set(fonts: FontSet, samples: list[Sample]) -> None:
    other = Renderer(fonts, WORDS, seed=4)
    assert sum(other.render(index).text == samples[index].text for index in range(40)) < 20


def test_the_number_of_workers_does_not_change_a_byte(fonts: FontSet, tmp_path: Path) -> None:
    for workers in (1, 2):
        render_to_lmdb(tmp_path / f"{workers}.lmdb", (fonts, WORDS, 5), count=130, workers=workers)
    assert (tmp_path / "1.lmdb" / "data.mdb").read_bytes() == (tmp_path / "2.lmdb" / "data.mdb").read_bytes()
    one, two = LmdbSource(tmp_path / "1.lmdb"), LmdbSource(tmp_path / "2.lmdb")
    assert len(one) == len(two) == 130
    for index in range(130):
        assert one.image_bytes(index) == two.image_bytes(index)
        assert one.label(index) == two.label(index)
        np.testing.assert_array_equal(one[index].boxes, two[index].boxes)


def test_start_continues_a_data_set(fonts: FontSet, tmp_path: Path) -> None:
    render_to_lmdb(tmp_path / "all.lmdb", (fonts, WORDS, 5), count=20)
    render_to_lmdb(tmp_path / "rest.lmdb", (fonts, WORDS, 5), count=8, start=12)
    whole, rest = LmdbSource(tmp_path / "all.lmdb"), LmdbSource(tmp_path / "rest.lmdb")
    assert [whole.image_bytes(12 + i) for i in range(8)] == [rest.image_bytes(i) for i in range(8)]


def test_an_interrupted_data_set_goes_on_where_it_was(fonts: FontSet, tmp_path: Path) -> None:
    def stop(done: int) -> None:
        if done >= 100:
            raise KeyboardInterrupt

    out = tmp_path / "out.lmdb"
    with pytest.raises(KeyboardInterrupt):
        render_to_lmdb(out, (fonts, WORDS, 5), count=130, workers=2, progress=stop)
    assert not out.exists()
    with pytest.raises(DataError, match="a partial copy of another data set"):
        render_to_lmdb(out, (fonts, WORDS, 6), count=130)
    steps: list[int] = []
    render_to_lmdb(out, (fonts, WORDS, 5), count=130, progress=steps.append)
    assert steps == [100, 130]
    render_to_lmdb(tmp_path / "whole.lmdb", (fonts, WORDS, 5), count=130)
    resumed, whole = LmdbSource(out), LmdbSource(tmp_path / "whole.lmdb")
    assert [resumed.image_bytes(i) for i in range(130)] == [whole.image_bytes(i) for i in range(130)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.lmdb", "whole.lmdb"]
    assert [path.name for path in out.iterdir()] == ["data.mdb"]


def test_a_style_switches_effects_on_and_off(fonts: FontSet) -> None:
    straight = Renderer(fonts, WORDS, 3, make_style(["curve=0", "rotation=0", "perspective=0"]))
    assert straight.style.curve == 0
    assert straight.identity != Renderer(fonts, WORDS, 3).identity
    for choice, complaint in (
        ("bend=0.1", "unknown effect 'bend'"),
        ("curve=2", "out of range"),
        ("curve", "not of the form"),
    ):
        with pytest.raises(DataError, match=complaint):
            make_style([choice])
    with pytest.raises(DataError, match="exceed 1"):
        make_style(["shadow=0.8", "halo=0.3"])


def test_photographs_stand_behind_the_letters(fonts: FontSet, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no JPEG photograph"):
        find_photographs(tmp_path)
    field = np.zeros((500, 600, 3), np.uint8)
    field[:, ::2, 1] = 200  # green and black stripes, as no palette has them
    Image.fromarray(field).save(tmp_path / "field.jpg", quality=95)
    Image.fromarray(field[:200]).save(tmp_path / "small.jpg")
    photographs = find_photographs(tmp_path)
    assert [picture.shape for picture in photographs] == [(500, 600, 3)]
    with_them = Renderer(fonts, WORDS, 3, make_style(["photographs=1"]), photographs)
    without = Renderer(fonts, WORDS, 3, make_style(["photographs=1"]))
    assert with_them.identity != without.identity
    assert any(not np.array_equal(with_them.render(i).image, without.render(i).image) for i in range(4))


@pytest.mark.parametrize(("count", "start", "workers"), [(0, 0, 1), (3, -1, 1), (3, 0, 0)])
def test_senseless_numbers_are_refused(fonts: FontSet, tmp_path: Path, count: int, start: int, workers: int) -> None:
    with pytest.raises(DataError, match="they must be at least 1, 0 and 1"):
        render_to_lmdb(tmp_path / "out.lmdb", (fonts, WORDS, 5), count, start, workers)


def test_a_word_that_no_font_can_write_is_named(tmp_path: Path) -> None:
    write_font(tmp_path / "poor.ttf", without="@")
    renderer = Renderer(find_fonts(tmp_path, tmp_path / "c.json"), TextSource(WordList(["a@b"], [1]), True), 0)
    with pytest.raises(FontError, match="'a@b'"):
        renderer.render(0)


def test_blank_and_cut_off_crops_count_as_unreadable() -> None:
    ink = np.zeros((20, 40), np.uint8)
    ink[5:15, 10:14] = ink[5:15, 20:24] = 255
    boxes = np.array([[10, 5, 14, 15], [20, 5, 24, 15]], np.float32)
    crop = np.full((20, 40, 3), 120, np.uint8)
    assert not _is_legible(crop, ink, boxes)
    crop[ink > 0] = (120, 200, 120)
    assert _is_legible(crop, ink, boxes)
    gone = boxes.copy()
    gone[1] = (40, 5, 40, 15)
    assert not _is_legible(crop, ink, gone)


def test_ink_stands_out_in_every_crop(samples: list[Sample]) -> None:
    spread = [float(sample.image.reshape(-1, 3).std(axis=0).max()) for sample in samples]
    assert min(spread) > 2
    assert np.median(spread) > 20


def test_encoding_keeps_size_and_channel_order() -> None:
    image = np.zeros((16, 24, 3), np.uint8)
    image[:, :, 0] = 200
    back = cv2.imdecode(np.frombuffer(encode(image), np.uint8), cv2.IMREAD_COLOR)
    assert back is not None
    assert back.shape == image.shape
    assert np.abs(back[8, 8].astype(int) - (0, 0, 200)).max() < 12  # OpenCV reads BGR


def test_crops_are_small_files(samples: list[Sample]) -> None:
    assert np.mean([len(encode(sample.image)) for sample in samples]) < 3000


def test_a_sheet_of_crops(samples: list[Sample]) -> None:
    sheet = np.asarray(contact_sheet(samples[:9]))
    assert sheet.shape == (2 * 78, 8 * 190, 3)
    assert (sheet[:58, :186] != 255).any()  # the first crop
    assert (sheet[60:78, :190] != 255).any()  # its label


def test_small_views_are_halved_before_sampling() -> None:
    plane = np.zeros((200, 200), np.uint8)
    plane[:, ::2] = 255  # stripes of one pixel: bilinear sampling alone would leave beats
    seen = View(Curve(), np.diag([0.27, 0.27, 1.0]), 50, 50, 0.27).sample(plane)
    assert seen[4:-4, 4:-4].std() < 8


def test_texts_that_no_font_has_are_drawn_anew(tmp_path: Path) -> None:
    write_font(tmp_path / "poor.ttf", without="0123456789@_")
    poor = find_fonts(tmp_path, cache=tmp_path / "cache.json")
    crops = Renderer(poor, TextSource(WORDS), seed=5)
    texts = [crops.render(index).text for index in range(80)]
    assert not any(set(text) & set("0123456789@_") for text in texts)
    numbers = TextSource(WordList(["7", "42"], [1.0, 1.0]), only_words=True)
    with pytest.raises(FontError, match=r"none of the 1 fonts has all the glyphs of '(7|42)', nor of 99 texts before"):
        Renderer(poor, numbers, seed=5).render(0)
