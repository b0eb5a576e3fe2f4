"""From canvases to readings: batches, decoding, boxes."""

from __future__ import annotations

import math
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from str_app import decoding
from str_app.buckets import batches_by_width
from str_app.decoding import Decoded, Prior, Scorer, Trie, mask_of
from str_app.decoding.character_boxes import character_boxes
from str_app.decoding.scoring import Mask
from str_app.engines.base import Engine
from str_app.engines.options import is_whole
from str_app.errors import StrAppError
from str_app.models.charset import Charset
from str_app.models.preprocessing import Preprocessing
from str_app.policy import DEFAULT_POLICY, SearchPolicy
from str_app.reading import Character, Reading
from str_app.views import Canvas, to_canvas

Decode = Callable[[npt.NDArray[np.uint8], npt.NDArray[np.int64], Mask | None, Sequence[int]], list[Decoded]]


class Description(NamedTuple):
    """What is known of a reader without asking its engine.

    Attributes:
        name: of the model.
        charset: characters that can be read.
        preprocessing: what canvases look like; see `str_app.views.views_of`.
        info: the checkpoint's metadata: parameters, training data, metrics; empty if the engine has none.
        policy: thresholds of views and search.
    """

    name: str
    charset: Charset
    preprocessing: Preprocessing
    info: Mapping[str, Any]
    policy: SearchPolicy


class CanvasReader(ABC):
    """What reads canvases: in this process, or in model processes behind a server. Thread-safe.

    Args:
        description: of the model.
    """

    def __init__(self, description: Description) -> None:
        self.description = description

    @property
    def name(self) -> str:
        """See `Description`."""
        return self.description.name

    @property
    def charset(self) -> Charset:
        """See `Description`."""
        return self.description.charset

    @property
    def preprocessing(self) -> Preprocessing:
        """See `Description`."""
        return self.description.preprocessing

    @property
    def info(self) -> Mapping[str, Any]:
        """See `Description`."""
        return self.description.info

    @property
    def policy(self) -> SearchPolicy:
        """See `Description`."""
        return self.description.policy

    @abstractmethod
    def read_canvases(self, canvases: Sequence[Canvas], *, attention: bool = False) -> list[Reading]:
        """One reading a canvas, in order, boxes in pixels of its view of the crop."""

    @abstractmethod
    def warm_up(self, sizes: Sequence[int]) -> None:
        """Read noise in batches of each of these sizes at every canvas width, so that first requests need not wait."""

    @abstractmethod
    def use_threads(self, count: int) -> None:
        """Set the CPU threads for what the calling thread reads from now on."""


class CanvasPipeline(CanvasReader):
    """Reads canvases with an engine.

    Args:
        engine: runs the network.
        max_batch: most canvases in one batch; see `str_app.buckets`.
        prior: likelihood of texts, where no lexicon is given.
        policy: thresholds of the search.

    Raises:
        StrAppError: `max_batch` is not a whole number, or below 1.
    """

    def __init__(
        self, engine: Engine, max_batch: int = 32, prior: Prior | None = None, policy: SearchPolicy = DEFAULT_POLICY
    ) -> None:
        if not is_whole(max_batch, 1):
            raise StrAppError(f"batch_size is {max_batch!r}: it must be a whole number, at least 1")
        super().__init__(Description(engine.name, engine.charset, engine.preprocessing, engine.info, policy))
        self.engine = engine
        self.max_batch = int(max_batch)
        self.prior = prior
        self._scorer = Scorer(engine)

    def use_threads(self, count: int) -> None:
        """See `CanvasReader`."""
        self.engine.use_threads(count)

    def warm_up(self, sizes: Sequence[int]) -> None:
        """See `CanvasReader`."""
        random = np.random.default_rng(0)
        for width in self.preprocessing.widths:
            noise = to_canvas(
                random.integers(0, 256, (self.preprocessing.height, width, 3), dtype=np.uint8), self.preprocessing
            )
            # Noise is doubted, hence searched and looked at three times. Once is enough: searches of every size took
            # eight times as long as all the rest, and made the first readings no faster.
            self.read_canvases([noise])
            for size in sizes if self.engine.caches_shapes else ():
                self.read_canvases([noise] * size, beam=1)

    def read_canvases(
        self,
        canvases: Sequence[Canvas],
        *,
        beam: int | None = None,
        lexicon: Iterable[str] | None = None,
        lexicons: Sequence[Iterable[str]] | None = None,
        attention: bool = False,
    ) -> list[Reading]:
        """See `CanvasReader`.

        Args:
            canvases: of any widths of the model's preprocessing.
            beam: prefixes kept, instead of the policy's.
            lexicon: words to choose from, for all canvases.
            lexicons: words to choose from, for each canvas.
            attention: return the attention maps too.

        Raises:
            StrAppError: a lexicon is empty, or has a word that is too long or that the model's charset cannot write; a
                beam below 1.
        """
        policy = self.policy if beam is None else replace(self.policy, beam=beam)
        if not is_whole(policy.beam, 1):
            raise StrAppError(f"beam is {policy.beam!r}: it must be a whole number, at least 1")
        once = [index for index, canvas in enumerate(canvases) if canvas.one_look]
        others = [index for index, canvas in enumerate(canvases) if not canvas.one_look]
        readings = self._read(canvases, others, self._decoder(policy, lexicon, lexicons), attention)
        if once:  # variants, which crops read with a lexicon have not
            glance = self._decoder(replace(policy, doubted=0.0, faint=0.0), None, None)
            readings |= self._read(canvases, once, glance, attention)
        return [readings[index] for index in range(len(canvases))]

    def _read(
        self, canvases: Sequence[Canvas], chosen: Sequence[int], decode: Decode, attention: bool
    ) -> dict[int, Reading]:
        """The readings of the chosen canvases, by index."""
        readings: dict[int, Reading] = {}
        for places in batches_by_width([canvases[index].pixels.shape[1] for index in chosen], self.max_batch):
            batch = [chosen[place] for place in places]
            pixels = np.stack([canvases[index].pixels for index in batch])
            allowed = self._allowed([canvases[index].characters for index in batch])
            widths = np.array([canvases[index].covered for index in batch], dtype=np.int64)
            for index, decoded in zip(batch, decode(pixels, widths, allowed, batch), strict=True):
                readings[index] = _reading(decoded, canvases[index], attention)
        return readings

    def _decoder(
        self, policy: SearchPolicy, lexicon: Iterable[str] | None, lexicons: Sequence[Iterable[str]] | None
    ) -> Decode:
        """Pixels, covered widths, allowed classes, and the indices of the canvases among all → what was decoded."""
        scorer = self._scorer
        if lexicons is not None:
            tries = [self._trie(words) for words in lexicons]
            return lambda pixels, widths, _, indices: decoding.lexicon_search(
                scorer, pixels, widths, [tries[index] for index in indices]
            )
        if lexicon is not None:
            trie = self._trie(lexicon)
            return lambda pixels, widths, _, indices: decoding.lexicon_search(scorer, pixels, widths, trie)
        return lambda pixels, widths, allowed, _: decoding.beam_search(
            scorer, pixels, widths, self.prior, policy, allowed
        )

    def _allowed(self, characters: Sequence[str | None]) -> Mask | None:
        """bool (B, V), or None where all characters of the model are allowed for all."""
        if not any(characters):
            return None
        everything = np.ones(self.charset.num_classes, dtype=np.bool_)
        masks = {each: mask_of(each, self.charset) if each else everything for each in set(characters)}
        return np.stack([masks[each] for each in characters])

    def _trie(self, words: Iterable[str]) -> Trie:
        if not isinstance(words, Iterable):
            raise StrAppError(f"lexicon is a {type(words).__name__}: give a list of words")
        try:
            return Trie(words, self.charset, self.engine.max_length)
        except ValueError as error:
            raise StrAppError(str(error)) from error


def _reading(decoded: Decoded, canvas: Canvas, attention: bool) -> Reading:
    maps = decoded.attention[:-1]
    letters = decoded.text
    if len(letters) != len(maps):  # a lexicon's word, whose accents are characters of their own
        letters = unicodedata.normalize("NFC", letters)
    boxes = character_boxes(maps, canvas.covered, canvas.size, canvas.crop_size)
    characters = tuple(
        Character(text, _probability(log_prob), box)
        for text, log_prob, box in zip(letters, decoded.character_log_probs, boxes, strict=False)
    )
    return Reading(
        decoded.text,
        _probability(decoded.log_confidence),
        characters,
        decoded.attention if attention else None,
        canvas.covered / canvas.size[1],
        shares=decoded.shares,
    )


def _probability(log_prob: float) -> float:
    return min(math.exp(log_prob), 1.0)  # NaN, of damaged weights, stays NaN
