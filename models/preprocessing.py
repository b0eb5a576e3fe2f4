"""From a crop of any size to the one canvas the network reads. Every checkpoint carries it: nobody can mismatch it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Preprocessing:
    """Scale a crop to the canvas height, keep its aspect ratio where it fits, pad on the right.

    Stretching every crop to the canvas widens words of one to three letters beyond recognition; the decoder is told
    the valid width instead and its attention masks the padding.

    Attributes:
        height: canvas height in pixels.
        width: canvas width in pixels; longer crops are squeezed to it.
        fit: `"pad"` keeps the aspect ratio, `"stretch"` fills the canvas (as most published recognisers do).
        mean: subtracted from pixel values in [0, 1].
        std: divides afterwards.
    """

    height: int = 32
    width: int = 128
    fit: Literal["pad", "stretch"] = "pad"
    mean: float = 0.5
    std: float = 0.5

    def fitted_width(self, height: int, width: int) -> int:
        """Canvas columns that a crop of `height` × `width` pixels covers, from 4 to `self.width`."""
        if self.fit == "stretch":
            return self.width
        return int(np.clip(round(width * self.height / height), 4, self.width))

    def __call__(self, image: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint8], int]:
        """Place one crop on the canvas.

        Args:
            image: uint8 (H, W, 3), RGB, H and W at least 1.

        Returns:
            The canvas, uint8 (height, width, 3), and the number of columns the crop covers.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
            raise ValueError(f"expected a uint8 (H, W, 3) RGB image, got {image.dtype} {image.shape}")
        covered = self.fitted_width(image.shape[0], image.shape[1])
        # INTER_AREA when shrinking keeps thin strokes; it would alias to nearest when enlarging.
        shrinking = image.shape[0] > self.height or image.shape[1] > covered
        resized = cv2.resize(
            image, (covered, self.height), interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
        )
        if covered == self.width:
            return np.asarray(resized, dtype=np.uint8), covered
        # The last column repeated, not black: no edge that looks like a stroke.
        canvas = np.repeat(resized[:, -1:], self.width, axis=1)
        canvas[:, :covered] = resized
        return np.asarray(canvas, dtype=np.uint8), covered
