"""Limits of a model: accuracy on plain rendered words while one property varies."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from str_app.datasets.renderer.fonts import FontSet
from str_app.datasets.renderer.probes import Probe, ProbeSource
from str_app.datasets.renderer.words import WordList
from str_app.evaluation.metrics import rounded
from str_app.evaluation.plots import Axis, Series, plot
from str_app.evaluation.protocol import FIELD, evaluate_source
from str_app.reader import Reader


@dataclass(frozen=True)
class Point:
    """Scores at one value. Percentages, except `value` and `n`.

    Attributes:
        value: of the property.
        n: number of probes.
        accuracy: case-insensitive word accuracy.
        interval: its 95 % Wilson interval.
        ned: mean of 1 − edit distance / longer length.
        confidence: mean confidence of the readings; close to the accuracy if it is calibrated.
    """

    value: float
    n: int
    accuracy: float
    interval: tuple[float, float]
    ned: float
    confidence: float


@dataclass(frozen=True)
class Sweep:
    """One property and its values.

    Attributes:
        name: of the property; also the stem of its files.
        axis: of the plot.
        values: the values at which probes are rendered.
        curves: name of a curve → function from a value to the probe to render.
    """

    name: str
    axis: Axis
    values: tuple[float, ...]
    curves: dict[str, Callable[[float], Probe]]


SWEEPS = (
    Sweep(
        "length",
        Axis("characters", ticks=(1, *range(5, 41, 5))),
        (*range(1, 26), 26, 28, 30, 32, 33, 34, 36, 40),
        {
            "words": lambda value: Probe(length=(int(value), int(value))),
            "random letters": lambda value: Probe(length=(int(value), int(value)), text="letters"),
        },
    ),
    Sweep(
        "rotation",
        Axis("rotation, degrees counter-clockwise", ticks=range(-90, 91, 30)),
        (-90, -75, -60, -45, -35, -25, -20, -15, -10, -5, 0, 5, 10, 15, 20, 25, 35, 45, 60, 75, 90),
        {"words": lambda value: Probe(rotation=value)},
    ),
    Sweep(
        "height",
        Axis("height of a capital letter, pixels", log=True, ticks=(4, 6, 8, 12, 16, 24, 32, 48)),
        (4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 20, 24, 32, 40, 48),
        {"words": lambda value: Probe(letter_height=value)},
    ),
    Sweep(
        "contrast",
        Axis("contrast, share of the luminance range", log=True),
        (0.02, 0.03, 0.04, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0),
        {"words": lambda value: Probe(contrast=value)},
    ),
)


def measure(
    reader: Reader,
    fonts: FontSet,
    words: WordList,
    sweep: Sweep,
    count: int,
    seed: int = 0,
    on_progress: Callable[[int], None] | None = None,
) -> dict[str, list[Point]]:
    """The points of each curve.

    Args:
        reader: the model to measure.
        fonts, words: for rendering the probes.
        sweep: one of `SWEEPS`.
        count: number of probes at each value.
        seed: of the probes.
        on_progress: called with the number of probes read since the last call.
    """
    curves: dict[str, list[Point]] = {}
    for name, probe_at in sweep.curves.items():
        curves[name] = []
        for value in sweep.values:
            source = ProbeSource(fonts, words, probe_at(value), count, seed)
            result = evaluate_source(reader, source, protocol=FIELD, on_progress=on_progress)
            score = result.score()
            confidence = 100 * sum(prediction.confidence for prediction in result.predictions) / score.n
            curves[name].append(Point(value, score.n, score.accuracy, score.interval, score.ned, confidence))
    return curves


def draw(reader_name: str, sweep: Sweep, curves: dict[str, list[Point]]) -> str:
    """SVG of accuracy and mean confidence against the property."""
    series = []
    for name, points in curves.items():
        values = [point.value for point in points]
        accuracies, intervals = [point.accuracy for point in points], [point.interval for point in points]
        series.append(Series(f"right: {name}", values, accuracies, intervals, "both"))
        if len(curves) == 1:
            series.append(Series("mean confidence", values, [point.confidence for point in points]))
    return plot(f"{reader_name}: {sweep.name}", sweep.axis, Axis("words read right, % (band: 95 %)", (0, 100)), series)


def markdown(sweep: Sweep, curves: dict[str, list[Point]]) -> str:
    """A table with one row per value."""
    several = len(curves) > 1
    lines = [
        f"| {sweep.name} | {'text | ' if several else ''}n | accuracy | 95 % | 1−NED | mean confidence |",
        f"|---:|{'---|' if several else ''}---:|---:|---:|---:|---:|",
    ]
    for name, points in curves.items():
        lines += [
            f"| {point.value:g} | {f'{name} | ' if several else ''}{point.n} | {point.accuracy:.1f} | "
            f"{point.interval[0]:.1f}–{point.interval[1]:.1f} | {point.ned:.1f} | {point.confidence:.1f} |"
            for point in points
        ]
    return "\n".join(lines)


def as_json(curves: dict[str, list[Point]]) -> dict[str, list[dict[str, Any]]]:
    """Curve → points, percentages to two decimals."""
    return {
        name: [{**rounded(vars(point)), "value": point.value} for point in points] for name, points in curves.items()
    }


def write(out: Path, model: str, longest: int, measured: Sequence[tuple[Sweep, dict[str, list[Point]]]]) -> list[Path]:
    """Write `limits.json`, `limits.md` and one SVG per property into `out`, and return their paths.

    Args:
        out: a folder; it is created if it does not exist.
        model: its name.
        longest: maximum number of characters that one view can hold.
        measured: the result of `measure` for each property.
    """
    out.mkdir(parents=True, exist_ok=True)
    content = {"model": model, "max_length": longest} | {sweep.name: as_json(curves) for sweep, curves in measured}
    tables = [
        f"# Limits of `{model}`",
        f"One view holds at most {longest} characters; longer lines are read in parts. Case-insensitive word accuracy\n"
        "on plain rendered words. The properties that do not vary are easy to read: 4–8 letters, capitals 32 pixels\n"
        "high, upright, contrast 0.8.",
    ]
    files = []
    for sweep, curves in measured:
        files.append(out / f"{sweep.name}.svg")
        files[-1].write_text(draw(model, sweep, curves) + "\n", encoding="utf-8")
        tables += [f"## {sweep.name.capitalize()}", f"![{sweep.name}]({sweep.name}.svg)", markdown(sweep, curves)]
    files += [out / "limits.json", out / "limits.md"]
    files[-2].write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    files[-1].write_text("\n\n".join(tables) + "\n", encoding="utf-8")
    return files
