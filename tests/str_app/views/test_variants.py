"""Variants of crops that could hardly be read."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from str_app.models.preprocessing import Preprocessing
from str_app.policy import DEFAULT_POLICY
from str_app.reading import Reading
from str_app.views import views_of
from str_app.views.variants import attention_as_given, box_as_given, variants_of

PREPROCESSING = Preprocessing(widths=(48, 64, 96, 128, 160))
PLAIN = replace(DEFAULT_POLICY, unsettled=0.0)
LOST, UNSETTLED = Reading("x", 0.39, ()), Reading("x", 0.4, ())


def noise(height: int, width: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("size", "options", "expected"),
    [
        ((40, 100), {}, (40, 100)),
        ((200, 300), {}, (64, 96)),
        ((40, 200), {}, None),
        ((140, 40), {}, None),
        ((40, 100), {"rotate": True}, (40, 100)),
        ((40, 100), {"level": True}, None),
        ((40, 100), {"policy": PLAIN}, None),
    ],
)
def test_short_upright_crops_are_kept_in_detail(size, options, expected) -> None:
    views = views_of(noise(*size), PREPROCESSING, **options)
    details = [None if view.detail is None else view.detail.shape[:2] for view in views]
    assert details == [expected] + [None] * (len(views) - 1)


def test_one_of_the_tilts_levels_the_line() -> None:
    crop = np.zeros((64, 96, 3), np.uint8)
    cv2.line(crop, (0, 19), (95, 45), (255, 255, 255), 5)  # falls by 0.4 of the height
    (view,) = views_of(crop, PREPROCESSING)
    heights = {
        tilt.fall: np.ptp(np.nonzero(tilt.pixels[:, : tilt.covered, 0] > 128)[0])
        for tilt in variants_of(view, LOST, PREPROCESSING)
        if tilt.fall
    }
    assert min(heights, key=lambda fall: heights[fall]) == 0.4
    assert heights[0.4] < 8  # of 32 rows


def test_what_is_read_better_has_fewer_variants() -> None:
    (view,) = views_of(noise(64, 96), PREPROCESSING)
    few, all_of_them = (variants_of(view, reading, PREPROCESSING) for reading in (UNSETTLED, LOST))
    shown = [variant.pixels.tobytes() for variant in all_of_them]
    assert [shown.index(variant.pixels.tobytes()) for variant in few] == [0, 1, 6, 7]


def test_what_a_character_shows_returns_to_where_it_is() -> None:
    """A disc in the crop, seen in each variant: its box and its attention in the crop as given."""
    height, width, place = 64, 96, (60, 38)
    crop = np.zeros((height, width, 3), np.uint8)
    cv2.circle(crop, place, 7, (255, 255, 255), -1)
    (view,) = views_of(crop, PREPROCESSING)
    variants = variants_of(view, LOST, PREPROCESSING)
    assert len(variants) == 9
    for variant in variants[:-1]:  # the last is the negative
        shown = variant.pixels[:, :, 0].astype(np.float32)
        columns = np.nonzero(shown.max(0) > 128)[0] * width / variant.covered
        left, _, right, _ = box_as_given((columns[0], 0.0, columns[-1], float(height)), variant)
        assert (left + right) / 2 == pytest.approx(place[0], abs=2), variant.region
        attention = cv2.resize(shown, (variant.size[1] // 2, 16), interpolation=cv2.INTER_AREA)[None]
        moved = attention_as_given(attention, variant)[0]
        assert moved.sum() == pytest.approx(1.0, abs=1e-4)
        rows, columns = np.nonzero(moved > moved.max() / 2)
        share = variant.covered / variant.size[1]
        assert (rows.mean() + 0.5) * height / 16 == pytest.approx(place[1], abs=2), variant.region
        assert (columns.mean() + 0.5) * width / share / moved.shape[1] == pytest.approx(place[0], abs=2), variant.region
