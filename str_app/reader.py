"""The Python interface: pictures of words in, text with honest confidences out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from str_app import decoding
from str_app.character_boxes import character_boxes
from str_app.decoding import BEAM, Decoded, Prior, Trie
from str_app.engines.base import Engine
from str_app.engines.precision import Precision
from str_app.errors import ImageError, StrAppError
from str_app.inputs import regions as marked
from str_app.inputs.images import DEFAULT_LIMITS, ImageLimits, ImageSource, load_image
from str_app.models.charset import Charset
from str_app.passes import passes
from str_app.reading import Character as Character
from str_app.reading import Reading as Reading
from str_app.reading import best_turn, turns_of
from str_app.views.long_lines import Span, better, parts_of
from str_app.word_prior import WordPrior


@dataclass(frozen=True)
class Fitted:
    """A crop on its canvas, ready for a pass.

    Attributes:
        canvas: uint8 (height, W, 3).
        covered: columns of the canvas that the crop covers.
        image_size: height and width of the crop in pixels, turned.
        turn: quarters that it was turned by, counter-clockwise.
        span: left and right edge of the part of a long line that this is; None is the whole.
    """

    canvas: npt.NDArray[np.uint8]
    covered: int
    image_size: tuple[int, int]
    turn: int = 0
    span: Span | None = None


class Reader:
    """Reads words off crops. Safe to share among threads: no call changes it.

    Args:
        engine: what runs the network.
        batch_size: most crops in one pass. A pass has crops of one canvas width and one of a few sizes, so that the
            engine meets few shapes and caches a few; see `str_app.passes`.
        prior: what is likely before anybody has looked, where no lexicon is given; without, the network alone reads.
    """

    def __init__(self, engine: Engine, batch_size: int = 32, prior: Prior | None = None) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}: it must be at least 1")
        self.engine = engine
        self.batch_size = batch_size
        self.prior = prior

    @classmethod
    def load(
        cls,
        model: str | Path = "small",
        *,
        device: str = "cpu",
        threads: int | None = None,
        batch_size: int = 32,
        prior: bool = True,
        traced: bool = False,
        precision: Precision = "auto",
    ) -> Reader:
        """Load a model with its weights.

        Args:
            model: a name of `str-app models`, or the path of a checkpoint.
            device: `"cpu"` or `"cuda"`.
            threads: CPU threads for one pass, a setting of the whole process; torch's own default if None.
            batch_size: most crops in one pass.
            prior: prefer known words and numbers where the picture leaves a doubt; see `str_app.word_prior`.
            traced: let other Python threads run while a pass is computed; see `TorchEngine`.
            precision: of the convolutions: bf16, fp32, or bf16 where the processor has instructions for it, which takes
                half the time there; fp32 gives the same probabilities on every machine.

        Raises:
            StrAppError: unknown name, no weights, or no such device.
            CheckpointError: damaged weights.
        """
        from str_app.engines.torch_engine import load_engine

        engine = load_engine(model, device=device, threads=threads, traced=traced, precision=precision)
        return cls(engine, batch_size, WordPrior.released() if prior else None)

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
        beam: int = BEAM,
        lexicon: Iterable[str] | None = None,
        attention: bool = False,
        rotate: bool = False,
        limits: ImageLimits = DEFAULT_LIMITS,
    ) -> list[Reading]:
        """Read one image or several.

        Args:
            images: a path, encoded bytes, a PIL image or a uint8 array, or a sequence of these; an array of four
                dimensions is a sequence. Each is the crop of one word.
            beam: number of readings kept while searching for a better one than the greedy reading, where there can
                be one; 1 never searches, and knows no prior.
            lexicon: words to choose from, whatever their case; nothing else is then returned. It takes its own beam.
            attention: return the attention maps too.
            rotate: try each image turned by 0, 90, 180 and 270 degrees and keep the most confident reading, for
                vertical and upside-down words. It takes four times as long. Tall images are tried on either side in
                any case; see `str_app.reading.turns_of`.
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
        return self.read_crops(crops, beam=beam, lexicon=lexicon, attention=attention, rotate=rotate)

    def recognize_regions(
        self,
        photo: ImageSource,
        regions: Sequence[Any],
        *,
        beam: int = BEAM,
        lexicon: Iterable[str] | None = None,
        attention: bool = False,
        rotate: bool = False,
        limits: ImageLimits = DEFAULT_LIMITS,
    ) -> list[Reading]:
        """Read the words that a detector, or a person, has marked in one photograph.

        Args:
            photo: as one image of `recognize`.
            regions: boxes `[x0, y0, x1, y1]` or quadrilaterals of 8 numbers or 4 points, in pixels of the upright
                photograph; the points clockwise from the first letter's top left. See `str_app.inputs.regions.region`.
            beam, lexicon, attention, rotate: see `recognize`.
            limits: of the photograph and of each crop.

        Returns:
            One reading per region, in order, with boxes in pixels of the photograph.

        Raises:
            ImageError: the photograph, or a region of it, cannot be read; the message says which one.
        """
        readings = self.read_regions(
            load_image(photo, limits),
            regions,
            beam=beam,
            lexicon=lexicon,
            attention=attention,
            rotate=rotate,
            limits=limits,
        )
        return [_or_raise(reading) for reading in readings]

    def read_regions(
        self,
        photo: npt.NDArray[np.uint8],
        regions: Sequence[Any],
        *,
        limits: ImageLimits = DEFAULT_LIMITS,
        **options: Any,
    ) -> list[Reading | ImageError]:
        """As `recognize_regions`, for a photograph that is decoded already; the error of a region stands in its place.

        Args:
            photo: uint8 (H, W, 3) RGB.
            regions, limits: see `recognize_regions`.
            options: of `read_crops`.
        """
        found = list(marked.crops(photo, regions, limits))
        crops = [crop[1] for crop in found if not isinstance(crop, ImageError)]
        readings = iter(self.read_crops(crops, **options))
        return [
            crop
            if isinstance(crop, ImageError)
            else next(readings).moved(partial(marked.in_photo, marked=crop[0], photo_size=photo.shape[:2]))
            for crop in found
        ]

    def read_crops(
        self,
        crops: Iterable[npt.NDArray[np.uint8]],
        *,
        beam: int = BEAM,
        lexicon: Iterable[str] | None = None,
        lexicons: Sequence[Iterable[str]] | None = None,
        attention: bool = False,
        rotate: bool = False,
    ) -> list[Reading]:
        """As `recognize`, for crops that are decoded already: uint8 (H, W, 3) RGB, of any size.

        Args:
            crops, beam, lexicon, attention, rotate: see `recognize`.
            lexicons: instead of `lexicon`, the words to choose from for each crop.
        """
        free = lexicon is None and lexicons is None  # a part of a line is no word of a lexicon
        turned = [self.fit_turns(crop, rotate, parts=free) for crop in crops]
        if lexicons is not None:
            given = zip(map(list, lexicons), turned, strict=True)
            lexicons = [words for words, turns in given for _ in turns]
        fitted = [one for turns in turned for one in turns]
        readings = iter(self.read_fitted(fitted, beam=beam, lexicon=lexicon, lexicons=lexicons, attention=attention))
        return [self.best(turns, [next(readings) for _ in turns]) for turns in turned]

    def best(self, turns: Sequence[Fitted], readings: Sequence[Reading]) -> Reading:
        """The most confident reading of one crop's turns or parts, as `fit_turns` gave them."""
        spans = [one.span for one in turns if one.span]
        if spans:
            return better(readings[0], readings[1:], spans, turns[0].image_size[0])
        return best_turn(readings, [one.turn for one in turns], turns[0].image_size)

    def use_threads(self, count: int) -> None:
        """CPU threads for the passes that the calling thread makes from now on."""
        self.engine.use_threads(count)

    def warm_up(self, sizes: Sequence[int]) -> None:
        """Make a pass of each of these sizes at every canvas width, so that what comes first need not wait."""
        random = np.random.default_rng(0)
        height, widths = self.canvas_sizes
        for width in widths:
            noise = self.fit(random.integers(0, 256, (height, width, 3), dtype=np.uint8))
            # Noise is doubted, hence searched and looked at three times. Once is enough: searches of every size took
            # eight times as long as all the rest, and made the first readings no faster.
            self.read_fitted([noise])
            for size in sizes:
                self.read_fitted([noise] * size, beam=1)

    def fit(self, crop: npt.NDArray[np.uint8], turn: int = 0) -> Fitted:
        """Scale a crop, uint8 (H, W, 3) RGB, to its canvas, turned by quarters counter-clockwise."""
        if turn:
            crop = np.ascontiguousarray(np.rot90(crop, turn))
        canvas, covered = self.engine.preprocessing(crop)
        return Fitted(canvas, covered, (crop.shape[0], crop.shape[1]), turn)

    def fit_turns(self, crop: npt.NDArray[np.uint8], rotate: bool, parts: bool = True) -> list[Fitted]:
        """What `best` chooses from: the crop in each of the turns that `turns_of` says, the first upright.

        A line that is too long for the widest canvas, upright and in `parts` too; see `str_app.views.long_lines`.
        """
        size = (crop.shape[0], crop.shape[1])
        fitted = [self.fit(crop, turn) for turn in turns_of(size, rotate)]
        if parts and not rotate:
            preprocessing = self.engine.preprocessing
            for left, right in parts_of(size, (preprocessing.height, preprocessing.width)):
                fitted.append(replace(self.fit(crop[:, left:right]), span=(left, right)))
        return fitted

    def read_fitted(
        self,
        fitted: Sequence[Fitted],
        *,
        beam: int = BEAM,
        lexicon: Iterable[str] | None = None,
        lexicons: Sequence[Iterable[str]] | None = None,
        attention: bool = False,
    ) -> list[Reading]:
        """As `read_crops`, for crops on the canvases of this reader's `fit`."""
        search = self._search(beam, lexicon, lexicons)
        readings: dict[int, Reading] = {}
        for places in passes([crop.canvas.shape[1] for crop in fitted], self.batch_size):
            canvases = np.stack([fitted[place].canvas for place in places])
            widths = np.array([fitted[place].covered for place in places], dtype=np.int64)
            for place, decoded in zip(places, search(canvases, widths, places), strict=True):
                readings[place] = self._reading(decoded, fitted[place], attention)
        return [readings[place] for place in range(len(fitted))]

    def _search(
        self, beam: int, lexicon: Iterable[str] | None, lexicons: Sequence[Iterable[str]] | None
    ) -> Callable[[npt.NDArray[np.uint8], npt.NDArray[np.int64], Sequence[int]], list[Decoded]]:
        """Canvases, widths and their places among all crops → readings."""
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
        return lambda canvases, widths, places: decoding.beam_search(
            engine, canvases, widths, width=beam, prior=self.prior
        )

    def _trie(self, words: Iterable[str]) -> Trie:
        try:
            return Trie(words, self.engine.charset)
        except ValueError as error:
            raise StrAppError(str(error)) from error

    def _reading(self, decoded: Decoded, crop: Fitted, attention: bool) -> Reading:
        canvas_size = (crop.canvas.shape[0], crop.canvas.shape[1])
        boxes = character_boxes(decoded.attention[: len(decoded.text)], crop.covered, canvas_size, crop.image_size)
        characters = tuple(
            Character(text, _probability(log_prob), box)
            for text, log_prob, box in zip(decoded.text, decoded.character_log_probs, boxes, strict=False)
        )
        return Reading(
            decoded.text,
            _probability(decoded.log_confidence),
            characters,
            decoded.attention if attention else None,
            crop.covered / canvas_size[1],
        )


def _or_raise(reading: Reading | ImageError) -> Reading:
    if isinstance(reading, ImageError):
        raise reading
    return reading


def _probability(log_prob: float) -> float:
    return min(1.0, math.exp(log_prob))


def _as_sequence(images: ImageSource | Sequence[ImageSource]) -> Sequence[ImageSource]:
    if isinstance(images, np.ndarray):
        return list(images) if images.ndim == 4 else [images]
    if isinstance(images, str | Path | bytes | Image.Image):
        return [images]
    return list(images)
