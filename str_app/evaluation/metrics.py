"""The field's metrics: exact match under three alphabets, edit distance, calibration, confidence intervals."""

from __future__ import annotations

import math
import string
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

ALPHABET_36 = frozenset(string.digits + string.ascii_lowercase)
ALPHABET_62 = frozenset(string.digits + string.ascii_letters)
ALPHABET_94 = frozenset(string.digits + string.ascii_letters + string.punctuation)


def normalise(text: str) -> str:
    """Text under the default protocol: NFKD, lower case, only [0-9a-z]. Applied to labels and readings alike."""
    return "".join(char for char in unicodedata.normalize("NFKD", text).lower() if char in ALPHABET_36)


def letters(text: str) -> str:
    """Text of any script, for comparison without case: NFC, lower case, only letters with their accents and digits."""
    composed = unicodedata.normalize("NFC", text).lower()
    # Marks are kept: many scripts write vowels as marks.
    return "".join(char for char in composed if unicodedata.category(char)[0] in "LMN")


def restrict(text: str, alphabet: frozenset[str]) -> str:
    """NFKD text with its case, without characters outside `alphabet`."""
    return "".join(char for char in unicodedata.normalize("NFKD", text) if char in alphabet)


def edit_distance(first: str, second: str) -> int:
    """Levenshtein distance: the minimum number of insertions, deletions and substitutions."""
    row = list(range(len(second) + 1))
    for index, char in enumerate(first, 1):
        diagonal, row[0] = row[0], index
        for column, other_char in enumerate(second, 1):
            diagonal, row[column] = (
                row[column],
                min(row[column] + 1, row[column - 1] + 1, diagonal + (char != other_char)),
            )
    return row[-1]


def wilson_interval(successes: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson score interval of a proportion (1927), 95 % by default; (0, 1) without trials.

    >>> [round(bound, 4) for bound in wilson_interval(80, 100)]
    [0.7112, 0.8666]
    """
    if trials == 0:
        return 0.0, 1.0
    share = successes / trials
    half_width = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    centre = share + z * z / (2 * trials)
    return max(0.0, (centre - half_width) / scale), min(1.0, (centre + half_width) / scale)


class Bin(NamedTuple):
    """One bin of a reliability diagram: readings with confidence in (low, high]. Confidence and accuracy in [0, 1]."""

    low: float
    high: float
    size: int
    confidence: float
    accuracy: float


def reliability(confidences: Sequence[float], correct: Sequence[bool], bins: int = 15) -> list[Bin]:
    """Mean confidence and accuracy in bins of equal width; zeros for empty bins."""
    members: list[list[tuple[float, bool]]] = [[] for _ in range(bins)]
    for confidence, is_correct in zip(confidences, correct, strict=True):
        members[min(bins - 1, max(0, math.ceil(confidence * bins) - 1))].append((confidence, is_correct))
    diagram = []
    for index, inside in enumerate(members):
        count = max(1, len(inside))
        diagram.append(
            Bin(
                index / bins,
                (index + 1) / bins,
                len(inside),
                sum(confidence for confidence, _ in inside) / count,
                sum(is_correct for _, is_correct in inside) / count,
            )
        )
    return diagram


def expected_calibration_error(confidences: Sequence[float], correct: Sequence[bool], bins: int = 15) -> float:
    """Mean difference between confidence and accuracy over the bins, weighted by their sizes (Naeini et al., 2015)."""
    diagram = reliability(confidences, correct, bins)
    return sum(bar.size * abs(bar.confidence - bar.accuracy) for bar in diagram) / max(1, len(confidences))
