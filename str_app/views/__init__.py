"""What the network sees of a crop: its turns, the parts of a long line, variants, and further looks (`levelling`).

`views_of` makes the views of one crop. If it is `hardly_read` in them, `variants_of` makes more of the first. `merge`
chooses among the readings of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np
import numpy.typing as npt

from str_app.models.preprocessing import Preprocessing
from str_app.policy import DEFAULT_POLICY, SearchPolicy
from str_app.reading import Reading
from str_app.views.canvas import Canvas, to_canvas
from str_app.views.long_lines import MAX_PARTS, parts_of, whole_or_parts
from str_app.views.turns import QUARTER_TURNS, best_turn, turns_of
from str_app.views.variants import detail_of, elected, variants_of

__all__ = [
    "MAX_VIEWS",
    "QUARTER_TURNS",
    "Canvas",
    "hardly_read",
    "merge",
    "to_canvas",
    "variants_of",
    "views_of",
]

# Most views of one crop: all turns, and the parts of the two in which it is a long line.
MAX_VIEWS = len(QUARTER_TURNS) + 2 * MAX_PARTS


def views_of(
    crop: npt.NDArray[np.uint8],
    preprocessing: Preprocessing,
    *,
    rotate: bool = False,
    parts: bool = True,
    level: bool = False,
    characters: str | None = None,
    policy: SearchPolicy = DEFAULT_POLICY,
) -> list[Canvas]:
    """The views in which a crop is read: each turn whole, then in parts; the upright whole first; at most `MAX_VIEWS`.

    Args:
        crop: uint8 (H, W, 3) RGB.
        preprocessing: of the model.
        rotate: all four quarter turns; otherwise tall crops are also turned to either side.
        parts: also the parts of each turn that is a line too long for the widest canvas.
        level: the word is known to be level, as where it was cut out along its line; see `str_app.views.variants`.
        characters: those that the text may have; None: all of the model's. See `str_app.decoding.parse_characters`.
        policy: thresholds.
    """
    size = (crop.shape[0], crop.shape[1])
    widest = (preprocessing.height, preprocessing.width)
    views = []
    for turn in turns_of(size, rotate, policy):
        views.append(to_canvas(crop, preprocessing, turn))
        spans = parts_of(views[-1].crop_size, widest, policy) if parts else []
        if turn == 0 and not level:
            views[0] = replace(views[0], detail=detail_of(crop, preprocessing, policy))
        views += [to_canvas(crop, preprocessing, turn, span) for span in spans]
    return views if characters is None else [replace(view, characters=characters) for view in views]


def hardly_read(views: Sequence[Canvas], readings: Sequence[Reading], policy: SearchPolicy = DEFAULT_POLICY) -> bool:
    """Whether the first view, the upright whole, should be read in its variants (`variants_of`) before `merge`.

    Args:
        views, readings: of one crop, as for `merge`.
        policy: thresholds.
    """
    if views[0].detail is None or readings[0].confidence >= policy.unsettled:
        return False
    return not (policy.blank and _has_one_colour(views[0]))


def merge(
    views: Sequence[Canvas],
    readings: Sequence[Reading],
    policy: SearchPolicy = DEFAULT_POLICY,
    variants: Sequence[tuple[Canvas, Reading]] = (),
) -> Reading:
    """The one reading of a crop, boxes in pixels of the crop as given; without text where the evidence is too low.

    Args:
        views: of one crop, from `views_of`.
        readings: of each view.
        policy: thresholds.
        variants: of the first view, with their readings.
    """
    if variants:
        readings = [elected(readings[0], variants, policy), *readings[1:]]
    turns: list[int] = []
    of_turns: list[Reading] = []
    for turn, group in groupby(zip(views, readings, strict=True), key=lambda pair: pair[0].turn):
        (view, whole), *parts = group
        spans = [part.span for part, _ in parts if part.span]
        height = view.crop_size[0]
        turns.append(turn)
        of_turns.append(
            whole_or_parts(whole, [reading for _, reading in parts], spans, height, policy) if parts else whole
        )
    reading = best_turn(of_turns, turns, views[0].crop_size, policy)
    if not reading.text:
        return reading.withheld()  # however sure the network is that there is none
    if policy.blank and (lacks_evidence(reading, policy) or _has_one_colour(views[0])):
        return reading.withheld()
    return reading


def lacks_evidence(reading: Reading, policy: SearchPolicy = DEFAULT_POLICY) -> bool:
    """Whether a reading is more likely of a picture without text."""
    least = policy.lone_evidence if len(reading.text) == 1 else policy.least_evidence
    if reading.confidence < policy.improbable:
        least = policy.improbable_evidence
    return reading.evidence(policy.evidence_from) < least


def _has_one_colour(view: Canvas) -> bool:
    shown = view.pixels[:, : view.covered]
    return bool((shown == shown[0, 0]).all())
