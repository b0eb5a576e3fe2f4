"""Words that rise or fall across a short crop, levelled by trial."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from str_app.models.preprocessing import Preprocessing
from str_app.policy import DEFAULT_POLICY
from str_app.views import views_of
from str_app.views.canvas import Canvas
from str_app.views.levelling import Line, level
from str_app.views.tilts import as_given, tilted

PREPROCESSING = Preprocessing(widths=(48, 64, 96, 128, 160))
PLAIN = replace(DEFAULT_POLICY, tilts=())


def noise(height: int, width: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("size", "options", "expected"),
    [
        ((40, 100), {}, (40, 100)),
        ((200, 300), {}, (64, 96)),
        ((40, 140), {}, None),
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
    cv2.line(crop, (0, 13), (95, 51), (255, 255, 255), 5)  # falls by 0.6 of the height
    (view,) = views_of(crop, PREPROCESSING)
    heights = {
        tilt.fall: np.ptp(np.nonzero(tilt.pixels[:, : tilt.covered, 0] > 128)[0])
        for tilt in tilted(view, PREPROCESSING)
    }
    assert min(heights, key=lambda fall: heights[fall]) == 0.6
    assert heights[0.6] < 10  # of 32 rows


@pytest.mark.parametrize("fall", [-0.6, 0.2, 0.4])
def test_attention_returns_to_where_the_character_is(fall: float) -> None:
    """A disc in the crop, levelled with it and then moved back."""
    height, width = 64, 96
    crop = np.zeros((height, width, 3), np.uint8)
    cv2.circle(crop, (60, 38), 7, (255, 255, 255), -1)
    levelled = level(crop, Line(fall * height / width))
    attention = cv2.resize(levelled[:, :, 0], (48, 16), interpolation=cv2.INTER_AREA).astype(np.float32)[None]
    view = Canvas(np.zeros((32, 96, 3), np.uint8), 96, (height, width), fall=fall)
    moved = as_given(attention, view)[0]
    rows, columns = np.nonzero(moved > moved.max() / 2)
    assert (rows.mean() + 0.5) * height / 16 == pytest.approx(38, abs=2)
    assert (columns.mean() + 0.5) * width / 48 == pytest.approx(60, abs=2)
