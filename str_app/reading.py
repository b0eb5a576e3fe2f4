"""The result of reading one image, and its JSON form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels


@dataclass(frozen=True)
class Character:
    """One character of a reading.

    Attributes:
        text: the character.
        confidence: calibrated probability that it is right, in either case, given the characters before it.
        box: x0, y0, x1, y1 in pixels of the image given.
    """

    text: str
    confidence: float
    box: Box


@dataclass(frozen=True)
class Reading:
    """The result of reading one image.

    Attributes:
        text: the reading; empty where the image shows no text.
        confidence: calibrated probability that the whole reading, its end included, is right up to case and
            punctuation; 0 without text; see docs/explanation/confidence.md.
        characters: one entry per character of `text`; of a lexicon's word with accents as characters of their own, one
            per letter.
        attention: float32 (len(characters) + 1, H', W') over the canvas, the end token's map last; None unless
            requested. Readings that differ in it alone are equal.
        covered: share of the canvas's width that the crop covers, from the left; the rest is padding.
        rotation: degrees by which the image was turned counter-clockwise for this reading; 0 unless turns were tried.
        shares: of a single canvas (`str_app.views`), the confidence of each text that was found, in lower case; empty
            if the beam is 1, and with a lexicon.
    """

    text: str
    confidence: float
    characters: tuple[Character, ...]
    attention: npt.NDArray[np.float32] | None = field(default=None, compare=False)
    covered: float = 1.0
    rotation: int = 0
    shares: Mapping[str, float] = field(default_factory=dict, compare=False, repr=False)

    def evidence(self, characters: int) -> float:
        """Mean confidence of so many first characters: a word that is guessed completes itself. 1 without text."""
        first = [character.confidence for character in self.characters[:characters]]
        return sum(first) / len(first) if first else 1.0

    def withheld(self) -> Reading:
        """The same image without text, confidence 0; of the attention the end's."""
        return Reading("", 0.0, (), None if self.attention is None else self.attention[-1:], self.covered)

    def as_dict(self) -> dict[str, Any]:
        """The JSON form of the command line and the server, rounded; with attention where there is one."""
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
        """The inverse of `as_dict`, up to its rounding.

        Raises:
            KeyError, TypeError, ValueError: `fields` has another form.
        """
        characters = tuple(
            Character(str(c["text"]), float(c["confidence"]), _box(c["box"])) for c in fields["characters"]
        )
        attention = fields.get("attention")
        return cls(
            str(fields["text"]),
            float(fields["confidence"]),
            characters,
            np.array(attention["maps"], dtype=np.float32) if attention else None,
            float(attention["covered"]) if attention else 1.0,
            int(fields.get("rotation", 0)),
        )

    def with_boxes(self, transform: Callable[[Box], Box], rotation: int | None = None) -> Reading:
        """The same reading with every box transformed, and its rotation replaced unless None."""
        characters = tuple(replace(character, box=transform(character.box)) for character in self.characters)
        return replace(self, characters=characters, rotation=self.rotation if rotation is None else rotation)


def _box(edges: Sequence[float]) -> Box:
    x0, y0, x1, y1 = map(float, edges)
    return x0, y0, x1, y1
