"""Crops turned by quarters: words on their side or upside down."""

from __future__ import annotations

from collections.abc import Sequence

from str_app.policy import DEFAULT_POLICY, SearchPolicy
from str_app.reading import Box, Reading

QUARTER_TURNS = (0, 1, 2, 3)


def turns_of(crop_size: tuple[int, int], rotate: bool, policy: SearchPolicy = DEFAULT_POLICY) -> tuple[int, ...]:
    """The quarter turns, counter-clockwise, in which a crop of this height and width is read.

    All four with `rotate`; otherwise tall crops are read lying on either side too, others upright only.
    """
    if rotate:
        return QUARTER_TURNS
    height, width = crop_size
    return (0, 1, 3) if height >= policy.tall * width else (0,)


def best_turn(
    readings: Sequence[Reading],
    turns: Sequence[int],
    crop_size: tuple[int, int],
    policy: SearchPolicy = DEFAULT_POLICY,
) -> Reading:
    """The most confident reading of one crop, boxes in pixels of the crop as it was given.

    Readings without text come last, before them unsure single characters in tall crops; ties go to the smaller turn.

    Args:
        readings: of the turned crop.
        turns: quarter turns counter-clockwise of each, ascending.
        crop_size: height and width before it was turned.
        policy: `lone_height` and `lone_confidence`.
    """
    height, width = crop_size

    def rank(turned: tuple[Reading, int]) -> tuple[bool, bool, float, int]:
        reading, turn = turned
        tall = width >= policy.lone_height * height if turn % 2 else height >= policy.lone_height * width
        unsure = tall and len(reading.text) == 1 and reading.confidence < policy.lone_confidence
        return reading.text != "", not unsure, reading.confidence, -turn

    best, turn = max(zip(readings, turns, strict=True), key=rank)

    def turned_back(box: Box) -> Box:
        x0, y0, x1, y1 = box
        if turn == 1:
            return width - y1, x0, width - y0, x1
        if turn == 2:
            return width - x1, height - y1, width - x0, height - y0
        return y0, height - x1, y1, height - x0

    return best.with_boxes(turned_back, 90 * turn) if turn else best
