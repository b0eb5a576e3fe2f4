"""What one image says, and its one form in JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from str_app.character_boxes import Box

QUARTER_TURNS = (0, 1, 2, 3)
# From this height over width on, a crop is rather a word on its side than one letter.
TALL = 1.4
# In a crop of this height over width a lone character that is less than certain is rather a word on its side.
LONE = 2.0
CERTAIN = 0.85


@dataclass(frozen=True)
class Character:
    """One character of a reading.

    Attributes:
        text: the character.
        confidence: calibrated probability that it is right, given the characters before it.
        box: x0, y0, x1, y1 in pixels of the image given.
    """

    text: str
    confidence: float
    box: Box


@dataclass(frozen=True)
class Reading:
    """What one image says.

    Attributes:
        text: the reading; may be empty.
        confidence: calibrated probability that the whole reading, its end included, is right; see docs/confidence.md.
        characters: one entry per character of `text`.
        attention: float32 (len(text) + 1, H', W') over the canvas, the end token's map last; None unless asked for.
        covered: share of the canvas's width that the crop covers, from the left; the rest is padding.
        rotation: degrees by which the image was turned counter-clockwise to be read: 0 unless other turns were tried.
    """

    text: str
    confidence: float
    characters: tuple[Character, ...]
    attention: npt.NDArray[np.float32] | None = None
    covered: float = 1.0
    rotation: int = 0

    def as_dict(self) -> dict[str, Any]:
        """As the command line and the server write it in JSON, rounded; attention where it was asked for."""
        fields: dict[str, Any] = {
            "text": self.text,
            "confidence": round(self.confidence, 4),
            "characters": [
                {"text": c.text, "confidence": round(c.confidence, 4), "box": [round(edge, 1) for edge in c.box]}
                for c in self.characters
            ],
        }
        if self.rotation:
            fields["rotation"] = self.rotation
        if self.attention is not None:
            maps = np.round(self.attention.astype(np.float64), 4).tolist()
            fields["attention"] = {"covered": round(self.covered, 4), "maps": maps}
        return fields

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Reading:
        """The inverse of `as_dict`, as rounded as that.

        Raises:
            KeyError, TypeError, ValueError: not the form of `as_dict`.
        """
        characters = tuple(
            Character(str(c["text"]), float(c["confidence"]), _box(c["box"])) for c in fields["characters"]
        )
        seen = fields.get("attention")
        return cls(
            str(fields["text"]),
            float(fields["confidence"]),
            characters,
            np.array(seen["maps"], dtype=np.float32) if seen else None,
            float(seen["covered"]) if seen else 1.0,
            int(fields.get("rotation", 0)),
        )

    def moved(self, move: Callable[[Box], Box], rotation: int | None = None) -> Reading:
        """The same with every box put through `move`."""
        characters = tuple(replace(character, box=move(character.box)) for character in self.characters)
        return replace(self, characters=characters, rotation=self.rotation if rotation is None else rotation)


def turns_of(image_size: tuple[int, int], rotate: bool) -> tuple[int, ...]:
    """By how many quarters, counter-clockwise, an image of this height and width is turned to be read.

    All four with `rotate`; else a tall one lies on either side as well, and others are upright.
    """
    if rotate:
        return QUARTER_TURNS
    height, width = image_size
    return (0, 1, 3) if height >= TALL * width else (0,)


def best_turn(readings: Sequence[Reading], turns: Sequence[int], image_size: tuple[int, int]) -> Reading:
    """Of the readings of one image turned by quarters, counter-clockwise, the most confident.

    Args:
        readings: one with text is preferred, then one that is no doubtful lone character in a tall crop, and on a tie
            the lesser turn.
        turns: of each, ascending.
        image_size: height and width of the image before it was turned; boxes are given back in its pixels.
    """
    height, width = image_size

    def rank(turned: tuple[Reading, int]) -> tuple[bool, bool, float, int]:
        reading, turn = turned
        tall = (width >= LONE * height) if turn % 2 else (height >= LONE * width)
        doubtful = tall and len(reading.text) == 1 and reading.confidence < CERTAIN
        return reading.text != "", not doubtful, reading.confidence, -turn

    best, turn = max(zip(readings, turns, strict=True), key=rank)

    def unturned(box: Box) -> Box:
        x0, y0, x1, y1 = box
        if turn == 1:
            return width - y1, x0, width - y0, x1
        if turn == 2:
            return width - x1, height - y1, width - x0, height - y0
        return y0, height - x1, y1, height - x0

    return best.moved(unturned, 90 * turn) if turn else best


def _box(edges: Sequence[float]) -> Box:
    x0, y0, x1, y1 = map(float, edges)
    return x0, y0, x1, y1
