"""The Python interface: crops of words in, text with calibrated confidences out."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, SupportsIndex, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from str_app.decoding import Prior, parse_characters
from str_app.engines.base import Engine
from str_app.engines.precision import Precision
from str_app.errors import ImageError, StrAppError
from str_app.inputs.images import DEFAULT_LIMITS, ImageLimits, ImageSource, load_image
from str_app.inputs.regions import as_regions, crops_of_regions, to_photo
from str_app.pipeline import CanvasPipeline, CanvasReader
from str_app.policy import DEFAULT_POLICY, SearchPolicy
from str_app.reading import Reading
from str_app.views import Canvas, hardly_read, merge, variants_of, views_of

# They can be iterated, but not for images.
_NOT_SEQUENCES = (str, bytes, bytearray, memoryview, Image.Image, io.IOBase)


class Reader(CanvasReader):
    """Reads words in crops. Safe to share among threads: no call changes it.

    A forked child reads with one thread. A reader from `load` pickles as the arguments of `load`: another process loads
    the model from the same file.

    Args:
        engine: runs the network.
        batch_size: most crops in one batch. A batch has crops of one canvas width and one of a few sizes, because
            engines cache memory for every shape that they meet; see `str_app.buckets`.
        prior: how likely texts are regardless of the picture, used where no lexicon is given; None: the network alone.
        policy: thresholds of views and search.
    """

    def __init__(
        self,
        engine: Engine,
        batch_size: int = 32,
        prior: Prior | None = None,
        policy: SearchPolicy = DEFAULT_POLICY,
    ) -> None:
        self._pipeline = CanvasPipeline(engine, batch_size, prior, policy)
        self._load_again: Callable[[], Reader] | None = None
        super().__init__(self._pipeline.description)

    @classmethod
    def load(
        cls,
        model: str | Path = "small",
        *,
        device: str = "cpu",
        threads: int | None = None,
        batch_size: int = 32,
        prior: bool = True,
        blank: bool = True,
        variants: bool = True,
        precision: Precision = "auto",
        engine: str = "auto",
        policy: SearchPolicy = DEFAULT_POLICY,
    ) -> Reader:
        """Load a model with its weights.

        Args:
            model: a name that `str-app models` lists, or the path of a checkpoint or of a folder that `str-app export`
                wrote.
            device: `"cpu"` or `"cuda"`.
            threads: CPU threads, with torch a setting of the whole process; the engine's own choice if None.
            batch_size: most crops in one batch.
            prior: prefer known words and numbers where the picture leaves a doubt; see `str_app.decoding.word_prior`.
            blank: return an empty text where the picture shows none; False: the best guess, however improbable. See
                `SearchPolicy.blank`.
            variants: read crops that can hardly be read again in variants of them; see `str_app.views.variants`.
            precision: `"int8"`, `"bf16"`, `"fp32"`, or `"auto"`: that of the exported graphs where there are any, with
                torch bf16 where the processor has instructions for it, which halves the time there. fp32 gives the same
                probabilities on every machine.
            engine: what runs the network: `"onnx"`, `"torch"` or `"auto"`; see `str_app.engines.load.load_engine`.
            policy: thresholds of views and search.

        Raises:
            StrAppError: unknown name, no or damaged weights, no such device, or a batch size below 1.
        """
        from str_app.decoding.word_prior import WordPrior
        from str_app.engines.graph_folder import lasting_name
        from str_app.engines.load import EngineOptions, load_engine

        if not blank:
            policy = replace(policy, blank=False)
        if not variants:
            policy = replace(policy, unsettled=0.0)
        loaded = load_engine(model, engine, EngineOptions(device, threads, precision))
        reader = cls(loaded, batch_size, WordPrior.released() if prior else None, policy)
        reader._load_again = partial(
            cls.load,
            lasting_name(model),
            device=device,
            threads=threads,
            batch_size=batch_size,
            prior=prior,
            precision=precision,
            engine=engine,
            policy=policy,
        )
        return reader

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        return (self._load_again, ()) if self._load_again else super().__reduce_ex__(protocol)

    def __repr__(self) -> str:
        return f"<Reader of {self.name!r}, {type(self.engine).__name__}>"

    @property
    def engine(self) -> Engine:
        """What runs the network."""
        return self._pipeline.engine

    @property
    def prior(self) -> Prior | None:
        """How likely texts are regardless of the picture; None: the network alone reads."""
        return self._pipeline.prior

    @property
    def batch_size(self) -> int:
        """Most crops in one batch."""
        return self._pipeline.max_batch

    def recognize(
        self,
        images: ImageSource | Iterable[ImageSource],
        *,
        beam: int | None = None,
        lexicon: Iterable[str] | None = None,
        characters: str | None = None,
        attention: bool = False,
        rotate: bool = False,
        limits: ImageLimits = DEFAULT_LIMITS,
    ) -> list[Reading]:
        """Read one image or several.

        Args:
            images: a path, encoded bytes, a PIL image or a uint8 array, or several of these in order; an array of four
                dimensions is several. Each is the crop of one word.
            beam: prefixes kept while a text better than the greedy one is searched for, where there can be one; by
                default the policy's 8. 1 never searches and uses no prior.
            lexicon: words to choose from, whatever their case; nothing else is returned then. It has a beam of its own.
            characters: those that a text may have, such as `"0-9"` or `"A-Z0-9-"`; see
                `str_app.decoding.allowed.parse_characters`. Confidences are given that the text has no others.
            attention: return the attention maps too.
            rotate: read each image turned by 0, 90, 180 and 270 degrees and keep the reading of the most probable turn,
                for vertical and upside-down words. It takes four times as long. Tall images are also read lying on
                either side without it; see `str_app.views.turns`.
            limits: images beyond them are refused.

        Returns:
            One reading per image, in order; the same for an image whatever it was given together with. All are prepared
            before the first is read, which takes 50 KB of memory each: give some thousands at a time, or use
            `str-app bulk`.

        Raises:
            ImageError: an image cannot be read; the message says which one.
            StrAppError: the beam is below 1; the lexicon is empty, not a list of words, or has a word that is too long
                or that the charset cannot write; no allowed character is in the charset; both a lexicon and characters
                are given.
        """
        sources = _as_list(images)
        crops = (
            load_image(source, limits, None if isinstance(source, str | Path) else f"image {number} of {len(sources)}")
            for number, source in enumerate(sources, 1)
        )
        return self.read_crops(
            crops, beam=beam, lexicon=lexicon, characters=characters, attention=attention, rotate=rotate
        )

    def recognize_regions(
        self,
        photo: ImageSource,
        regions: Iterable[Any],
        *,
        beam: int | None = None,
        lexicon: Iterable[str] | None = None,
        characters: str | None = None,
        attention: bool = False,
        rotate: bool = False,
        limits: ImageLimits = DEFAULT_LIMITS,
    ) -> list[Reading]:
        """Read words that a detector, or a person, has marked in one photograph.

        Args:
            photo: as one image of `recognize`.
            regions: boxes `[x0, y0, x1, y1]` or quadrilaterals of 8 numbers or 4 points, in pixels of the upright
                photograph; the points clockwise from the top left of the first letter. See `str_app.inputs.regions`.
            beam, lexicon, characters, attention, rotate: see `recognize`.
            limits: of the photograph and of each crop.

        Returns:
            One reading per region, in order, with boxes in pixels of the photograph.

        Raises:
            ImageError: the photograph, or a region of it, cannot be read; the message says which one.
            StrAppError: `regions` is not a list of regions.
        """
        readings = self.read_regions(
            load_image(photo, limits),
            regions,
            beam=beam,
            lexicon=lexicon,
            characters=characters,
            attention=attention,
            rotate=rotate,
            limits=limits,
        )
        return [_or_raise(reading) for reading in readings]

    def read_regions(
        self,
        photo: npt.NDArray[np.uint8],
        regions: Iterable[Any],
        *,
        limits: ImageLimits = DEFAULT_LIMITS,
        **options: Any,
    ) -> list[Reading | ImageError]:
        """As `recognize_regions`, for a decoded photograph; a region that cannot be read has its error as its result.

        Args:
            photo: uint8 (H, W, 3) RGB.
            regions, limits: see `recognize_regions`.
            options: of `read_crops`.
        """
        results = list(crops_of_regions(photo, as_regions(regions), limits))
        crops = [result[1] for result in results if not isinstance(result, ImageError)]
        readings = iter(self.read_crops(crops, **options))
        return [
            result
            if isinstance(result, ImageError)
            else next(readings).with_boxes(partial(to_photo, region=result[0], photo_size=photo.shape[:2]))
            for result in results
        ]

    def read_crops(
        self,
        crops: Iterable[npt.NDArray[np.uint8]],
        *,
        beam: int | None = None,
        lexicon: Iterable[str] | None = None,
        lexicons: Sequence[Iterable[str]] | None = None,
        characters: str | None = None,
        attention: bool = False,
        rotate: bool = False,
        level: bool = False,
    ) -> list[Reading]:
        """As `recognize`, for decoded crops: uint8 (H, W, 3) RGB, of any size.

        Args:
            crops, beam, lexicon, characters, attention, rotate: see `recognize`.
            lexicons: instead of `lexicon`, the words to choose from for each crop.
            level: the words are known to be level, as where they were cut out along their lines. Of others, those that
                can hardly be read are read again in variants; see `str_app.views.variants`.
        """
        policy, preprocessing = self.policy, self.preprocessing
        free_text = lexicon is None and lexicons is None  # a part of a line is no word of a lexicon
        if lexicon is not None and lexicons is not None:
            raise StrAppError("give either a lexicon or lexicons, not both")
        if characters is not None:
            if not free_text:
                raise StrAppError("give either a lexicon or allowed characters, not both")
            characters = parse_characters(characters, self.charset)
        if (policy.beam if beam is None else beam) == 1:
            policy = replace(policy, unsettled=0.0)  # greedy decoding looks once
        if not free_text:
            # The text is one of the words, whatever the picture shows, and their lengths are no evidence.
            policy = replace(policy, blank=False, unsettled=0.0, turns=policy.turns._replace(length=0.0))
        views = [
            views_of(
                _checked(crop),
                preprocessing,
                rotate=rotate,
                parts=free_text,
                level=level,
                characters=characters,
                policy=policy,
            )
            for crop in crops
        ]
        if lexicons is not None:
            of_crops = zip(_as_lexicons(lexicons, len(views)), views, strict=True)
            lexicons = [words for words, canvases in of_crops for _ in canvases]
        read = partial(self._pipeline.read_canvases, beam=beam, attention=attention)
        readings = _grouped(views, partial(read, lexicon=lexicon, lexicons=lexicons))
        variants = [
            variants_of(of_crop[0], so_far[0], preprocessing, policy) if hardly_read(of_crop, so_far, policy) else []
            for of_crop, so_far in zip(views, readings, strict=True)
        ]
        votes = map(zip, variants, _grouped(variants, read))
        return [
            merge(of_crop, so_far, policy, list(voted))
            for of_crop, so_far, voted in zip(views, readings, votes, strict=True)
        ]

    def read_canvases(self, canvases: Sequence[Canvas], *, attention: bool = False) -> list[Reading]:
        """See `str_app.pipeline.CanvasReader`."""
        return self._pipeline.read_canvases(canvases, attention=attention)

    def warm_up(self, sizes: Sequence[int]) -> None:
        """See `str_app.pipeline.CanvasReader`."""
        self._pipeline.warm_up(sizes)

    def use_threads(self, count: int) -> None:
        """See `str_app.pipeline.CanvasReader`."""
        self._pipeline.use_threads(count)


def _grouped(groups: Sequence[Sequence[Canvas]], read: Callable[[list[Canvas]], list[Reading]]) -> list[list[Reading]]:
    """The readings of each group of canvases, all of which are read together."""
    readings = iter(read([canvas for group in groups for canvas in group]))
    return [[next(readings) for _ in group] for group in groups]


def _or_raise(reading: Reading | ImageError) -> Reading:
    if isinstance(reading, ImageError):
        raise reading
    return reading


def _checked(crop: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    if not isinstance(crop, np.ndarray) or crop.ndim != 3 or crop.shape[2] != 3 or crop.dtype != np.uint8:
        what = f"{crop.dtype} array of shape {crop.shape}" if isinstance(crop, np.ndarray) else type(crop).__name__
        raise ImageError("unsupported_array", f"a crop is a {what}: give uint8 arrays (height, width, 3) in RGB")
    if 0 in crop.shape:
        raise ImageError("too_small", f"a crop has no pixels: its shape is {crop.shape}")
    return np.asarray(crop)  # not masked, nor of another subclass, whose functions mean something else


def _as_list(images: ImageSource | Iterable[ImageSource]) -> list[ImageSource]:
    if isinstance(images, Set | Mapping):
        raise ImageError("unsupported_type", f"images is a {type(images).__name__}, which has no order: give a list")
    if isinstance(images, np.ndarray):
        return list(images) if images.ndim == 4 else [images]
    if isinstance(images, Iterable) and not isinstance(images, _NOT_SEQUENCES):
        return list(images)
    return [cast(ImageSource, images)]  # `load_image` refuses what is not an image


def _as_lexicons(lexicons: Iterable[Iterable[str]], crops: int) -> list[Iterable[str]]:
    """One lexicon a crop, each of which may be iterated several times."""
    if not isinstance(lexicons, Iterable):
        raise StrAppError(f"lexicons is a {type(lexicons).__name__}: give a list of words for each crop")
    listed = lexicons if isinstance(lexicons, str) else list(lexicons)
    if any(isinstance(words, str) for words in listed):
        raise StrAppError("lexicons has a text in place of a lexicon: give a list of words for each crop")
    for number, words in enumerate(listed, 1):
        if not isinstance(words, Iterable):
            raise StrAppError(f"the lexicon of crop {number} is a {type(words).__name__}: give a list of words")
    if len(listed) != crops:
        raise StrAppError(f"{len(listed)} lexicons for {crops} crops: give one a crop")
    return [list(words) for words in listed]
