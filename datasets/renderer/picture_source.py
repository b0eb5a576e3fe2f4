"""What crops and scenes are drawn from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from str_app.datasets.renderer import fonts as font_files
from str_app.datasets.renderer import photographs as photograph_files
from str_app.datasets.renderer.fonts import FontSet
from str_app.datasets.renderer.glyphs import FaceStore
from str_app.datasets.renderer.style import Style
from str_app.datasets.renderer.words import TextSource, WordList


class PictureSource:
    """Base of what draws picture `index`, which depends on the arguments, `version` and the index only.

    Not thread-safe, because it caches glyphs; each process needs its own.

    Args:
        fonts: from `find_fonts`.
        words: a word list, or a `TextSource` for other texts than the default.
        seed: non-negative, of the data set.
        style: frequency of each effect.
        photographs: from `find_photographs`, for backgrounds.
    """

    version: ClassVar[int]  # increase it when the same seed and index give another picture
    cached_faces: ClassVar[int] = 6000

    def __init__(
        self,
        fonts: FontSet,
        words: WordList | TextSource,
        seed: int,
        style: Style | None = None,
        photographs: Sequence[npt.NDArray[np.uint8]] = (),
    ) -> None:
        self.fonts = fonts
        self.texts = words if isinstance(words, TextSource) else TextSource(words)
        self.seed = seed
        self.style = style or Style()
        self.photographs = photographs
        self._faces = FaceStore(self.cached_faces)

    @property
    def identity(self) -> str:
        """Short hash of everything that a picture depends on, except its index."""
        parts = (
            self.version,
            font_files.fingerprint(self.fonts),
            self.texts.fingerprint,
            self.seed,
            self.style,
            photograph_files.fingerprint(self.photographs),
        )
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
