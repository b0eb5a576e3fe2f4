"""The Python interface: pictures of words in, text with honest confidences out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from models.charset import Charset
from str_app.character_boxes import Box, character_boxes
from str_app.engine import Engine
from str_app.errors import StrAppError
from str_app.images import DEFAULT_LIMITS, ImageLimits, ImageSource, load_image

if TYPE_CHECKING:
    from str_app.decoding import Decoded, Trie


@dataclass(frozen=True)
class Character:
    """One character of a reading.

    Attributes:
        text: the character.
        confidence: calibrated probability that it is right, given the characters before it.
        box: x0, y0, x1, y1 in pixels of the image given.
    """

    text: str
    confidence: float
    box: Box


@dataclass(frozen=True)
class Reading:
    """What one image says.

    Attributes:
        text: the reading; may be empty.
        confidence: calibrated probability that the whole reading, its end included, is right.
        characters: one entry per character of `text`.
        attention: float32 (len(text) + 1, H', W') over the canvas, the end token's map last; None unless asked for.
    """

    text: str
    confidence: float
    characters: tuple[Character, ...]
    attention: npt.NDArray[np.float32] | None = None


class Reader:
    """Reads words off crops. Safe to share among threads: no call changes it.

    Args:
        engine: what runs the network.
        batch_size: most crops in one pass. A pass has crops of one canvas width, and sizes of 1, 2, 4, … and
            `batch_size` only, so that the engine meets few shapes and caches a few.
    """

    def __init__(self, engine: Engine, batch_size: int = 32) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}: it must be at least 1")
        self.engine = engine
        self.batch_size = batch_size

    @classmethod
    def load(
        cls, model: str | Path = "small", *, device: str = "cpu", threads: int | None = None, batch_size: int = 32
    ) -> Reader:
        """Load a model with its weights.

        Args:
            model: a name of `str-app models`, or the path of a checkpoint.
            device: `"cpu"` or `"cuda"`.
            threads: CPU threads for one pass, a setting of the whole process; torch's own default if None.
            batch_size: most crops in one pass.

        Raises:
            StrAppError: unknown name, no weights, or no such device.
            CheckpointError: damaged weights.
        """
        from str_app.torch_engine import load_engine

        return cls(load_engine(model, device=device, threads=threads), batch_size=batch_size)

    @property
    def name(self) -> str:
        """The model's name."""
        return self.engine.name

    @property
    def charset(self) -> Charset:
        """Characters that can be read."""
        return self.engine.charset

    @property
    def canvas_sizes(self) -> tuple[int, tuple[int, ...]]:
        """Height and widths of the canvases that passes are made of."""
        return self.engine.preprocessing.height, self.engine.preprocessing.widths

    @property
    def info(self) -> dict[str, Any]:
        """The checkpoint's metadata: parameters, training data, metrics; empty if the engine has none."""
        return dict(getattr(self.engine, "info", {}))

    def recognize(
        self,
        images: ImageSource | Sequence[ImageSource],
        *,
        beam: int = 1,
        lexicon: Iterable[str] | None = None,
        attention: bool = False,
        limits: ImageLimits = DEFAULT_LIMITS,
    ) -> list[Reading]:
        """Read one image or several.

        Args:
            images: a path, encoded bytes, a PIL image or a uint8 array, or a sequence of these; an array of four
                dimensions is a sequence. Each is the crop of one word.
            beam: number of readings kept while searching; 1 is greedy.
            lexicon: words to choose from, whatever their case; nothing else is then returned. It takes its own beam.
            attention: return the attention maps too.
            limits: what is refused as no word crop.

        Returns:
            One reading per image, in order; the same for an image whatever it was given together with.

        Raises:
            ImageError: an image cannot be read; the message says which one.
            StrAppError: the lexicon is empty, or has a word that the model's charset cannot write.
        """
        sources = _as_sequence(images)
        crops = (
            load_image(source, limits, None if isinstance(source, str | Path) else f"image {place} of {len(sources)}")
            for place, source in enumerate(sources, 1)
        )
        return self.read_crops(crops, beam=beam, lexicon=lexicon, attention=attention)

    def read_crops(
        self,
        crops: Iterable[npt.NDArray[np.uint8]],
        *,
        beam: int = 1,
        lexicon: Iterable[str] | None = None,
        lexicons: Sequence[Iterable[str]] | None = None,
        attention: bool = False,
    ) -> list[Reading]:
        """As `recognize`, for crops that are decoded already: uint8 (H, W, 3) RGB, of any size.

        Args:
            crops, beam, lexicon, attention: see `recognize`.
            lexicons: instead of `lexicon`, the words to choose from for each crop.
        """
        search = self._search(beam, lexicon, lexicons)
        fitted: list[tuple[npt.NDArray[np.uint8], int, tuple[int, int]]] = []
        for crop in crops:
            canvas, covered = self.engine.preprocessing(crop)
            fitted.append((canvas, covered, (crop.shape[0], crop.shape[1])))
        readings: dict[int, Reading] = {}
        for places in self._passes([canvas.shape[1] for canvas, _, _ in fitted]):
            canvases = np.stack([fitted[place][0] for place in places])
            widths = np.array([fitted[place][1] for place in places], dtype=np.int64)
            for place, decoded in zip(places, search(canvases, widths, places), strict=True):
                canvas, covered, image_size = fitted[place]
                readings[place] = self._reading(decoded, covered, canvas.shape[1], image_size, attention)
        return [readings[place] for place in range(len(fitted))]

    def _passes(self, canvas_widths: Sequence[int]) -> Iterator[list[int]]:
        """Places of the crops that go through the network together: one canvas width, one of the usual sizes."""
        for width in sorted(set(canvas_widths)):
            places = [place for place, other in enumerate(canvas_widths) if other == width]
            start = 0
            for size in batch_sizes(len(places), self.batch_size):
                yield places[start : start + size]
                start += size

    def _search(
        self, beam: int, lexicon: Iterable[str] | None, lexicons: Sequence[Iterable[str]] | None
    ) -> Callable[[npt.NDArray[np.uint8], npt.NDArray[np.int64], Sequence[int]], list[Decoded]]:
        """Canvases, widths and their places among all crops → readings."""
        from str_app import decoding

        if beam < 1:
            raise ValueError(f"beam is {beam}: it must be at least 1")
        engine = self.engine
        if lexicons is not None:
            tries = [self._trie(words) for words in lexicons]
            return lambda canvases, widths, places: decoding.lexicon_search(
                engine, canvases, widths, [tries[place] for place in places]
            )
        if lexicon is not None:
            trie = self._trie(lexicon)
            return lambda canvases, widths, places: decoding.lexicon_search(engine, canvases, widths, trie)
        if beam > 1:
            return lambda canvases, widths, places: decoding.beam_search(engine, canvases, widths, width=beam)
        return lambda canvases, widths, places: decoding.greedy(engine, canvases, widths)

    def _trie(self, words: Iterable[str]) -> Trie:
        from str_app.decoding import Trie

        try:
            return Trie(words, self.engine.charset)
        except ValueError as error:
            raise StrAppError(str(error)) from error

    def _reading(
        self, decoded: Decoded, covered: int, canvas_width: int, image_size: tuple[int, int], attention: bool
    ) -> Reading:
        canvas_size = (self.engine.preprocessing.height, canvas_width)
        boxes = character_boxes(decoded.attention[: len(decoded.text)], covered, canvas_size, image_size)
        characters = tuple(
            Character(text, _probability(log_prob), box)
            for text, log_prob, box in zip(decoded.text, decoded.character_log_probs, boxes, strict=False)
        )
        return Reading(
            decoded.text, _probability(decoded.log_prob), characters, decoded.attention if attention else None
        )


def batch_sizes(count: int, largest: int) -> list[int]:
    """Sizes of the passes for `count` crops: full batches, then the powers of two that make up the rest.

    >>> batch_sizes(75, 32)
    [32, 32, 8, 2, 1]
    """
    rest = count % largest
    return [largest] * (count // largest) + [
        1 << bit for bit in range(rest.bit_length() - 1, -1, -1) if rest >> bit & 1
    ]


def _probability(log_prob: float) -> float:
    return min(1.0, math.exp(log_prob))


def _as_sequence(images: ImageSource | Sequence[ImageSource]) -> Sequence[ImageSource]:
    if isinstance(images, np.ndarray):
        return list(images) if images.ndim == 4 else [images]
    if isinstance(images, str | Path | bytes | Image.Image):
        return [images]
    return list(images)
