"""Line and point plots as SVG text, small enough to embed in a README or a page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from str_app.evaluation.templates import render

WIDTH, HEIGHT = 480, 320
LEFT, RIGHT, TOP, BOTTOM = 60, 14, 46, 44  # margins around the plot area
COLOURS = ("#2563a8", "#c2410c", "#15803d", "#7e3794", "#a16207", "#0891b2", "#be185d")
LEGEND_ROW = 15  # pixels between rows of the legend


@dataclass(frozen=True)
class Series:
    """One curve.

    Attributes:
        name: shown in the legend; an empty name is not.
        xs, ys: coordinates of equal length, in the order in which they are joined.
        interval: (low, high) for each point, drawn as a band behind a line or as a bar at a point.
        marks: `"line"`, `"points"` or `"both"`; `"dashed"` is a thin grey reference line.
        notes: a tooltip for each point.
    """

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    interval: Sequence[tuple[float, float]] | None = None
    marks: Literal["line", "points", "both", "dashed"] = "line"
    notes: Sequence[str] | None = None


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes:
        label: with the unit.
        bounds: first and last value; by default the range of the data.
        log: logarithmic; bounds and data must be above 0.
        ticks: values to label; by default round values.
    """

    label: str
    bounds: tuple[float, float] | None = None
    log: bool = False
    ticks: Sequence[float] | None = None


def plot(title: str, x: Axis, y: Axis, series: Sequence[Series]) -> str:
    """The plot as one `<svg>` element of 480 × 320 pixels on white, without external resources.

    Raises:
        ValueError: no points, a value that is not finite, or one ≤ 0 on a logarithmic axis.
    """
    x_scale = _Scale(x, [value for curve in series for value in curve.xs], LEFT, WIDTH - RIGHT)
    heights = [value for curve in series for value in curve.ys]
    heights += [value for curve in series for bounds in curve.interval or () for value in bounds]
    coloured = [curve for curve in series if curve.marks != "dashed"]
    colour_of = {id(curve): COLOURS[index % len(COLOURS)] for index, curve in enumerate(coloured)}
    legend = _legend([(curve.name, colour_of[id(curve)]) for curve in coloured if curve.name])
    top = TOP + LEGEND_ROW * (legend[-1][1] if legend else 0)
    y_scale = _Scale(y, heights, HEIGHT - BOTTOM, top)
    return render(
        "plot.svg",
        title=title,
        width=WIDTH,
        height=HEIGHT,
        left=LEFT,
        right=WIDTH - RIGHT,
        top=top,
        bottom=HEIGHT - BOTTOM,
        middle=(top + HEIGHT - BOTTOM) / 2,
        x_label=x.label,
        y_label=y.label,
        x_ticks=[(x_scale(value), f"{value:g}") for value in x_scale.ticks],
        y_ticks=[(y_scale(value), f"{value:g}") for value in y_scale.ticks],
        curves=[_shape(curve, colour_of.get(id(curve), "#888"), x_scale, y_scale) for curve in series],
        legend=[(x, TOP - 12 + LEGEND_ROW * row, name, colour) for x, row, name, colour in legend],
    )


def _legend(entries: Sequence[tuple[str, str]]) -> list[tuple[float, int, str, str]]:
    """(x, row, name, colour) of each name, in as many rows as their lengths need; none for a single curve."""
    if len(entries) < 2:
        return []
    widths = [40 + 6.2 * len(name) for name, _ in entries]  # stroke and gaps, and about the width of a letter
    rows = math.ceil(sum(widths) / (WIDTH - LEFT - RIGHT))
    columns = math.ceil(len(entries) / rows)
    share = (WIDTH - LEFT - RIGHT) / columns
    return [
        (LEFT + share * (index % columns), index // columns, name, colour)
        for index, (name, colour) in enumerate(entries)
    ]


def _shape(curve: Series, colour: str, x_scale: _Scale, y_scale: _Scale) -> dict[str, Any]:
    """The curve in pixels, as `templates/plot.svg` draws it."""
    xs, ys = [x_scale(x) for x in curve.xs], [y_scale(y) for y in curve.ys]
    points = list(zip(xs, ys, strict=True))
    lows = [(x, y_scale(low)) for x, (low, _) in zip(xs, curve.interval or (), strict=False)]
    highs = [(x, y_scale(high)) for x, (_, high) in zip(xs, curve.interval or (), strict=False)]
    bars = "".join(_path(ends) for ends in zip(lows, highs, strict=True)) if curve.marks == "points" else ""
    return {
        "colour": colour,
        "marks": curve.marks,
        "line": _path(points),
        "bars": bars,
        "band": _path([*lows, *reversed(highs)]) if lows else "",
        "points": list(zip(xs, ys, curve.notes or [""] * len(xs), strict=True)),
    }


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


class _Scale:
    """Maps values of an axis to pixels between `start` and `end`."""

    def __init__(self, axis: Axis, values: Sequence[float], start: float, end: float) -> None:
        shown = [*values, *(axis.bounds or ())]
        if not values or not all(map(math.isfinite, shown)) or (axis.log and min(shown) <= 0):
            raise ValueError(f"axis {axis.label!r}: needs values, all finite, and above 0 if logarithmic")
        self._log = axis.log
        self.low, self.high = axis.bounds or (min(values), max(values))
        if self.low == self.high:
            self.high = self.low * 2 if axis.log else self.low + 1
        self._start, self._end = start, end
        self.ticks = axis.ticks if axis.ticks is not None else _ticks(self.low, self.high, axis.log)

    def __call__(self, value: float) -> float:
        low, high, clipped = self.low, self.high, min(max(value, self.low), self.high)
        if self._log:
            low, high, clipped = math.log(low), math.log(high), math.log(clipped)
        return self._start + (clipped - low) / (high - low) * (self._end - self._start)


def _ticks(low: float, high: float, log: bool) -> list[float]:
    """About six round values within the bounds; on a logarithmic axis 1, 2 and 5 times powers of ten, if two fit."""
    if log:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        values = [digit * 10.0**power for power in decades for digit in (1, 2, 5)]
        inside = [value for value in values if low <= value * (1 + 1e-9) and value <= high * (1 + 1e-9)]
        if len(inside) > 1:
            return inside
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(digit * power for digit in (1, 2, 2.5, 5, 10) if digit * power >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [step * multiple for multiple in range(first, math.floor(high / step + 1e-9) + 1)]
