"""Glyph masks from FreeType, kept so that each is drawn once."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from PIL import ImageFont

from str_app.datasets.renderer.fonts import Font, FontError

CAP_HEIGHT = 36  # pixels of a capital H in the plane where text is set
LARGEST_SIZE = 160  # pixels per em, for fonts whose capitals are a small part of the em


class Glyph(NamedTuple):
    """One drawn character.

    Attributes:
        mask: uint8 (h, w), coverage, cut tight around the ink.
        left: pixels from the pen to the first column.
        top: pixels from the baseline to the first row, negative above it.
        advance: pixels from this pen to the next.
    """

    mask: npt.NDArray[np.uint8]
    left: int
    top: int
    advance: float


class Face:
    """A font at the one size in which text is set."""

    def __init__(self, path: str) -> None:
        self._path = path
        probe = ImageFont.truetype(path, 100, layout_engine=ImageFont.Layout.BASIC)
        _, top, _, bottom = probe.getbbox("H", anchor="ls")
        size = min(LARGEST_SIZE, max(16, round(100 * CAP_HEIGHT / max(1, bottom - top))))
        # Basic layout: the same positions on every machine, whether or not libraqm is there.
        self._font = ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)
        self._glyphs: dict[str, Glyph] = {}
        self._kerning: dict[str, float] = {}

    def glyph(self, char: str) -> Glyph:
        """The glyph of one character."""
        found = self._glyphs.get(char)
        if found is None:
            found = self._glyphs[char] = self._draw(char)
        return found

    def kerning(self, left: str, right: str) -> float:
        """Pixels to add between two characters, usually negative."""
        pair = left + right
        found = self._kerning.get(pair)
        if found is None:
            found = float(self._font.getlength(pair)) - self.glyph(left).advance - self.glyph(right).advance
            self._kerning[pair] = found
        return found

    def _draw(self, char: str) -> Glyph:
        core, (left, top) = self._font.getmask2(char, mode="L", anchor="ls")
        width, height = core.size
        mask = np.frombuffer(bytes(core), np.uint8).reshape(height, width)
        x, y, width, height = cv2.boundingRect((mask > 32).view(np.uint8)) if mask.size else (0, 0, 0, 0)
        if not width:
            raise FontError(f"{self._path}: the glyph of {char!r} leaves no ink")
        mask = mask[y : y + height, x : x + width].copy()
        return Glyph(mask, left + x, top + y, float(self._font.getlength(char)))


class FaceStore:
    """The faces used last, so that a worker's memory stays bounded (≈ 80 KB a face, once its glyphs are drawn)."""

    def __init__(self, capacity: int = 6000) -> None:
        self._capacity = capacity
        self._faces: OrderedDict[str, Face] = OrderedDict()

    def get(self, font: Font) -> Face:
        """The face of `font`, opened when it is not at hand."""
        face = self._faces.get(font.path)
        if face is None:
            face = self._faces[font.path] = Face(font.path)
            if len(self._faces) > self._capacity:
                self._faces.popitem(last=False)
        self._faces.move_to_end(font.path)
        return face
