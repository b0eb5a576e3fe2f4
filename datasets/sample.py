"""Samples, sources of samples, and their errors."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt


class Sample(NamedTuple):
    """One word crop with its label.

    Attributes:
        image: uint8 (H, W, 3), RGB.
        text: the label, as written in the data set (case and punctuation kept).
        boxes: float32 (len(text), 4): x0, y0, x1, y1 of each character in pixels of `image`,
            or None if unknown.
    """

    image: npt.NDArray[np.uint8]
    text: str
    boxes: npt.NDArray[np.float32] | None = None


class DataError(ValueError):
    """A data set that cannot be used as it is; the message says where and what to do."""


class UnreadableSample(DataError):  # noqa: N818 (a property of the sample)
    """One sample that cannot be decoded. Training skips and counts it; evaluation counts it as wrong."""


class Source(Protocol):
    """A labelled data set with random access. Opening is cheap; workers may pickle it."""

    @property
    def name(self) -> str:
        """Short name for tables and messages, e.g. `IC13`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample:
        """Sample at `index` in [0, len). Raises UnreadableSample naming the source and the record."""

    def label(self, index: int) -> str:
        """The label alone, without decoding the image (an unreadable image still has one)."""

    def identifier(self, index: int) -> str:
        """The sample's name in subset lists and lexicons: its path in a folder, or the path stored in an LMDB."""
