"""From a crop of any size to a canvas the network reads. Every checkpoint carries it, so nobody can mismatch it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

# What checkpoints and settings mean that are older than `Preprocessing.spread`.
BEFORE_SPREAD = {"spread": 0}


@dataclass(frozen=True)
class Preprocessing:
    """Scale a crop to the canvas height, keep its aspect ratio where it fits and is not narrow, pad on the right.

    Stretching every crop to one canvas widens words of one to three letters beyond recognition; the decoder is told
    the valid width instead and its attention masks the padding. Canvases come in a few widths: words are short, and
    the narrowest canvas that holds one costs a third less than the widest on average. Which one depends on the crop
    alone, so a crop reads the same whatever it is batched with.

    Attributes:
        height: canvas height in pixels.
        widths: canvas widths in pixels, ascending; crops longer than the last are squeezed to it.
        fit: `"pad"` keeps the aspect ratio, `"stretch"` fills the canvas (as most published recognisers do).
        spread: with `"pad"`, crops of fewer columns are widened to the geometric mean of their columns and these: in
            the upright box of a slanted word many letters share few columns. 0 widens nothing.
        mean: subtracted from pixel values in [0, 1].
        std: divides afterwards.
    """

    height: int = 32
    widths: tuple[int, ...] = (48, 64, 96, 128)
    fit: Literal["pad", "stretch"] = "pad"
    spread: int = 80
    mean: float = 0.5
    std: float = 0.5

    @property
    def width(self) -> int:
        """The widest canvas."""
        return self.widths[-1]

    def fitted_width(self, height: int, width: int) -> int:
        """Canvas columns that a crop of `height` × `width` pixels covers, from 4 to `self.width`."""
        if self.fit == "stretch":
            return self.width
        columns = width * self.height / height
        if columns < self.spread:
            columns = math.sqrt(columns * self.spread)
        return max(4, min(round(columns), self.width))

    def canvas_width(self, covered: int) -> int:
        """Width of the narrowest canvas with `covered` columns."""
        return next(width for width in self.widths if width >= covered)

    def __call__(self, image: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint8], int]:
        """Place one crop on the canvas.

        Args:
            image: uint8 (H, W, 3), RGB, H and W at least 1.

        Returns:
            The canvas, uint8 (height, W, 3) with W of `widths`, and the number of columns the crop covers.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
            raise ValueError(f"expected a uint8 (H, W, 3) RGB image, got {image.dtype} {image.shape}")
        covered = self.fitted_width(image.shape[0], image.shape[1])
        # INTER_AREA when shrinking keeps thin strokes; it would alias to nearest when enlarging.
        shrinking = image.shape[0] > self.height or image.shape[1] > covered
        resized = cv2.resize(
            image, (covered, self.height), interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
        )
        return widen(np.asarray(resized, dtype=np.uint8), self.canvas_width(covered)), covered


def widen(canvas: npt.NDArray[np.uint8], width: int) -> npt.NDArray[np.uint8]:
    """(H, W, 3) → (H, width, 3), the last column repeated: no edge that looks like a stroke, as black would be."""
    widened = np.empty((canvas.shape[0], width, 3), np.uint8)
    widened[:, : canvas.shape[1]] = canvas
    widened[:, canvas.shape[1] :] = canvas[:, -1:]
    return widened
