"""Words that rise or fall across a short crop, levelled by trial: where next to nothing was read, no attention tells
their slope."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt

from str_app.models.preprocessing import Preprocessing
from str_app.policy import DEFAULT_POLICY, SearchPolicy
from str_app.views.canvas import Canvas
from str_app.views.levelling import Line, level, line_height


def detail_of(
    crop: npt.NDArray[np.uint8], preprocessing: Preprocessing, policy: SearchPolicy = DEFAULT_POLICY
) -> npt.NDArray[np.uint8] | None:
    """The crop, uint8 (H, W, 3), at most twice as high as a canvas; None if it is not read tilted."""
    height, width = crop.shape[:2]
    if not policy.tilts or width >= policy.short * height or height >= policy.tall * width:
        return None
    rows = 2 * preprocessing.height
    if height <= rows:
        return crop
    size = (max(1, round(width * rows / height)), rows)
    return np.asarray(cv2.resize(crop, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def tilted(view: Canvas, preprocessing: Preprocessing, policy: SearchPolicy = DEFAULT_POLICY) -> list[Canvas]:
    """The view levelled as if its line fell, or rose, by each share of its height in `SearchPolicy.tilts`.

    Args:
        view: with detail.
        preprocessing: of the model.
        policy: `tilts`, and the room around a line.
    """
    assert view.detail is not None
    height, width = view.detail.shape[:2]
    views = []
    for fall in (sign * tilt for tilt in policy.tilts for sign in (1, -1)):
        levelled = level(view.detail, Line(fall * height / width), policy)
        pixels, covered = preprocessing(levelled)
        views.append(replace(view, pixels=pixels, covered=covered, detail=None, fall=fall))
    return views


def as_given(
    attention: npt.NDArray[np.float32], view: Canvas, policy: SearchPolicy = DEFAULT_POLICY
) -> npt.NDArray[np.float32]:
    """Attention (L, H', W') over a tilted view, moved to where it is in the crop as given; columns stay."""
    rows, columns = attention.shape[1:]
    x = (np.arange(columns) + 0.5) * view.size[1] / columns / view.covered
    y = (np.arange(rows)[:, None] + 0.5) / rows
    # As `level`, in heights and widths of the crop.
    height = line_height(1.0, abs(view.fall), policy)
    row = (y - view.fall * x + (height - 1 + view.fall) / 2) / height * rows - 0.5
    above = np.floor(row).astype(np.int64)
    share = (row - above).astype(np.float32)
    padded = np.pad(attention, ((0, 0), (1, 1), (0, 0)))
    column = np.arange(columns)[None, :]
    upper, lower = (padded[:, np.clip(at + 1, 0, rows + 1), column] for at in (above, above + 1))
    return np.asarray(upper * (1 - share) + lower * share, dtype=np.float32)
