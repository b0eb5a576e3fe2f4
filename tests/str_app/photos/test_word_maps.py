"""Words read from maps: what training draws, the detector finds again."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from str_app.photos.detector import Detection
from str_app.photos.word_maps import WordMapPolicy, words_of
from str_app.training.detection.targets import draw_targets

Quads = npt.NDArray[np.float32]


def found_again(quads: Quads, ignored: npt.NDArray[np.bool_] | None = None, side: int = 256) -> list[Detection]:
    targets = draw_targets(quads, np.zeros(len(quads), bool) if ignored is None else ignored, side, side)
    return words_of(targets.cores, targets.edges, WordMapPolicy())


def turned(width: float, height: float, degrees: float, centre: tuple[float, float] = (128, 128)) -> Quads:
    """A rectangle's corners from the top left of the text, turned clockwise."""
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], np.float32) * (width / 2, height / 2)
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.asarray(corners @ np.array([[c, s], [-s, c]]) + centre, np.float32)


@pytest.mark.parametrize("degrees", [0, 7, -30, 44, 90, -90, 180, 135])
@pytest.mark.parametrize(("width", "height"), [(80, 16), (150, 60), (20, 40), (60, 9)])
def test_a_word_is_found_with_its_direction(width: float, height: float, degrees: float) -> None:
    quad = turned(width, height, degrees)
    (word,) = found_again(quad[None])
    assert np.abs(word.quad - quad).max() < 3.2  # corner by corner: the first is the first letter's
    assert word.score > 0.6


def test_perspective_makes_edges_that_are_not_parallel() -> None:
    quad = np.array([(40, 100), (220, 60), (220, 180), (40, 140)], np.float32)
    (word,) = found_again(quad[None])
    assert np.abs(word.quad - quad).max() < 5


def test_words_that_touch_come_apart() -> None:
    quads = np.stack([turned(60, 20, 0, (x, y)) for x in (60, 121) for y in (60, 81, 102)])
    words = found_again(quads)
    assert len(words) == 6
    for quad in quads:
        assert min(np.abs(word.quad - quad).max() for word in words) < 2.6


def test_a_thousand_words() -> None:
    quads = np.stack([turned(22, 8, 0, (14 + 25 * i, 8 + 11 * k)) for i in range(20) for k in range(50)])
    assert len(found_again(quads, side=576)) == 1000


def test_illegible_words_are_neither_learned_nor_counted_against() -> None:
    quads = np.stack([turned(60, 20, 0, (60, 60)), turned(60, 20, 0, (180, 180))])
    targets = draw_targets(quads, np.array([False, True]), 256, 256)
    assert len(words_of(targets.cores, targets.edges, WordMapPolicy())) == 1
    assert targets.counted[90, 90] == 0
    assert targets.counted[30, 30] == 1
    assert targets.counted[5, 5] == 1
    assert targets.edge_weights[45, 45] == 0


def test_nothing() -> None:
    assert found_again(np.zeros((0, 4, 2), np.float32)) == []
    assert words_of(np.zeros((4, 6), np.float32), np.zeros((4, 2, 3), np.float32), WordMapPolicy()) == []


def test_doubtful_and_tiny_areas_are_dropped() -> None:
    scores = np.zeros((64, 64), np.float32)
    scores[10:14, 10:40] = 0.65  # below the least mean score
    scores[30, 30] = 1.0  # a single cell
    edges = np.zeros((4, 32, 32), np.float32)
    edges[2] = 1
    assert words_of(scores, edges, WordMapPolicy()) == []
    assert len(words_of(scores, edges, WordMapPolicy(least_score=0.6))) == 1


def test_cores_that_run_into_each_other_come_apart_at_their_seeds() -> None:
    scores = np.zeros((64, 64), np.float32)
    scores[10:14, 10:50] = 0.8  # one area …
    scores[11:13, 12:24] = scores[11:13, 34:48] = 0.95  # … with two seeds
    scores[11, 29] = 0.95  # a single cell is no seed
    scores[40:44, 10:50] = 0.8  # a core without a seed stays one word
    edges = np.zeros((4, 32, 32), np.float32)
    edges[2] = 1
    words = sorted(words_of(scores, edges, WordMapPolicy()), key=lambda word: float(word.quad[0, 0]))
    first, second = (word for word in words if word.quad[0, 1] < 50)
    (third,) = (word for word in words if word.quad[0, 1] > 50)
    assert first.quad[1, 0] - first.quad[0, 0] == pytest.approx(2 * 19 + 8, abs=5)
    assert second.quad[0, 0] > first.quad[1, 0] - 9
    assert third.quad[1, 0] - third.quad[0, 0] == pytest.approx(2 * 40 + 8, abs=3)
