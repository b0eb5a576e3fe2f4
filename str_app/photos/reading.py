"""The result of reading a whole photograph, and its JSON form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from str_app.reading import Reading

Point = tuple[float, float]
DOUBTFUL_BELOW = 0.5  # words of a lower confidence are marked


@dataclass(frozen=True)
class PhotoWord:
    """One word of a photograph.

    Attributes:
        reading: its text, confidence and characters, boxes in pixels of the photograph.
        quad: four corners in pixels of the upright photograph, clockwise from the top left of the first letter.
        detection: 0 to 1, how sure the detector was that there is text here; not calibrated.
        line: index of its line in `PhotoReading.lines`.
    """

    reading: Reading
    quad: tuple[Point, ...]
    detection: float
    line: int

    @property
    def text(self) -> str:
        """What it says; empty where no letter could be made out."""
        return self.reading.text

    @property
    def confidence(self) -> float:
        """Calibrated probability that the text is right, given that the quad holds one word."""
        return self.reading.confidence

    @property
    def doubtful(self) -> bool:
        """Whether the text is more likely wrong than right."""
        return self.confidence < DOUBTFUL_BELOW


@dataclass(frozen=True)
class PhotoLine:
    """Words that follow each other in a line.

    Attributes:
        text: their texts with spaces between them.
        words: their indices in `PhotoReading.words`.
    """

    text: str
    words: tuple[int, ...]


@dataclass(frozen=True)
class PhotoReading:
    """All words of a photograph, in reading order.

    Attributes:
        width, height: of the upright photograph, in pixels.
        lines: columns from left to right, each from top to bottom; a row of a table is one line.
        words: those of the first line, then those of the second, …
    """

    width: int
    height: int
    lines: tuple[PhotoLine, ...]
    words: tuple[PhotoWord, ...]

    @property
    def text(self) -> str:
        """One line of text per line that has any."""
        return "\n".join(line.text for line in self.lines if line.text)

    def as_dict(self) -> dict[str, Any]:
        """The JSON form of the command line and the server, rounded."""
        return {
            "width": self.width,
            "height": self.height,
            "lines": [{"text": line.text, "words": list(line.words)} for line in self.lines],
            "words": [
                {
                    **word.reading.as_dict(),
                    "quad": [[round(x, 1), round(y, 1)] for x, y in word.quad],
                    "detection": round(word.detection, 4),
                    "line": word.line,
                    "doubtful": word.doubtful,
                }
                for word in self.words
            ],
        }

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> PhotoReading:
        """The inverse of `as_dict`, up to its rounding.

        Raises:
            KeyError, TypeError, ValueError: `fields` has another form.
        """
        words = tuple(
            PhotoWord(
                Reading.from_dict(word),
                tuple((float(x), float(y)) for x, y in word["quad"]),
                float(word["detection"]),
                int(word["line"]),
            )
            for word in fields["words"]
        )
        lines = tuple(PhotoLine(str(line["text"]), tuple(map(int, line["words"]))) for line in fields["lines"])
        return cls(int(fields["width"]), int(fields["height"]), lines, words)


def in_lines(size: tuple[int, int], lines: Sequence[Sequence[PhotoWord]]) -> PhotoReading:
    """A reading from the words of each line, in reading order; `size` is the photograph's (height, width)."""
    words: list[PhotoWord] = []
    numbered: list[PhotoLine] = []
    for line in lines:
        first = len(words)
        words += [PhotoWord(word.reading, word.quad, word.detection, len(numbered)) for word in line]
        text = " ".join(word.text for word in line if word.text)
        numbered.append(PhotoLine(text, tuple(range(first, len(words)))))
    return PhotoReading(size[1], size[0], tuple(numbered), tuple(words))
