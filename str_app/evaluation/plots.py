"""Line and point plots as SVG text, small enough to embed in a README or a page."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

WIDTH, HEIGHT = 480, 320
LEFT, RIGHT, TOP, BOTTOM = 60, 14, 46, 44  # margins around the plot area
COLOURS = ("#2563a8", "#c2410c", "#15803d", "#7e3794", "#a16207", "#0f766e")


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
    y_scale = _Scale(y, heights, HEIGHT - BOTTOM, TOP)
    parts = [_frame(title, x, y, x_scale, y_scale)]
    coloured = [curve for curve in series if curve.marks != "dashed"]
    for curve in series:
        colour = "#888" if curve.marks == "dashed" else COLOURS[coloured.index(curve) % len(COLOURS)]
        parts.append(_draw(curve, colour, x_scale, y_scale))
    legend = [(curve.name, COLOURS[index % len(COLOURS)]) for index, curve in enumerate(coloured)]
    parts.append(_legend([(name, colour) for name, colour in legend if name]))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'role="img" aria-label="{html.escape(title)}" font-family="system-ui, sans-serif" font-size="11">'
        f"{''.join(parts)}</svg>"
    )


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


def _frame(title: str, x: Axis, y: Axis, x_scale: _Scale, y_scale: _Scale) -> str:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = [f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>']
    for value in x_scale.ticks:
        column = x_scale(value)
        parts.append(f'<path d="M{column:.1f} {TOP}V{bottom}" stroke="#e3e3e3"/>')
        parts.append(_text(column, bottom + 15, f"{value:g}"))
    for value in y_scale.ticks:
        row = y_scale(value)
        parts.append(f'<path d="M{LEFT} {row:.1f}H{right}" stroke="#e3e3e3"/>')
        parts.append(_text(LEFT - 6, row + 4, f"{value:g}", "end"))
    parts.append(f'<path d="M{LEFT} {TOP}V{bottom}H{right}" fill="none" stroke="#555"/>')
    parts.append(_text((LEFT + right) / 2, HEIGHT - 10, x.label))
    middle = (TOP + bottom) / 2
    parts.append(f'<g transform="rotate(-90 8 {middle:.1f})">{_text(8, middle + 4, y.label)}</g>')
    parts.append(f'<g font-size="13" font-weight="bold">{_text((LEFT + right) / 2, 18, title)}</g>')
    return "".join(parts)


def _draw(curve: Series, colour: str, x_scale: _Scale, y_scale: _Scale) -> str:
    points = [(x_scale(x), y_scale(y)) for x, y in zip(curve.xs, curve.ys, strict=True)]
    parts = []
    if curve.interval is not None and curve.marks == "points":
        for (x, _), (low, high) in zip(points, curve.interval, strict=True):
            bar = f"M{x:.1f} {y_scale(low):.1f}V{y_scale(high):.1f}"
            parts.append(f'<path d="{bar}" stroke="{colour}" opacity=".5"/>')
    elif curve.interval is not None:
        bounds = list(zip(points, curve.interval, strict=True))
        edge = [(x, y_scale(low)) for (x, _), (low, _) in bounds]
        edge += [(x, y_scale(high)) for (x, _), (_, high) in reversed(bounds)]
        parts.append(f'<path d="{_path(edge)}Z" fill="{colour}" opacity=".15"/>')
    if curve.marks == "dashed":
        parts.append(f'<path d="{_path(points)}" fill="none" stroke="{colour}" stroke-dasharray="4 4"/>')
    elif curve.marks != "points":
        parts.append(f'<path d="{_path(points)}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
    if curve.marks in ("points", "both"):
        notes = curve.notes or [""] * len(points)
        for (x, y), note in zip(points, notes, strict=True):
            tip = f"<title>{html.escape(note)}</title>" if note else ""
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}">{tip}</circle>')
    return "".join(parts)


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _legend(entries: Sequence[tuple[str, str]]) -> str:
    """A row above the plot area; none for a single curve."""
    if len(entries) < 2:
        return ""
    parts = []
    share = (WIDTH - LEFT - RIGHT) / len(entries)
    for index, (name, colour) in enumerate(entries):
        left = LEFT + share * index
        parts.append(f'<path d="M{left:.1f} {TOP - 12}h18" stroke="{colour}" stroke-width="3"/>')
        parts.append(_text(left + 23, TOP - 8, name, "start"))
    return "".join(parts)


def _text(x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="#222">{html.escape(text)}</text>'
