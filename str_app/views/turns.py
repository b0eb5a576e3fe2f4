"""Crops turned by quarters: words on their side or upside down."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from str_app.policy import DEFAULT_POLICY, SearchPolicy, TurnWeights
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


def turn_features(reading: Reading, turn: int) -> TurnWeights:
    """What tells whether a reading is of the right turn; each is multiplied by its weight in `SearchPolicy.turns`."""
    letters = math.prod(character.confidence for character in reading.characters) if reading.text else 0.0
    length = len(reading.text)
    return TurnWeights(
        confidence=math.log(max(reading.confidence, 1e-4)),
        certainty=-math.log(max(1 - reading.confidence, 1e-4)),
        letters=-math.log(max(1 - letters, 1e-4)),
        length=math.log(1 + length),
        turned=float(turn != 0),
        lone=float(turn != 0 and length == 1),
    )


def best_turn(
    readings: Sequence[Reading],
    turns: Sequence[int],
    crop_size: tuple[int, int],
    policy: SearchPolicy = DEFAULT_POLICY,
) -> Reading:
    """The reading of the most probable turn of one crop, boxes in pixels of the crop as it was given.

    Its confidence is multiplied by the probability of its turn, and of the others that say the same. A turn without
    text is chosen only if all are; ties go to the smaller turn.

    Args:
        readings: of the turned crop.
        turns: quarter turns counter-clockwise of each, ascending.
        crop_size: height and width before it was turned.
        policy: `turns`.
    """
    if len(readings) == 1:
        return readings[0]
    scores = [turn_score(reading, turn, policy.turns) for reading, turn in zip(readings, turns, strict=True)]
    best = scores.index(max(scores))
    reading, turn = readings[best], turns[best]
    odds = [math.exp(score - scores[best]) for score in scores]
    same = sum(odd for odd, other in zip(odds, readings, strict=True) if other.text.lower() == reading.text.lower())
    reading = replace(reading, confidence=reading.confidence * same / sum(odds))
    height, width = crop_size

    def turned_back(box: Box) -> Box:
        x0, y0, x1, y1 = box
        if turn == 1:
            return width - y1, x0, width - y0, x1
        if turn == 2:
            return width - x1, height - y1, width - x0, height - y0
        return y0, height - x1, y1, height - x0

    return reading.with_boxes(turned_back, 90 * turn) if turn else reading


def turn_score(reading: Reading, turn: int, weights: TurnWeights) -> float:
    """Log odds, up to a constant, that this is the turn in which the word is upright."""
    if not reading.text:
        return -1e3
    return sum(weight * feature for weight, feature in zip(weights, turn_features(reading, turn), strict=True))
