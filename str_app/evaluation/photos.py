"""Scores of words found and read in whole photographs, by the rules of ICDAR 2015's incidental scene text.

A word is found if a quadrilateral overlaps it with an intersection over union above 0.5, one to one. It is read if its
text is the same too, without regard to case and without all but letters and digits. Words that are to be ignored, and
words without a letter or digit, count neither as found nor as missed, and what is found mostly inside them is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from shapely import STRtree
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

from str_app.datasets.labelled_photos import LabelledWord
from str_app.evaluation.metrics import normalise
from str_app.installation import provenance
from str_app.photos.reading import PhotoReading

LEAST_OVERLAP = 0.5
THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(20))


class Score(NamedTuple):
    """Counts of one task, over any number of photographs.

    Attributes:
        right: words found, or found and read.
        returned: words that were returned and do not lie in ignored ones.
        labelled: words that should be returned.
    """

    right: int
    returned: int
    labelled: int

    @property
    def precision(self) -> float:
        """In percent; 0 if nothing was returned."""
        return 100 * self.right / max(1, self.returned)

    @property
    def recall(self) -> float:
        """In percent."""
        return 100 * self.right / max(1, self.labelled)

    @property
    def h_mean(self) -> float:
        """The harmonic mean of both, in percent."""
        return 200 * self.right / max(1, self.returned + self.labelled)


@dataclass(frozen=True)
class PhotoScore:
    """One photograph, scored.

    Attributes:
        path: of the photograph.
        reading: what was read.
        words: its labels.
        seconds: that reading took.
        readable: False if the photograph could not be read: all its words are missed.
    """

    path: Path
    reading: PhotoReading
    words: Sequence[LabelledWord]
    seconds: float = 0.0
    readable: bool = True

    @classmethod
    def unreadable(cls, path: Path, words: Sequence[LabelledWord]) -> PhotoScore:
        """Of a photograph that could not be read."""
        return cls(path, PhotoReading(0, 0, (), ()), words, readable=False)

    @cached_property
    def _comparison(self) -> _Comparison:
        return _compare(self.words, self.reading)

    def match(self, threshold: float = 0.0) -> tuple[dict[int, int], list[int]]:
        """Index of a label → index of the word found for it; and the indices of all words that count.

        Args:
            threshold: words with a lower confidence, or without text, are left out.
        """
        comparison = self._comparison
        counted = [
            index
            for index, word in enumerate(self.reading.words)
            if word.text and word.confidence >= threshold and not comparison.ignored[index]
        ]
        free = set(counted)
        pairs = {}
        for label, candidates in comparison.candidates.items():
            best = max((pair for pair in candidates if pair[1] in free), default=None)
            if best is not None:
                pairs[label] = best[1]
                free.remove(best[1])
        return pairs, counted

    @property
    def counted_labels(self) -> list[int]:
        """Indices of the labels that are not to be ignored."""
        return list(self._comparison.candidates)

    def detection(self, threshold: float = 0.0) -> Score:
        """Words found."""
        pairs, counted = self.match(threshold)
        return Score(len(pairs), len(counted), len(self._comparison.candidates))

    def end_to_end(self, threshold: float = 0.0) -> Score:
        """Words found and read."""
        pairs, counted = self.match(threshold)
        right = sum(self.is_right(label, word) for label, word in pairs.items())
        return Score(right, len(counted), len(self._comparison.candidates))

    def is_right(self, label: int, word: int) -> bool:
        """Whether a word has the label's text."""
        return normalise(self.reading.words[word].text) == normalise(self.words[label].text or "")


def total(scores: Iterable[Score]) -> Score:
    """The sum of counts."""
    return Score(*(sum(counts) for counts in zip(Score(0, 0, 0), *scores, strict=True)))


def as_json(model: str, detector: str, photos: Sequence[PhotoScore], threshold: float) -> dict[str, Any]:
    """All scores in percent, with the curve over thresholds."""

    def scores(at: float) -> dict[str, Any]:
        tasks = {
            "detection": total(photo.detection(at) for photo in photos),
            "end_to_end": total(photo.end_to_end(at) for photo in photos),
        }
        return {"threshold": at} | {
            name: {
                "precision": round(score.precision, 2),
                "recall": round(score.recall, 2),
                "h_mean": round(score.h_mean, 2),
                **score._asdict(),
            }
            for name, score in tasks.items()
        }

    seconds = sorted(photo.seconds for photo in photos if photo.readable) or [0.0]
    return {
        "model": model,
        "made": provenance(),
        "detector": detector,
        "photographs": len(photos),
        "unreadable": sum(not photo.readable for photo in photos),
        "seconds": {"median": round(float(np.median(seconds)), 3), "max": round(seconds[-1], 3)},
        **scores(threshold),
        "curve": [scores(at) for at in THRESHOLDS],
    }


def table_rows(results: Mapping[str, Any]) -> list[list[str]]:
    """Of the scores of `as_json`: a row for words found, and one for words found and read."""
    names = {"detection": "found", "end_to_end": "found and read"}
    percent, counts = ("precision", "recall", "h_mean"), ("right", "returned", "labelled")
    return [
        [name, *(f"{results[task][key]:.1f}" for key in percent), *(str(results[task][key]) for key in counts)]
        for task, name in names.items()
    ]


def markdown(results: Mapping[str, Any]) -> str:
    """The scores of `as_json` as a table, with the times below it."""
    heading = ["words", "precision", "recall", "H", "right", "returned", "labelled"]
    rows = [heading, ["---"] * len(heading), *table_rows(results)]
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    seconds, unreadable = results["seconds"], results["unreadable"]
    missed = f", {unreadable} of which could not be read (their words count as missed)" if unreadable else ""
    return (
        f"{table}\n\n{results['photographs']} photographs{missed}, words of at least {results['threshold']:g} "
        f"confidence; {seconds['median']:.2f} s a photograph (median), {seconds['max']:.2f} s (longest)"
    )


class _Comparison(NamedTuple):
    candidates: dict[int, list[tuple[float, int]]]  # label that counts → overlaps and words that could be it
    ignored: list[bool]  # of each word: whether most of it lies in a label that is to be ignored


def _compare(words: Sequence[LabelledWord], reading: PhotoReading) -> _Comparison:
    found = [_polygon(word.quad) for word in reading.words]
    labels = [_polygon(word.polygon) for word in words]
    tree = STRtree(found)
    candidates: dict[int, list[tuple[float, int]]] = {}
    ignored = [polygon.area <= 0 for polygon in found]
    for index, (word, label) in enumerate(zip(words, labels, strict=True)):
        counts = word.text is not None and normalise(word.text) != ""
        if counts:
            candidates[index] = []
        for other in map(int, tree.query(label)):
            common = label.intersection(found[other]).area
            if not counts:
                ignored[other] |= common > LEAST_OVERLAP * found[other].area
            elif common > LEAST_OVERLAP * (label.area + found[other].area - common):
                candidates[index].append((common / (label.area + found[other].area - common), other))
    return _Comparison(candidates, ignored)


def _polygon(corners: Sequence[tuple[float, float]]) -> BaseGeometry:
    polygon = Polygon(corners)
    return polygon if polygon.is_valid else polygon.convex_hull
