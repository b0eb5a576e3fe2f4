"""Variants of a short crop that could hardly be read: levelled by trial, cut closer, widened, squeezed, in negative.

Where next to nothing was read, no attention tells the slope of the line or its place, so several are tried.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import cv2
import numpy as np
import numpy.typing as npt

from str_app.models.preprocessing import Preprocessing
from str_app.policy import DEFAULT_POLICY, SearchPolicy
from str_app.reading import Box, Reading
from str_app.views.canvas import WHOLE, Canvas
from str_app.views.levelling import Line, level, level_rows

Pixels = npt.NDArray[np.uint8]


def detail_of(crop: Pixels, preprocessing: Preprocessing, policy: SearchPolicy = DEFAULT_POLICY) -> Pixels | None:
    """The crop, uint8 (H, W, 3), shrunk to at most twice the canvas's height; None if it has no variants."""
    height, width = crop.shape[:2]
    if policy.unsettled <= 0 or width >= policy.short * height or height >= policy.tall * width:
        return None
    rows = 2 * preprocessing.height
    if height <= rows:
        return crop
    size = (max(1, round(width * rows / height)), rows)
    return np.asarray(cv2.resize(crop, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def variants_of(
    view: Canvas, reading: Reading, preprocessing: Preprocessing, policy: SearchPolicy = DEFAULT_POLICY
) -> list[Canvas]:
    """The variants of a view with detail that was read like that; see `SearchPolicy.unsettled` and the next fields.

    They take a millisecond or two.
    """
    detail = view.detail
    assert detail is not None
    height, width = detail.shape[:2]

    def variant(pixels: Pixels, fall: float = 0.0, region: Box = WHOLE) -> Canvas:
        canvas, covered = preprocessing(np.ascontiguousarray(pixels))
        return replace(view, pixels=canvas, covered=covered, detail=None, one_look=True, fall=fall, region=region)

    lost = reading.confidence < policy.lost
    tilts, cuts = (policy.tilts, policy.cuts) if lost else (policy.tilts[:1], ())
    variants = [
        variant(level(detail, Line(fall * height / width), policy), fall=fall)
        for tilt in tilts
        for fall in (tilt, -tilt)
    ]
    for across, along in cuts:
        left, top = int(along * width), int(across * height)
        right, bottom = max(width - left, left + 1), max(height - top, top + 1)
        region = (left / width, top / height, right / width, bottom / height)
        variants.append(variant(detail[top:bottom, left:right], region=region))
    border = int(policy.widening * height)
    wide = cv2.copyMakeBorder(detail, border, border, border, border, cv2.BORDER_REPLICATE)
    x, y = border / width, border / height
    variants.append(variant(np.asarray(wide, dtype=np.uint8), region=(-x, -y, 1 + x, 1 + y)))
    narrow = cv2.resize(detail, (max(4, round(policy.squeezed * width)), height), interpolation=cv2.INTER_AREA)
    variants.append(variant(np.asarray(narrow, dtype=np.uint8)))
    return [*variants, variant(255 - detail)] if lost else variants


def elected(own: Reading, others: Sequence[tuple[Canvas, Reading]], policy: SearchPolicy) -> Reading:
    """The text with the largest sum of confidences among a reading, weighed by `own_votes`, and those of its variants.

    All texts that a search found have a part in its vote, but only what the reading or a variant is read as is chosen.
    Its confidence is the root of its share of all that the sum could be: the mean itself is too low, because what a
    reading leaves of the probability is not all other texts'.
    """
    own_text = own.text.lower()
    sums: dict[str, float] = defaultdict(float)
    for text, share in _shares_of(own).items():
        sums[text] += policy.own_votes * share
    of_text: dict[str, list[tuple[Canvas, Reading]]] = {}
    for view, reading in others:
        if reading.text and reading.evidence(policy.evidence_from) >= policy.clear:
            for text, share in _shares_of(reading).items():
                sums[text] += share
            of_text.setdefault(reading.text.lower(), []).append((view, reading))
    eligible = [text for text, voters in of_text.items() if len(text) >= policy.fewest_alone or len(voters) > 1]
    best = max([own_text, *eligible], key=lambda text: sums[text])
    confidence = math.sqrt(sums[best] / (policy.own_votes + len(others)))
    if best == own_text:
        return replace(own, confidence=confidence if best in of_text else min(own.confidence, confidence))
    view, reading = max(of_text[best], key=lambda pair: pair[1].confidence)
    maps = None if reading.attention is None else attention_as_given(reading.attention, view, policy)
    return replace(reading, confidence=confidence, attention=maps).with_boxes(partial(box_as_given, view=view))


def _shares_of(reading: Reading) -> Mapping[str, float]:
    return reading.shares or {reading.text.lower(): reading.confidence}


def box_as_given(box: Box, view: Canvas) -> Box:
    """A character's box on a variant, as high as the crop, in the crop as given."""
    height, width = view.crop_size
    left, _, right, _ = view.region
    x0, x1 = (min(max(width * left + x * (right - left), 0.0), width) for x in (box[0], box[2]))
    return x0, 0.0, x1, float(height)


def attention_as_given(
    attention: npt.NDArray[np.float32], view: Canvas, policy: SearchPolicy = DEFAULT_POLICY
) -> npt.NDArray[np.float32]:
    """Attention (L, H', W') over a variant, moved to where it is in the crop as given, which covers as many columns.

    Each map sums to 1, unless it lies wholly outside of the crop.
    """
    rows, columns = attention.shape[1:]
    covered = view.covered / view.size[1]
    left, top, right, bottom = view.region
    x = (np.arange(columns)[None, :] + 0.5) / columns / covered
    y = (np.arange(rows)[:, None] + 0.5) / rows
    across = (y - top) / (bottom - top)
    if view.fall:  # as `level`, in heights and widths of the crop
        height, shift = level_rows(1.0, view.fall, policy)
        across = (y - view.fall * x + shift) / height
    along = (x - left) / (right - left) * covered * columns - 0.5
    columns_at = np.broadcast_to(along, (rows, columns)).astype(np.float32)
    rows_at = np.broadcast_to(across * rows - 0.5, (rows, columns)).astype(np.float32)
    moved = [
        cv2.remap(each, columns_at, rows_at, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT) for each in attention
    ]
    maps = np.asarray(moved, dtype=np.float32)
    sums = maps.sum(axis=(1, 2), keepdims=True)  # of a character at the very edge of a border it may be 0
    return np.divide(maps, sums, out=maps, where=sums > 0)
