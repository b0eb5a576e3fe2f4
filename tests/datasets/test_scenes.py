"""Composed scenes: the same again, words where their quads are, labels, files."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from str_app.datasets.renderer import FontSet, Scene, SceneComposer, Style, TextSource, WordList, find_fonts
from str_app.datasets.renderer import scene as scene_module
from str_app.datasets.renderer.geometry import Curve, View
from str_app.datasets.renderer.glyphs import FaceStore
from str_app.datasets.renderer.scene import ILLEGIBLE
from str_app.datasets.renderer.scene_writing import write_scenes
from str_app.datasets.renderer.sheet import scene_sheet
from str_app.datasets.renderer.text_block import LineSetting, set_block
from str_app.datasets.sample import DataError
from tests.datasets.renderer_fonts import write_font

WORDS = WordList(["open", "exit", "to", "a", "restaurant", "we're", "coffee"], [9, 5, 9, 9, 2, 1, 3])
NO_EFFECTS = Style(**dict.fromkeys(Style.__dataclass_fields__, 0.0))


@pytest.fixture(scope="module")
def fonts(tmp_path_factory: pytest.TempPathFactory) -> FontSet:
    folder = tmp_path_factory.mktemp("fonts")
    write_font(folder / "plain.ttf")
    write_font(folder / "poor.ttf", without="0123456789@")
    return find_fonts(folder, cache=folder / "cache.json")


@pytest.fixture(scope="module")
def composer(fonts: FontSet) -> SceneComposer:
    return SceneComposer(fonts, WORDS, seed=5)


@pytest.fixture(scope="module")
def scenes(composer: SceneComposer) -> list[Scene]:
    return [composer.compose(index) for index in range(24)]


def test_a_scene_is_a_picture_with_words(scenes: list[Scene]) -> None:
    for scene in scenes:
        height, width, channels = scene.image.shape
        assert (channels, scene.image.dtype) == (3, np.uint8)
        assert 640 <= max(height, width) <= 1280
        for word in scene.words:
            assert word.quad.shape == (4, 2)
            assert word.quad.dtype == np.float32
            count = 0 if word.text == ILLEGIBLE else len(word.text)
            assert word.character_quads.shape == (count, 4, 2)
            for quad in (word.quad, *word.character_quads):
                assert (quad >= 0).all()
                assert (quad <= (width, height)).all()
    counts = [len(scene.words) for scene in scenes]
    assert max(counts) > 60  # a page
    assert sum(counts) > 300
    legible = [word.text for scene in scenes for word in scene.words if word.text != ILLEGIBLE]
    assert len(legible) > 0.8 * sum(counts)


def test_the_same_index_is_the_same_scene_in_any_order(fonts: FontSet, scenes: list[Scene]) -> None:
    again = SceneComposer(fonts, WORDS, seed=5)
    for index in (7, 2, 7):
        scene = again.compose(index)
        np.testing.assert_array_equal(scene.image, scenes[index].image)
        assert [word.text for word in scene.words] == [word.text for word in scenes[index].words]
        for word, other in zip(scene.words, scenes[index].words, strict=True):
            np.testing.assert_array_equal(word.quad, other.quad)
            np.testing.assert_array_equal(word.character_quads, other.character_quads)
    other_seed = SceneComposer(fonts, WORDS, seed=6).compose(7)
    assert other_seed.image.shape != scenes[7].image.shape or (other_seed.image != scenes[7].image).any()


def test_quads_turn_clockwise_and_words_run_from_their_first_letter(scenes: list[Scene]) -> None:
    for scene in scenes:
        for word in scene.words:
            if word.text == ILLEGIBLE:
                continue  # they may be cut by the edge of the picture
            assert cv2.contourArea(word.quad, oriented=True) > 0
            if len(word.text) > 1:
                centres = word.character_quads.mean(axis=1)
                along = (word.quad[1] - word.quad[0]) + (word.quad[2] - word.quad[3])
                assert ((np.diff(centres, axis=0) @ along) > 0).mean() > 0.7


def test_lines_are_numbered_in_reading_order(scenes: list[Scene]) -> None:
    for scene in scenes:
        lines = [word.line for word in scene.words]
        assert lines == sorted(lines)
        for one, after in pairwise(scene.words):
            if one.line == after.line and ILLEGIBLE not in (one.text, after.text):
                assert (after.quad.mean(0) - one.quad.mean(0)) @ (one.quad[1] - one.quad[0]) > 0
    assert max(len({word.line for word in scene.words}) for scene in scenes) > 10


def test_what_the_words_change_lies_in_their_quads(fonts: FontSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """The picture is drawn with and without letters: their difference is where the quads are."""
    composer = SceneComposer(fonts, WORDS, seed=11, style=NO_EFFECTS)
    drawn = [composer._draw(index)[0] for index in range(12)]
    monkeypatch.setattr(
        scene_module, "paint", lambda *arguments: (arguments[5], np.zeros(arguments[5].shape[:2], np.uint8))
    )
    words = 0
    for index, canvas in enumerate(drawn):
        empty = composer._draw(index)[0].picture
        changed = np.abs(canvas.picture - empty).max(axis=2) > 12
        quads = np.zeros(changed.shape, np.uint8)
        for word in canvas.words:
            cv2.fillPoly(quads, [np.round(word.quad).astype(np.int32)], 1)
        around = cv2.dilate(quads, np.ones((5, 5), np.uint8))
        # Slanted words that the edge cuts have corners outside of their quads.
        assert (changed & (around == 0)).sum() <= 0.005 * changed.sum(), index
        for word in canvas.words:
            if word.text == ILLEGIBLE:
                continue
            for quad in word.character_quads:
                if cv2.contourArea(quad) < 6:  # outside the picture
                    continue
                inside = np.zeros(changed.shape, np.uint8)
                x, y, w, h = cv2.boundingRect(np.round(quad).astype(np.int32))
                cv2.fillPoly(inside, [np.round(quad).astype(np.int32)], 1)
                area = (slice(y, y + h), slice(x, x + w))
                assert changed[area][inside[area] > 0].any(), (index, word.text)
            words += 1
    assert words > 100


def test_a_curved_word_lies_in_its_quad(fonts: FontSet) -> None:
    face = FaceStore().get(fonts.fonts[0])
    block = set_block([LineSetting(("restaurant",), face, 36, 0.0, ())], "left", 1.5, 44)
    x0, _, x1, y1 = block.bounds
    view = View(Curve("arch", ((x0 + x1) / 2, y1), 160.0), np.eye(3), 500, 300, 1.0)
    quad, characters = scene_module._word_quad(view, block.words[0])
    for corner in characters.reshape(-1, 2):
        assert cv2.pointPolygonTest(quad, (float(corner[0]), float(corner[1])), True) > -1.5


def test_a_word_cut_by_the_edge_keeps_its_slant() -> None:
    quad = np.array([(50, 60), (150, 40), (152, 60), (52, 80)], np.float32)
    part = scene_module._visible_part(quad, 101, 100)
    np.testing.assert_allclose(part, [(50, 60), (100, 50), (101, 70), (52, 80)], atol=1)
    np.testing.assert_array_equal(scene_module._visible_part(quad, 200, 100), quad)


def test_lines_are_aligned_and_words_have_their_gaps(fonts: FontSet) -> None:
    face = FaceStore().get(fonts.fonts[0])
    lines = [LineSetting(("open", "to"), face, 36, 2.0, (25.0,)), LineSetting(("a",), face, 36, 0.0, ())]
    for align in ("left", "centre", "right", "justified"):
        first, second, below = set_block(lines, align, 1.5, 10).words
        assert second.boxes[0, 0] - first.boxes[:, 2].max() == pytest.approx(25, abs=1.5)
        left, right = first.boxes[0, 0], second.boxes[:, 2].max()
        places = {
            "left": below.boxes[0, 0] - left,
            "centre": below.boxes[0, [0, 2]].mean() - (left + right) / 2,
            "right": below.boxes[0, 2] - right,
        }
        assert abs(places[align if align != "justified" else "left"]) < 2.5
        assert below.baseline - first.baseline == pytest.approx(54, abs=1)
    first, second, _ = set_block(lines, "justified", 1.5, 10, width=400).words
    assert second.boxes[:, 2].max() - first.boxes[0, 0] == pytest.approx(400, abs=2.5)


def test_texts_of_a_list_only(fonts: FontSet) -> None:
    words = TextSource(WordList(["OPEN"], [1]), only_words=True)
    composer = SceneComposer(fonts, words, seed=1)
    signs = [composer.compose(index) for index in range(6)]
    assert {word.text for scene in signs for word in scene.words} - {ILLEGIBLE} == {"OPEN"}


def test_a_folder_of_scenes(tmp_path: Path, fonts: FontSet, scenes: list[Scene]) -> None:
    done: list[int] = []
    write_scenes(tmp_path / "a", (fonts, WORDS, 5), 3, start=2, progress=done.append)
    write_scenes(tmp_path / "b", (fonts, WORDS, 5), 3, start=2, workers=2)
    assert done == [1, 2, 3]
    lines = (tmp_path / "a" / "labels.jsonl").read_text().splitlines()
    assert lines == (tmp_path / "b" / "labels.jsonl").read_text().splitlines()
    for index, line in enumerate(lines, 2):
        row = json.loads(line)
        assert row["image"] == f"images/{index:06d}.jpg"
        assert (tmp_path / "a" / row["image"]).read_bytes() == (tmp_path / "b" / row["image"]).read_bytes()
        scene = scenes[index]
        with Image.open(tmp_path / "a" / row["image"]) as picture:
            assert picture.size == scene.image.shape[1::-1]
        assert [word["text"] for word in row["words"]] == [word.text for word in scene.words]
        for stored, word in zip(row["words"], scene.words, strict=True):
            np.testing.assert_allclose(stored["quad"], word.quad.ravel(), atol=0.051)
            assert stored["line"] == word.line
            assert len(stored["characters"]) == len(word.character_quads)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_folder_that_exists_is_kept(tmp_path: Path, fonts: FontSet) -> None:
    (tmp_path / "kept.txt").write_text("mine")
    with pytest.raises(DataError, match="exists already"):
        write_scenes(tmp_path, (fonts, WORDS, 5), 1)
    with pytest.raises(DataError, match="count 0"):
        write_scenes(tmp_path / "new", (fonts, WORDS, 5), 0)
    assert (tmp_path / "kept.txt").read_text() == "mine"


def test_a_sheet_of_scenes(scenes: list[Scene]) -> None:
    sheet = np.asarray(scene_sheet(scenes[:4]))
    assert sheet.shape == (720, 1440, 3)
    assert (sheet[:300, :400] != 255).any()


def test_an_interrupted_folder_of_scenes_leaves_nothing(tmp_path: Path, fonts: FontSet) -> None:
    def stop(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_scenes(tmp_path / "new", (fonts, WORDS, 5), 2, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_fonts_that_cannot_set_running_text_cost_the_pages_only(tmp_path: Path) -> None:
    write_font(tmp_path / "poor.ttf", without=",.")
    poor = SceneComposer(find_fonts(tmp_path, cache=tmp_path / "cache.json"), WORDS, seed=5)
    assert sum(len(poor.compose(index).words) for index in range(12)) > 10
