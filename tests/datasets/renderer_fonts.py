"""Fonts for the renderer's tests, made from the one that Pillow carries: no test needs fonts on the machine."""

from __future__ import annotations

import io
from pathlib import Path

from fontTools.subset import Options, Subsetter
from fontTools.ttLib import TTFont
from PIL import ImageFont

from str_app.datasets.renderer.fonts import PRINTABLE


def pillow_font() -> bytes:
    font = ImageFont.load_default(20)
    assert isinstance(font, ImageFont.FreeTypeFont)
    assert isinstance(font.path, io.BytesIO)
    return font.path.getvalue()


def write_font(path: Path, without: str = "", small_as_capitals: bool = False, boxes_for: str = "") -> Path:
    """A font of its own: lacking glyphs, with A for a, or with the same glyph for several characters."""
    font = TTFont(io.BytesIO(pillow_font()))
    for table in font["cmap"].tables:
        if not table.isUnicode():
            continue
        for char in boxes_for:
            table.cmap[ord(char)] = table.cmap[ord("#")]
        if small_as_capitals:
            for code in range(ord("a"), ord("z") + 1):
                table.cmap[code] = table.cmap[code - 32]
    subsetter = Subsetter(Options(notdef_outline=True, glyph_names=True))
    subsetter.populate(unicodes=[ord(char) for char in PRINTABLE if char not in without])
    subsetter.subset(font)
    path.parent.mkdir(parents=True, exist_ok=True)
    font.save(path)
    return path
