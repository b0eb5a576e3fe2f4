"""A crop, or a view of it, on the canvas that the network reads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from str_app.models.preprocessing import Preprocessing
from str_app.reading import Box

WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
Span = tuple[int, int]  # left and right edge of a part in its turned crop, pixels


@dataclass(frozen=True)
class Canvas:
    """One view of a crop, ready for the network.

    Attributes:
        pixels: uint8 (height, W, 3).
        covered: columns of the canvas that the view covers.
        crop_size: height and width of the view in pixels of the crop, after the turn.
        turn: quarter turns counter-clockwise by which the crop was turned.
        span: the part of a long line that this is, in pixels of the turned crop; None for the whole crop.
        characters: those that its text may have; None: all of the model's.
        detail: uint8 (h, w, 3), the view at a higher resolution, where it may be read in variants; else None.
        one_look: whether its text is decoded from one look at most, as those of variants are.
        fall: of a variant, the share of its height by which its line was taken to fall, and levelled.
        region: of a variant, what it shows of the view: left, top, right, bottom in shares of its size.
    """

    pixels: npt.NDArray[np.uint8]
    covered: int
    crop_size: tuple[int, int]
    turn: int = 0
    span: Span | None = None
    characters: str | None = None
    detail: npt.NDArray[np.uint8] | None = None
    one_look: bool = False
    fall: float = 0.0
    region: Box = WHOLE

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the canvas in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]


def to_canvas(
    crop: npt.NDArray[np.uint8], preprocessing: Preprocessing, turn: int = 0, span: Span | None = None
) -> Canvas:
    """Scale a crop, uint8 (H, W, 3) RGB, to its canvas.

    Args:
        crop: of one word.
        preprocessing: of the model.
        turn: quarter turns counter-clockwise before that.
        span: take this part alone of the turned crop.
    """
    if turn:
        crop = np.rot90(crop, turn)
    if span:
        crop = crop[:, span[0] : span[1]]
    if turn:
        crop = np.ascontiguousarray(crop)
    pixels, covered = preprocessing(crop)
    return Canvas(pixels, covered, (crop.shape[0], crop.shape[1]), turn, span)
