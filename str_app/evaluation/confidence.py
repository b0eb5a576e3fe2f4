"""How far confidences can be trusted: reliability, what is left when unsure readings are refused, and thresholds."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from str_app.evaluation.metrics import Bin, wilson_interval
from str_app.evaluation.plots import Axis, Series, plot

COVERAGES = (80, 90, 95, 100)
ACCURACIES = (99, 97, 95)

MEANING = (
    "Confidence is the probability that the whole reading, its end included, is right up to case and punctuation, as "
    "accuracy counts it. It is not the mean or the least of the characters' confidences."
)


class Threshold(NamedTuple):
    """Accept readings whose confidence is at least `confidence`: `coverage` percent of them, `accuracy` % right."""

    confidence: float
    coverage: float
    accuracy: float


@dataclass(frozen=True)
class SelectiveMetrics:
    """What confidences are good for, on one set. Percentages, except thresholds.

    Attributes:
        accuracy_at_coverage: coverage → accuracy of that share of the readings, the most confident ones.
        threshold_for_accuracy: accuracy → the lowest confidence above which readings are at least that accurate;
            None where not even the surest are.
        aurc: area under the risk–coverage curve (Geifman & El-Yaniv, arXiv 1705.08500): the mean error rate over
            all coverages. 0 is perfect; without any order it would be the error rate.
    """

    accuracy_at_coverage: dict[int, float]
    threshold_for_accuracy: dict[int, Threshold | None]
    aurc: float

    def as_json(self) -> dict[str, Any]:
        """The keys that `str-app evaluate --json` adds to a set."""
        return {
            "accuracy_at_coverage": {str(key): round(value, 2) for key, value in self.accuracy_at_coverage.items()},
            "threshold_for_accuracy": {
                str(key): None
                if found is None
                else {
                    "confidence": round(found.confidence, 4),
                    "coverage": round(found.coverage, 2),
                    "accuracy": round(found.accuracy, 2),
                }
                for key, found in self.threshold_for_accuracy.items()
            },
            "aurc": round(self.aurc, 2),
        }


def selective_metrics(confidences: Sequence[float], correct: Sequence[bool]) -> SelectiveMetrics:
    """The numbers of at least one reading."""
    order, accuracy = _curve(confidences, correct)
    count = len(order)
    # The surest k readings are a set of their own only where the next one is less sure.
    cuts = np.flatnonzero(np.append(order[:-1] != order[1:], True))
    thresholds: dict[int, Threshold | None] = {}
    for wanted in ACCURACIES:
        good = cuts[accuracy[cuts] * 100 >= wanted]
        thresholds[wanted] = None
        if len(good):
            last = int(good[-1])
            thresholds[wanted] = Threshold(float(order[last]), 100 * (last + 1) / count, 100 * float(accuracy[last]))
    return SelectiveMetrics(
        {cover: 100 * float(accuracy[max(1, round(cover / 100 * count)) - 1]) for cover in COVERAGES},
        thresholds,
        100 * float((1 - accuracy).mean()),
    )


def equal_mass_reliability(confidences: Sequence[float], correct: Sequence[bool], bins: int = 10) -> list[Bin]:
    """Mean confidence and accuracy of equally many readings each, from the least confident ones to the surest.

    Bins of equal width leave most of the readings in the last one; these tell as much about each part.
    """
    order = np.argsort(np.asarray(confidences), kind="stable")
    sure, right = np.asarray(confidences, dtype=np.float64)[order], np.asarray(correct, dtype=np.float64)[order]
    count = len(order)
    edges = [count * place // bins for place in range(bins + 1)]
    return [
        Bin(
            float(sure[low]),
            float(sure[high - 1]),
            high - low,
            float(sure[low:high].mean()),
            float(right[low:high].mean()),
        )
        for low, high in itertools.pairwise(edges)
        if high > low
    ]


def reliability_plot(name: str, confidences: Sequence[float], correct: Sequence[bool]) -> str:
    """SVG: accuracy against mean confidence in ten equally large bins, with 95 % intervals; the diagonal is honest."""
    bars = equal_mass_reliability(confidences, correct)
    intervals = [wilson_interval(round(bar.accuracy * bar.size), bar.size) for bar in bars]
    points = Series(
        name,
        [100 * bar.confidence for bar in bars],
        [100 * bar.accuracy for bar in bars],
        [(100 * low, 100 * high) for low, high in intervals],
        "points",
        [
            f"confidence {100 * bar.low:.1f} to {100 * bar.high:.1f}: {bar.size} readings, "
            f"{100 * bar.accuracy:.1f} % right"
            for bar in bars
        ],
    )
    sizes = sorted({bar.size for bar in bars})
    each = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]}–{sizes[-1]}"
    return plot(
        f"{name}: reliability, {each} readings a point",
        Axis("mean confidence, %", (0, 100)),
        Axis("right, % (bars: 95 %)", (0, 100)),
        [Series("honest", [0, 100], [0, 100], marks="dashed"), points],
    )


def coverage_plot(title: str, sets: Sequence[tuple[str, Sequence[float], Sequence[bool]]]) -> str:
    """SVG: accuracy of the surest readings against the share of readings kept, one curve a set.

    Args:
        title: of the plot.
        sets: name, confidences and whether right, each.
    """
    curves = []
    for name, confidences, correct in sets:
        _, accuracy = _curve(confidences, correct)
        count = len(accuracy)
        # A few readings at the left say nothing but noise; 100 points show as much as thousands.
        places = sorted({max(1, round(count * share / 100)) - 1 for share in range(5, 101)})
        curves.append(
            Series(name, [100 * (place + 1) / count for place in places], [100 * float(accuracy[p]) for p in places])
        )
    low = min((min(curve.ys) for curve in curves), default=0.0)
    return plot(
        title,
        Axis("coverage: share of readings kept, the surest first, %", (0, 100)),
        Axis("right among those kept, %", (10 * (low // 10), 100)),
        curves,
    )


def _curve(
    confidences: Sequence[float], correct: Sequence[bool]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Confidences in falling order, and the accuracy of the readings up to each; ties share their mean."""
    sure = np.asarray(confidences, dtype=np.float64)
    order = np.argsort(-sure, kind="stable")
    sure, right = sure[order], np.asarray(correct, dtype=np.float64)[order]
    # Among equally sure readings no order is meant: each counts as right to their mean.
    _, group = np.unique(-sure, return_inverse=True)
    right = (np.bincount(group, right) / np.bincount(group))[group]
    return sure, np.cumsum(right) / np.arange(1, len(right) + 1)
