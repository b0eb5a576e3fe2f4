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
SMALLEST_EM, LARGEST_EM = 16 / 36, 160 / 36  # capital heights per em; limits fonts with extreme capitals


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
    """A font with capitals of `cap_height` pixels, by default those of the text plane of crops."""

    def __init__(self, path: str, cap_height: int = CAP_HEIGHT) -> None:
        self._path = path
        probe = ImageFont.truetype(path, 100, layout_engine=ImageFont.Layout.BASIC)
        _, top, _, bottom = probe.getbbox("H", anchor="ls")
        size = round(100 * cap_height / max(1, bottom - top))
        size = min(round(LARGEST_EM * cap_height), max(round(SMALLEST_EM * cap_height), size))
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
        self._faces: OrderedDict[tuple[str, int], Face] = OrderedDict()

    def get(self, font: Font, cap_height: int = CAP_HEIGHT) -> Face:
        """The face of `font` with capitals of `cap_height` pixels, opened if it is not in the cache."""
        key = (font.path, cap_height)
        face = self._faces.get(key)
        if face is None:
            face = self._faces[key] = Face(font.path, cap_height)
            if len(self._faces) > self._capacity:
                self._faces.popitem(last=False)
        self._faces.move_to_end(key)
        return face
