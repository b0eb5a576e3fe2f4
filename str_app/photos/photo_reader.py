"""Reads whole photographs: a detector finds lines or words, a reader reads the words."""

from __future__ import annotations

import math
import re
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from str_app.errors import ImageError
from str_app.inputs.images import DEFAULT_LIMITS, PHOTO_LIMITS, ImageLimits, ImageSource, load_image
from str_app.inputs.regions import Region, crops_of_regions, to_photo
from str_app.photos.detector import Detection, Detector, Quad
from str_app.photos.layout import LayoutPolicy, lines_of, reading_order
from str_app.photos.reading import PhotoReading, PhotoWord, in_lines
from str_app.photos.tables import TablePolicy, rows_of
from str_app.photos.words import WordSeparator, part_of
from str_app.policy import DEFAULT_POLICY, SearchPolicy, TurnWeights
from str_app.reader import Reader
from str_app.reading import Reading
from str_app.views.turns import turn_score

Pixels = npt.NDArray[np.uint8]
# Yields crops to be read, is sent their readings, any number of times, and returns the result.
Steps = Generator[list[Pixels], list[Reading], PhotoReading]
PARTED_NUMBER = re.compile(r"[0-9](?:[.,:/-] | [.,:/-])[0-9]")


@dataclass(frozen=True)
class PhotoPolicy:
    """Thresholds of reading photographs.

    Attributes:
        room: left around a word when it is read, in heights. Words are returned without it.
        tall: from this height over width on, a line is also taken to run upwards or downwards.
        upside_down_below: lines whose mean confidence is lower are also read turned by 180 degrees.
        spaced_letters: words of at most so many letters may be parts of a word whose letters stand apart.
        even_pitch: how much the greatest distance between its letters may exceed the least, as a factor.
        number_gap: parts of a number that meet at a point, comma, colon, stroke or hyphen are one, if they are closer
            than so many heights. Of 29 such pairs in 188 composed scenes none were two numbers.
        layout: what makes a line.
        tables: what makes a row of a table, which is a line of the result.
    """

    room: float = 0.12
    tall: float = 1.5
    upside_down_below: float = 0.7
    spaced_letters: int = 2
    even_pitch: float = 1.6
    number_gap: float = 0.25
    layout: LayoutPolicy = field(default_factory=LayoutPolicy)
    tables: TablePolicy = field(default_factory=TablePolicy)


class PhotoPipeline:
    """From a photograph to the crops of its words, and from their readings to the result.

    It reads nothing itself, so that a server can read the crops of many photographs together.

    Args:
        detector: finds words or lines.
        separator: takes lines apart; needed for a detector of lines only.
        policy: thresholds.
    """

    def __init__(
        self, detector: Detector, separator: WordSeparator | None = None, policy: PhotoPolicy | None = None
    ) -> None:
        self.detector = detector
        self.separator = separator
        self.policy = policy or PhotoPolicy()

    def steps(
        self, photo: Pixels, limits: ImageLimits = DEFAULT_LIMITS, search: SearchPolicy = DEFAULT_POLICY
    ) -> Steps:
        """Read one photograph; see `Steps`.

        Args:
            photo: uint8 (H, W, 3) RGB.
            limits: of the crops.
            search: the reader's policy; it says which way up a line is probably read.
        """

        def upright(line: _Read) -> float:
            return line.upright_score(search.turns)

        lines = self._candidates(photo, self.detector.find(photo), limits)
        readings = iter((yield [word.crop for line in lines for direction in line for word in direction]))
        read = [[_Read(direction, [next(readings) for _ in direction]) for direction in line] for line in lines]
        chosen = [max(directions, key=upright) for directions in read]
        # Text on its head is rare and reads badly the wrong way round.
        weak = [index for index, line in enumerate(chosen) if line.confidence < self.policy.upside_down_below]
        turned = [self._turned(photo, chosen[index].words, limits) for index in weak]
        if any(turned):
            readings = iter((yield [word.crop for line in turned for word in line]))
            for index, words in zip(weak, turned, strict=True):
                on_its_head = _Read(words, [next(readings) for _ in words], turn=2)
                chosen[index] = max(chosen[index], on_its_head, key=upright)
        parted = [(line, run) for line in chosen for run in line.parted_words(self.policy)]
        joined = [self._cut(photo, [line.joined(run)], limits) for line, run in parted]
        pairs = zip(parted, joined, strict=True)
        if any(joined):
            readings = iter((yield [word.crop for words in joined for word in words]))
            read_again = [(line, run, words, [next(readings) for _ in words]) for (line, run), words in pairs]
            for line, run, words, texts in reversed(read_again):  # the last run of a line first: indices stay valid
                if words:  # else the joined crop was refused
                    line.words[run], line.readings[run] = words, texts
        return self._result(photo, [line for line in chosen if line.words])

    def _candidates(self, photo: Pixels, found: Sequence[Detection], limits: ImageLimits) -> list[list[list[_Word]]]:
        """For each detection the directions in which it may be read, each as its words."""
        if self.detector.unit == "word" or self.separator is None:
            return [[self._cut(photo, [detection], limits)] for detection in found]
        as_lines = [_lying(detection) if self._is_tall(detection.quad) else detection for detection in found]
        any_shape = replace(limits, max_aspect=math.inf)  # words are as long as crops may be, lines of a page are not
        crops = list(crops_of_regions(photo, [detection.quad for detection in as_lines], any_shape))
        usable = [(index, crop[1]) for index, crop in enumerate(crops) if not isinstance(crop, ImageError)]
        boxes = dict(
            zip((index for index, _ in usable), self.separator.words([crop for _, crop in usable]), strict=True)
        )
        lines = []
        for index, (detection, line) in enumerate(zip(found, as_lines, strict=True)):
            if index not in boxes:
                continue
            words = [Detection(part_of(line.quad, box), line.score) for box in boxes[index]]
            if line is detection:
                lines.append([self._cut(photo, words, limits)])
            elif len(words) == 1:  # a narrow letter, or a word that the reader turns itself
                lines.append([self._cut(photo, [detection], limits)])
            else:
                lines.append([self._cut(photo, words, limits), self._cut(photo, _reversed(words), limits)])
        return lines

    def _cut(self, photo: Pixels, detections: Sequence[Detection], limits: ImageLimits) -> list[_Word]:
        grown = [_grown(detection.quad, self.policy.room) for detection in detections]
        return [
            _Word(detection, crop[1], crop[0])
            for detection, crop in zip(detections, crops_of_regions(photo, grown, limits), strict=True)
            if not isinstance(crop, ImageError)  # a sliver at the edge of the photograph, too small to read
        ]

    def _is_tall(self, quad: Quad) -> bool:
        across, down = np.linalg.norm(quad[1] - quad[0]), np.linalg.norm(quad[3] - quad[0])
        return bool(down > self.policy.tall * across)

    def _turned(self, photo: Pixels, words: Sequence[_Word], limits: ImageLimits) -> list[_Word]:
        return self._cut(photo, _reversed([word.detection for word in words]), limits)

    def _result(self, photo: Pixels, lines: Sequence[_Read]) -> PhotoReading:
        pieces = [quad_around([word.detection.quad for word in line.words]) for line in lines]
        joined = lines_of(pieces, self.policy.layout)
        texts = [" ".join(reading.text for piece in line for reading in lines[piece].readings) for line in joined]
        cells = rows_of([quad_around([pieces[piece] for piece in line]) for line in joined], texts, self.policy.tables)
        rows = [[piece for cell in row for piece in joined[cell]] for row in cells]
        order = reading_order([quad_around([pieces[piece] for piece in row]) for row in rows])
        size = (photo.shape[0], photo.shape[1])
        return in_lines(size, [[word for piece in rows[at] for word in lines[piece].result(size)] for at in order])


class PhotoReader:
    """Reads all words of photographs. Safe to share among threads.

    Args:
        reader: reads the words.
        pipeline: finds them; `load` makes one by a detector's name.
    """

    def __init__(self, reader: Reader, pipeline: PhotoPipeline) -> None:
        self.reader = reader
        self.pipeline = pipeline

    @classmethod
    def load(cls, model: str | Path = "small", detector: str = "auto", **options: Any) -> PhotoReader:
        """Load a model and a detector by their names.

        Args:
            model: see `Reader.load`.
            detector: see `str_app.photos.load.load_pipeline`.
            options: of `Reader.load`; `threads` is also the detector's.

        Raises:
            StrAppError: one of them is unknown or not installed.
        """
        from str_app.photos.load import load_pipeline

        return cls(Reader.load(model, **options), load_pipeline(detector, options.get("threads")))

    def read(
        self,
        photo: ImageSource,
        *,
        beam: int | None = None,
        lexicon: Iterable[str] | None = None,
        characters: str | None = None,
        rotate: bool = False,
        limits: ImageLimits = PHOTO_LIMITS,
    ) -> PhotoReading:
        """All words of one photograph, in reading order.

        Args:
            photo: a path, encoded bytes, a PIL image, or a uint8 array.
            beam, lexicon, characters, rotate: of the words, see `Reader.recognize`.
            limits: a photograph beyond them is refused. Its words may always be as small and as long as
                `PHOTO_LIMITS` says.

        Raises:
            ImageError: the photograph cannot be read.
            StrAppError: see `Reader.recognize`.
        """
        if isinstance(lexicon, Iterator):
            lexicon = list(lexicon)  # crops are read in up to three rounds
        read = partial(
            self.reader.read_crops, beam=beam, lexicon=lexicon, characters=characters, rotate=rotate, level=True
        )
        of_words = replace(limits, min_side=PHOTO_LIMITS.min_side, max_aspect=PHOTO_LIMITS.max_aspect)
        steps = self.pipeline.steps(load_image(photo, limits), of_words, self.reader.policy)
        try:
            crops = next(steps)
            while True:
                crops = steps.send(read(crops))
        except StopIteration as end:
            result: PhotoReading = end.value
            return result


class _Word(NamedTuple):
    detection: Detection
    crop: Pixels
    region: Region


@dataclass
class _Read:
    """The words of a line in one direction, and their readings."""

    words: list[_Word]
    readings: list[Reading]
    turn: int = 0  # quarter turns from the direction that is expected

    def upright_score(self, weights: TurnWeights) -> float:
        """Log odds, up to a constant, that the line is upright in this direction."""
        return sum(turn_score(reading, self.turn, weights) for reading in self.readings)

    @property
    def confidence(self) -> float:
        """Mean of the words' confidences, weighted by their letters; 0 without text."""
        letters = sum(len(reading.text) for reading in self.readings)
        return sum(len(reading.text) * reading.confidence for reading in self.readings) / max(1, letters)

    def parted_words(self, policy: PhotoPolicy) -> list[slice]:
        """Runs of words that are parts of one: S A L E, and $9. 99. In order, without overlap."""
        spaced = self._letter_spaced(policy)
        taken = {index for run in spaced for index in range(run.start, run.stop)}
        numbers = [run for run in self._parted_numbers(policy) if taken.isdisjoint(range(run.start, run.stop))]
        return sorted(spaced + numbers, key=lambda run: run.start)

    def _parted_numbers(self, policy: PhotoPolicy) -> list[slice]:
        """Runs of words that meet at a mark within a number, with hardly any gap."""
        runs: list[slice] = []
        for index, (left, right) in enumerate(pairwise(reading.text for reading in self.readings)):
            if PARTED_NUMBER.search(f"{left} {right}") and self._gap(index) < policy.number_gap:
                start = runs.pop().start if runs and runs[-1].stop == index + 1 else index
                runs.append(slice(start, index + 2))
        return runs

    def _gap(self, index: int) -> float:
        """Between a word and the next, in heights of the two."""
        left, right = (word.detection.quad for word in self.words[index : index + 2])
        around = quad_around([left, right])
        along = around[1] - around[0]
        distance = (right[0] + right[3] - left[1] - left[2]) @ along / 2 / np.linalg.norm(along)
        return float(distance / max(np.linalg.norm(around[3] - around[0]), 1e-6))

    def _letter_spaced(self, policy: PhotoPolicy) -> list[slice]:
        """Runs of three words and more, of one or two letters each, whose letters stand at even distances."""
        runs, start = [], 0
        for index in range(len(self.readings) + 1):
            if index == len(self.readings) or not 1 <= len(self.readings[index].text) <= policy.spaced_letters:
                if index - start > 2 and self._is_even(slice(start, index), policy):
                    runs.append(slice(start, index))
                start = index + 1
        return runs

    def _is_even(self, run: slice, policy: PhotoPolicy) -> bool:
        quads = [word.detection.quad for word in self.words[run]]
        along = quads[-1].mean(axis=0) - quads[0].mean(axis=0)
        centres = []
        for quad, reading in zip(quads, self.readings[run], strict=True):
            count = len(reading.text)
            left, right = (quad[0] + quad[3]) @ along / 2, (quad[1] + quad[2]) @ along / 2
            centres += [left + (right - left) * (place + 0.5) / count for place in range(count)]
        pitches = np.diff(centres)
        return bool(pitches.min() > 0 and pitches.max() < policy.even_pitch * pitches.min())

    def joined(self, run: slice) -> Detection:
        """Some of its words as one."""
        detections = [word.detection for word in self.words[run]]
        score = min(detection.score for detection in detections)
        return Detection(quad_around([detection.quad for detection in detections]), score)

    def result(self, size: tuple[int, int]) -> list[PhotoWord]:
        """The words as results; their lines are numbered later. `size`: height and width of the photograph."""
        words = []
        for word, reading in zip(self.words, self.readings, strict=True):
            quad = np.roll(word.detection.quad, -(reading.rotation // 90), axis=0)
            in_photo = replace(reading, attention=None).with_boxes(
                partial(to_photo, region=word.region, photo_size=size), rotation=0
            )
            corners = tuple((float(x), float(y)) for x, y in quad)
            words.append(PhotoWord(in_photo, corners, word.detection.score, 0))
        return words


def _grown(quad: Quad, room: float) -> Quad:
    """A quadrilateral with so many of its heights more on every side."""
    along, down = quad[1] - quad[0] + quad[2] - quad[3], quad[3] - quad[0] + quad[2] - quad[1]
    height = float(np.linalg.norm(down)) / 2
    along, down = (room * height * side / max(float(np.linalg.norm(side)), 1e-6) for side in (along, down))
    return (quad + np.stack([-along - down, along - down, along + down, down - along])).astype(np.float32)


def _lying(detection: Detection) -> Detection:
    """The same place as a line that runs downwards: its first letter's top left is the top right corner."""
    return detection._replace(quad=np.roll(detection.quad, -1, axis=0))


def _reversed(words: Sequence[Detection]) -> list[Detection]:
    """The same words turned by 180 degrees: the last one comes first."""
    return [word._replace(quad=np.roll(word.quad, 2, axis=0)) for word in reversed(words)]


def quad_around(quads: Sequence[Quad]) -> Quad:
    """The rectangle around the words of a line, in the line's direction."""
    if len(quads) == 1:
        return quads[0]
    start, end = (quads[0][0] + quads[0][3]) / 2, (quads[-1][1] + quads[-1][2]) / 2
    length = float(np.linalg.norm(end - start))
    along = (end - start) / length if length > 0 else np.array([1.0, 0.0])
    turn = np.array([[along[0], -along[1]], [along[1], along[0]]])  # to the line's frame: points @ turn
    points = np.concatenate(quads) @ turn
    (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
    return np.asarray(np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]) @ turn.T, dtype=np.float32)
