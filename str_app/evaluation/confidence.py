"""Quality of confidences: reliability, accuracy at a coverage, thresholds, and the risk–coverage curve."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from str_app.evaluation.metrics import rounded, wilson_interval
from str_app.evaluation.plots import Axis, Series, plot

COVERAGES = (80, 90, 95, 100)
ACCURACIES = (99, 97, 95)

MEANING = (
    "Confidence is the probability that the whole reading, including its end, is correct up to case and punctuation, "
    "as in the accuracy. It is not the mean or the minimum of the characters' confidences."
)


class Threshold(NamedTuple):
    """Accepting readings with at least this `confidence` keeps `coverage` % of them, `accuracy` % of those correct."""

    confidence: float
    coverage: float
    accuracy: float


class Bin(NamedTuple):
    """Readings of similar confidence: lowest and highest confidence, number, mean confidence, accuracy in [0, 1]."""

    low: float
    high: float
    size: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class SelectiveMetrics:
    """Selective reading: what rejecting the least confident readings gains, on one set. Percentages, except thresholds.

    Attributes:
        accuracy_at_coverage: coverage → accuracy of that share of the readings, the most confident ones.
        threshold_for_accuracy: accuracy → the lowest confidence above which readings are at least that accurate;
            None if no threshold reaches it.
        aurc: area under the risk–coverage curve (Geifman & El-Yaniv, arXiv 1705.08500): the mean error rate over
            all coverages. 0 is perfect; confidences that tell nothing give the error rate.
    """

    accuracy_at_coverage: dict[int, float]
    threshold_for_accuracy: dict[int, Threshold | None]
    aurc: float

    def as_json(self) -> dict[str, Any]:
        """The keys that `str-app evaluate --json` adds to a set."""
        thresholds = {
            str(accuracy): None if threshold is None else rounded(threshold._asdict(), confidence=4)
            for accuracy, threshold in self.threshold_for_accuracy.items()
        }
        return {
            "accuracy_at_coverage": rounded({str(cover): value for cover, value in self.accuracy_at_coverage.items()}),
            "threshold_for_accuracy": thresholds,
            "aurc": round(self.aurc, 2),
        }


def selective_metrics(confidences: Sequence[float], correct: Sequence[bool]) -> SelectiveMetrics:
    """`SelectiveMetrics` of one or more readings."""
    order, accuracy = _curve(confidences, correct)
    count = len(order)
    # A threshold can only cut between two different confidences.
    cuts = np.flatnonzero(np.append(order[:-1] != order[1:], True))
    thresholds: dict[int, Threshold | None] = {}
    for target in ACCURACIES:
        good = cuts[accuracy[cuts] * 100 >= target]
        thresholds[target] = None
        if len(good):
            last = int(good[-1])
            thresholds[target] = Threshold(float(order[last]), 100 * (last + 1) / count, 100 * float(accuracy[last]))
    return SelectiveMetrics(
        {cover: 100 * float(accuracy[max(1, round(cover / 100 * count)) - 1]) for cover in COVERAGES},
        thresholds,
        100 * float((1 - accuracy).mean()),
    )


def equal_mass_reliability(confidences: Sequence[float], correct: Sequence[bool], bins: int = 10) -> list[Bin]:
    """Mean confidence and accuracy in bins of equally many readings, the least confident first.

    With bins of equal width, most readings would fall into the last one.
    """
    confidence, right = _running_total(confidences, correct)
    count = len(confidence)
    edges = [count * edge // bins for edge in range(bins + 1)]
    return [
        Bin(
            float(confidence[low]),
            float(confidence[high - 1]),
            high - low,
            float(confidence[low:high].mean()),
            float(right[high] - right[low]) / (high - low),
        )
        for low, high in itertools.pairwise(edges)
        if high > low
    ]


def reliability_plot(name: str, confidences: Sequence[float], correct: Sequence[bool]) -> str:
    """SVG: accuracy against mean confidence in ten bins of equal size, with 95 % intervals and the diagonal."""
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
            f"{100 * bar.accuracy:.1f} % correct"
            for bar in bars
        ],
    )
    sizes = sorted({bar.size for bar in bars})
    each = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]}–{sizes[-1]}"
    return plot(
        f"{name}: reliability, {each} readings per point",
        Axis("mean confidence, %", (0, 100)),
        Axis("correct, % (bars: 95 %)", (0, 100)),
        [Series("calibrated", [0, 100], [0, 100], marks="dashed"), points],
    )


def coverage_plot(title: str, sets: Sequence[tuple[str, Sequence[float], Sequence[bool]]]) -> str:
    """SVG: accuracy of the most confident readings against their share of all readings, one curve per set.

    Args:
        title: of the plot.
        sets: name, confidences and correctness of each set.
    """
    curves = []
    for name, confidences, correct in sets:
        _, accuracy = _curve(confidences, correct)
        count = len(accuracy)
        # Below 5 % coverage the curve is noise; 96 points are enough to draw it.
        last = sorted({max(1, round(count * share / 100)) - 1 for share in range(5, 101)})
        curves.append(Series(name, [100 * (k + 1) / count for k in last], [100 * float(accuracy[k]) for k in last]))
    low = min((min(curve.ys) for curve in curves), default=0.0)
    return plot(
        title,
        Axis("coverage: share of readings kept, the most confident first, %", (0, 100)),
        Axis("correct among those kept, %", (10 * (low // 10), 100)),
        curves,
    )


def _curve(
    confidences: Sequence[float], correct: Sequence[bool]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Confidences in descending order, and the accuracy of the readings up to each of them."""
    descending, right = _running_total(-np.asarray(confidences, dtype=np.float64), correct)
    return -descending, right[1:] / np.arange(1, len(right))


def _running_total(
    keys: Sequence[float] | npt.NDArray[np.float64], correct: Sequence[bool]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """N keys in ascending order, and N + 1 numbers: how many of the first 0, 1, …, N readings are correct.

    Readings of equal keys have no order: among them the number grows evenly.
    """
    order = np.argsort(np.asarray(keys, dtype=np.float64), kind="stable")
    ascending = np.asarray(keys, dtype=np.float64)[order]
    ends = np.flatnonzero(np.append(ascending[:-1] != ascending[1:], True))
    right = np.cumsum(np.asarray(correct, dtype=np.float64)[order])[ends]
    return ascending, np.interp(np.arange(len(order) + 1), np.append(0, ends + 1), np.append(0, right))
