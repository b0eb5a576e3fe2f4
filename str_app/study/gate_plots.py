"""Plots of recorded gates, as SVG text."""

from __future__ import annotations

from collections.abc import Mapping

from str_app.evaluation.plots import Axis, Series, plot
from str_app.models.gates.statistics import Histogram, Record


def gate_histogram(title: str, histograms: Mapping[str, Histogram]) -> str:
    """Density of gate values: in [0, 1] for vanilla gates, in [−1, 2] for effective (refined) gates."""
    low, high = (-1.0, 2.0) if any(histogram.low < 0 for histogram in histograms.values()) else (0.0, 1.0)
    series = [Series(name, *_density(histogram, low, high)) for name, histogram in histograms.items()]
    top = max(value for curve in series for value in curve.ys)
    return plot(title, Axis("gate", (low, high)), Axis("density", (0.0, 1.05 * top)), series)


def gradient_norms(title: str, records: Mapping[str, Record]) -> str:
    """Norm of the gradient at h for each step of the recurrence, one curve per record."""
    series = []
    for name, record in records.items():
        curve = [(step, norm) for step, norm in record.gradient_curve() if norm > 0]
        if curve:
            series.append(Series(name, [step for step, _ in curve], [norm for _, norm in curve]))
    return plot(title, Axis("step of the recurrence"), Axis("norm of ∂loss/∂h", log=True), series)


def _density(histogram: Histogram, low: float, high: float) -> tuple[list[float], list[float]]:
    edges = histogram.edges()
    width = edges[1] - edges[0]
    total = float(histogram.counts.sum()) * width
    middles = [edge + width / 2 for edge in edges[:-1]]
    inside = [(x, float(count) / total) for x, count in zip(middles, histogram.counts, strict=True) if low < x < high]
    return [x for x, _ in inside], [y for _, y in inside]
