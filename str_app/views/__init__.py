"""What the network sees of a crop: its turns, the parts of a long line, and further looks (`levelling`).

`views_of` makes the views of one crop, `merge` chooses among their readings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from str_app.models.preprocessing import Preprocessing
from str_app.policy import DEFAULT_POLICY, SearchPolicy
from str_app.reading import Reading
from str_app.views.canvas import Canvas, to_canvas
from str_app.views.long_lines import MAX_PARTS, parts_of, whole_or_parts
from str_app.views.turns import QUARTER_TURNS, best_turn, turns_of

__all__ = ["MAX_VIEWS", "Canvas", "merge", "to_canvas", "views_of"]

# Most views of one crop: all turns, or a long line and its parts.
MAX_VIEWS = max(len(QUARTER_TURNS), 1 + MAX_PARTS)


def views_of(
    crop: npt.NDArray[np.uint8],
    preprocessing: Preprocessing,
    *,
    rotate: bool = False,
    parts: bool = True,
    characters: str | None = None,
    policy: SearchPolicy = DEFAULT_POLICY,
) -> list[Canvas]:
    """The views in which a crop is read, the upright whole first; at most `MAX_VIEWS`.

    Args:
        crop: uint8 (H, W, 3) RGB.
        preprocessing: of the model.
        rotate: all four quarter turns; otherwise tall crops are also turned to either side.
        parts: also the parts of a line that is too long for the widest canvas, unless `rotate`.
        characters: those that the text may have; None: all of the model's. See `str_app.decoding.parse_characters`.
        policy: thresholds.
    """
    size = (crop.shape[0], crop.shape[1])
    views = [to_canvas(crop, preprocessing, turn) for turn in turns_of(size, rotate, policy)]
    if parts and not rotate:
        widest = (preprocessing.height, preprocessing.width)
        views += [to_canvas(crop, preprocessing, span=span) for span in parts_of(size, widest, policy)]
    return views if characters is None else [replace(view, characters=characters) for view in views]


def merge(views: Sequence[Canvas], readings: Sequence[Reading], policy: SearchPolicy = DEFAULT_POLICY) -> Reading:
    """The one reading of a crop, boxes in pixels of the crop as given; without text where the evidence is too low.

    Args:
        views: of one crop, from `views_of`.
        readings: of each view.
        policy: thresholds.
    """
    spans = [view.span for view in views if view.span]
    if spans:
        reading = whole_or_parts(readings[0], readings[1:], spans, views[0].crop_size[0], policy)
    else:
        reading = best_turn(readings, [view.turn for view in views], views[0].crop_size, policy)
    least = policy.lone_evidence if len(reading.text) == 1 else policy.least_evidence
    return reading.withheld() if policy.blank and reading.evidence(policy.evidence_from) < least else reading
