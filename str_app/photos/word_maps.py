"""From the maps of our word detector to the quads of words."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from str_app.models.detectors.word_maps import CORE_STRIDE, DISTANCE_UNIT, EDGE_STRIDE, INSET
from str_app.photos.detector import Detection

Floats = npt.NDArray[np.float32]
STIFFNESS = 0.02  # of an edge against turning away from the word's direction, in squared heights
SHORT = 1.2  # heights: shorter cores are measured by their area


class WordMapPolicy(NamedTuple):
    """Thresholds.

    Attributes:
        core: scores above it belong to the core of a word.
        seed: connected cells above it are one word: where cores run into each other, each cell goes to the nearest.
        least_seed: cells of a seed; smaller ones do not take a core apart.
        least_score: mean score of a core, below which it is no word.
        least_cells: of a core.
        least_height: of a word, in pixels of the network's input.
    """

    core: float = 0.6
    seed: float = 0.9
    least_seed: int = 2
    least_score: float = 0.7
    least_cells: int = 3
    least_height: float = 4.0


def words_of(scores: Floats, edges: Floats, policy: WordMapPolicy) -> list[Detection]:
    """The words of one picture, in pixels of the network's input.

    A word is a connected area of high scores, or the part of one around a seed of very high scores. Its direction is
    the mean of what its cells say; its upper and lower edges are lines fitted to the distances that they give; its ends
    are those of the area, moved outwards by what cores lack.

    Args:
        scores: float32 (H / 2, W / 2), 0 to 1.
        edges: float32 (4, H / 4, W / 4), see `str_app.models.detectors.word_detector.WordMaps`.
        policy: thresholds.
    """
    rows, columns, word = _cells_of_words(scores, policy)
    if not len(word):
        return []
    n = int(word.max()) + 1
    weights = scores[rows, columns].astype(np.float64)
    sizes = np.maximum(np.bincount(word, minlength=n), 1)
    total = np.maximum(np.bincount(word, weights, n), 1e-9)

    def mean(values: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        return np.asarray(np.bincount(word, weights * values, n) / total)

    ratio = EDGE_STRIDE // CORE_STRIDE
    given = edges[:, rows // ratio, columns // ratio].astype(np.float64)
    cosine, sine = mean(given[2]), mean(given[3])
    norm = np.hypot(cosine, sine)
    cosine, sine = np.where(norm > 1e-3, cosine / (norm + 1e-9), 1.0), np.where(norm > 1e-3, sine / (norm + 1e-9), 0.0)
    c, s = cosine[word], sine[word]
    # Distances are measured from the middles of the cells of the edge maps.
    x, y = ((cells // ratio + 0.5) * EDGE_STRIDE for cells in (columns, rows))
    u, v = x * c + y * s, y * c - x * s
    upper, lower = v - np.exp(given[0]) * DISTANCE_UNIT, v + np.exp(given[1]) * DISTANCE_UNIT
    middle_u, top, bottom = mean(u), mean(upper), mean(lower)
    height = bottom - top
    du = u - middle_u[word]
    spread = mean(du * du) + STIFFNESS * height**2 + 1e-6
    top_slope, bottom_slope = mean(du * (upper - top[word])) / spread, mean(du * (lower - bottom[word])) / spread

    # A core reaches to the edges of its cells.
    reach = CORE_STRIDE / 2 * np.maximum(np.abs(cosine), np.abs(sine))
    along = (columns + 0.5) * CORE_STRIDE * c + (rows + 0.5) * CORE_STRIDE * s
    order = np.argsort(word, kind="stable")
    first = np.searchsorted(word[order], np.arange(n))
    start, end = np.minimum.reduceat(along[order], first), np.maximum.reduceat(along[order], first)
    start, end = start - reach, end + reach
    # The corners of a slanted core make it seem longer. Its area does not, which matters for one or two letters.
    short = end - start < SHORT * height
    length = np.where(short, sizes * CORE_STRIDE**2 / np.maximum((1 - 2 * INSET) * height, 1e-6), end - start)
    length = np.minimum(length, end - start)
    centre = np.where(short, mean(along), (start + end) / 2)
    start, end = centre - length / 2, centre + length / 2
    inset = np.minimum(INSET * height, length * INSET / (1 - 2 * INSET))
    start, end = start - inset, end + inset

    score = total / sizes
    keep = (score >= policy.least_score) & (sizes >= policy.least_cells) & (height >= policy.least_height)
    quads = np.empty((n, 4, 2))
    for corner, (at, base, slope) in enumerate(
        ((start, top, top_slope), (end, top, top_slope), (end, bottom, bottom_slope), (start, bottom, bottom_slope))
    ):
        across = base + slope * (at - middle_u)
        quads[:, corner, 0] = at * cosine - across * sine
        quads[:, corner, 1] = at * sine + across * cosine
    return [Detection(quads[i].astype(np.float32), float(score[i])) for i in np.flatnonzero(keep)]


def _cells_of_words(
    scores: Floats, policy: WordMapPolicy
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Rows, columns and words, numbered from 0, of all cells that belong to a word."""
    core = scores > policy.core
    _, areas = cv2.connectedComponents(core.view(np.uint8), connectivity=4)
    rows, columns = np.nonzero(core)
    area = areas[rows, columns]
    _, seeds, statistics, _ = cv2.connectedComponentsWithStats((scores > policy.seed).view(np.uint8), connectivity=4)
    seeds[(statistics[:, cv2.CC_STAT_AREA] < policy.least_seed)[seeds]] = 0
    if seeds.any():
        _, nearest = cv2.distanceTransformWithLabels(
            (seeds == 0).view(np.uint8), cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_CCOMP
        )
        area_of = np.zeros(int(nearest.max()) + 1, areas.dtype)
        area_of[nearest[seeds > 0]] = areas[seeds > 0]
        seed = nearest[rows, columns]
        # The nearest seed may lie in another core; a core without a seed stays one word.
        area = np.where(area_of[seed] == area, -seed, area)
    _, word = np.unique(area, return_inverse=True)
    return rows, columns, word
