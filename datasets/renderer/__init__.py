"""Renders word crops and whole scenes with real fonts.

`Renderer(find_fonts(), frequent_words(), seed).render(index)`, and `SceneComposer(…).compose(index)` likewise.
"""

from __future__ import annotations

from str_app.datasets.renderer.fonts import Font, FontError, FontSet, find_fonts
from str_app.datasets.renderer.photographs import find_photographs
from str_app.datasets.renderer.render import Renderer, encode
from str_app.datasets.renderer.scene import Scene, SceneComposer, SceneWord
from str_app.datasets.renderer.style import Style, make_style
from str_app.datasets.renderer.words import TextSource, WordError, WordList, frequent_words, read_words

__all__ = [
    "Font",
    "FontError",
    "FontSet",
    "Renderer",
    "Scene",
    "SceneComposer",
    "SceneWord",
    "Style",
    "TextSource",
    "WordError",
    "WordList",
    "encode",
    "find_fonts",
    "find_photographs",
    "frequent_words",
    "make_style",
    "read_words",
]
