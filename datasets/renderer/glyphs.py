"""Glyph masks from FreeType, with a cache."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from PIL import ImageFont

from str_app.datasets.renderer.fonts import Font, FontError

CAP_HEIGHT = 36  # pixels of a capital H in the text plane
LARGEST_SIZE = 160  # pixels per em; limits fonts with capitals much smaller than the em


class Glyph(NamedTuple):
    """A character's mask and metrics.

    Attributes:
        mask: uint8 (h, w), coverage, tight around the ink.
        left: pixels from the pen position to the first column.
        top: pixels from the baseline to the first row, negative above it.
        advance: pixels to the next pen position.
    """

    mask: npt.NDArray[np.uint8]
    left: int
    top: int
    advance: float


class Face:
    """A font at the size of the text plane."""

    def __init__(self, path: str) -> None:
        self._path = path
        probe = ImageFont.truetype(path, 100, layout_engine=ImageFont.Layout.BASIC)
        _, top, _, bottom = probe.getbbox("H", anchor="ls")
        size = min(LARGEST_SIZE, max(16, round(100 * CAP_HEIGHT / max(1, bottom - top))))
        # Basic layout: the same positions on every machine, with or without libraqm.
        self._font = ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)
        self._glyphs: dict[str, Glyph] = {}
        self._kerning: dict[str, float] = {}

    def glyph(self, char: str) -> Glyph:
        """The glyph of one character."""
        glyph = self._glyphs.get(char)
        if glyph is None:
            glyph = self._glyphs[char] = self._draw(char)
        return glyph

    def kerning(self, left: str, right: str) -> float:
        """Pixels to add between two characters, usually negative."""
        pair = left + right
        kerning = self._kerning.get(pair)
        if kerning is None:
            kerning = float(self._font.getlength(pair)) - self.glyph(left).advance - self.glyph(right).advance
            self._kerning[pair] = kerning
        return kerning

    def _draw(self, char: str) -> Glyph:
        core, (left, top) = self._font.getmask2(char, mode="L", anchor="ls")
        width, height = core.size
        mask = np.frombuffer(bytes(core), np.uint8).reshape(height, width)
        x, y, width, height = cv2.boundingRect((mask > 32).view(np.uint8)) if mask.size else (0, 0, 0, 0)
        if not width:
            raise FontError(f"{self._path}: the glyph of {char!r} is empty")
        mask = mask[y : y + height, x : x + width].copy()
        return Glyph(mask, left + x, top + y, float(self._font.getlength(char)))


class FaceStore:
    """A least-recently-used cache of faces, ≈ 80 KB each with all glyphs drawn."""

    def __init__(self, capacity: int = 6000) -> None:
        self._capacity = capacity
        self._faces: OrderedDict[str, Face] = OrderedDict()

    def get(self, font: Font) -> Face:
        """The face of `font`, opened if it is not in the cache."""
        face = self._faces.get(font.path)
        if face is None:
            face = self._faces[font.path] = Face(font.path)
            if len(self._faces) > self._capacity:
                self._faces.popitem(last=False)
        self._faces.move_to_end(font.path)
        return face
