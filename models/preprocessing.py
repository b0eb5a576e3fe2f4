"""From a crop of any size to a canvas for the network. Every checkpoint stores these settings, so they always match."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from str_app.models.stored_config import current_preprocessing


@dataclass(frozen=True)
class Preprocessing:
    """Scale a crop to the canvas height, keep its aspect ratio where possible, pad on the right.

    Stretching every crop to one canvas would widen words of one to three letters beyond recognition. Instead the
    decoder is told the covered width, and its attention masks the padding. Canvases come in a few widths: most words
    are short, and the narrowest canvas that holds a crop costs a third less than the widest on average. The width
    depends on the crop alone, so a crop reads the same in any batch.

    Attributes:
        height: canvas height in pixels.
        widths: canvas widths in pixels, ascending; longer crops are squeezed to the last.
        fit: `"pad"` keeps the aspect ratio, `"stretch"` fills the widest canvas (as most published recognisers do).
        widen_below: with `"pad"`, a crop that would cover fewer columns than this is widened to the geometric mean of
            the two numbers: in the upright box of a slanted word many letters share few columns. 0 widens nothing.
        mean: subtracted from pixel values in [0, 1].
        std: divides afterwards.
    """

    height: int = 32
    widths: tuple[int, ...] = (48, 64, 96, 128)
    fit: Literal["pad", "stretch"] = "pad"
    widen_below: int = 80
    mean: float = 0.5
    std: float = 0.5

    def __post_init__(self) -> None:
        widths = self.widths
        if type(self.height) is not int or self.height < 1:
            raise ValueError(f"height {self.height!r}: must be a whole number of at least 1")
        if not isinstance(widths, tuple) or not widths or any(type(width) is not int for width in widths):
            raise ValueError(f"widths {widths!r}: must be whole numbers")
        if widths[0] < 4 or list(widths) != sorted(set(widths)):
            raise ValueError(f"widths {widths!r}: must ascend from at least 4")
        if self.fit not in ("pad", "stretch"):
            raise ValueError(f"fit {self.fit!r}: must be pad or stretch")
        for name in ("widen_below", "mean", "std"):
            value = getattr(self, name)
            if type(value) not in (int, float) or not math.isfinite(value):
                raise ValueError(f"{name} {value!r}: must be a number")
        if self.std <= 0 or self.widen_below < 0:
            raise ValueError(f"std {self.std} must be above 0, widen_below {self.widen_below} at least 0")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """The inverse of `dataclasses.asdict`, also for JSON and for older checkpoints.

        Raises:
            TypeError: an unknown field.
            ValueError: a value that cannot be used.
        """
        return cls(**current_preprocessing(values))

    @property
    def width(self) -> int:
        """Width of the widest canvas."""
        return self.widths[-1]

    def covered_width(self, height: int, width: int) -> int:
        """Canvas columns that a crop of `height` × `width` pixels covers, 4 to `self.width`."""
        if self.fit == "stretch":
            return self.width
        columns = width * self.height / height
        if columns < self.widen_below:
            columns = math.sqrt(columns * self.widen_below)
        return max(4, min(round(columns), self.width))

    def canvas_width(self, covered: int) -> int:
        """Width of the narrowest canvas that holds `covered` columns."""
        return next(width for width in self.widths if width >= covered)

    def __call__(self, image: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint8], int]:
        """Place one crop on the canvas.

        Args:
            image: uint8 (H, W, 3), RGB, H and W at least 1.

        Returns:
            The canvas, uint8 (height, W, 3) with W one of `widths`, and the number of columns the crop covers.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
            raise ValueError(f"expected a uint8 (H, W, 3) RGB image, got {image.dtype} {image.shape}")
        covered = self.covered_width(image.shape[0], image.shape[1])
        # INTER_AREA keeps thin strokes when shrinking; when enlarging it would be nearest-neighbour.
        shrinking = image.shape[0] > self.height or image.shape[1] > covered
        resized = cv2.resize(
            image, (covered, self.height), interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
        )
        return pad_right(np.asarray(resized, dtype=np.uint8), self.canvas_width(covered)), covered


def pad_right(canvas: npt.NDArray[np.uint8], width: int) -> npt.NDArray[np.uint8]:
    """(H, W, 3) → (H, width, 3) by repeating the last column; black would leave an edge that looks like a stroke."""
    widened = np.empty((canvas.shape[0], width, 3), np.uint8)
    widened[:, : canvas.shape[1]] = canvas
    widened[:, canvas.shape[1] :] = canvas[:, -1:]
    return widened
