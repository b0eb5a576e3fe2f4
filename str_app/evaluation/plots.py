"""Line and point plots as SVG text: small, readable in a README, in a page and as a file of their own."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

WIDTH, HEIGHT = 480, 320
LEFT, RIGHT, TOP, BOTTOM = 60, 14, 46, 44  # margins around the plane
COLOURS = ("#2563a8", "#c2410c", "#15803d", "#7e3794", "#a16207", "#0f766e")


@dataclass(frozen=True)
class Series:
    """One curve.

    Attributes:
        name: in the legend; empty is left out of it.
        xs, ys: of equal length, in the order in which they are joined.
        interval: (low, high) for each point, drawn as a band behind a line and as a bar at a point.
        marks: `"line"`, `"points"` or `"both"`; `"dashed"` is a thin grey line without points, for a reference.
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
    """What an axis shows.

    Attributes:
        label: with the unit.
        bounds: first and last value; by default those of the data.
        log: logarithmic; bounds and data must be above 0.
        ticks: values to label; by default round ones.
    """

    label: str
    bounds: tuple[float, float] | None = None
    log: bool = False
    ticks: Sequence[float] | None = None


def plot(title: str, x: Axis, y: Axis, series: Sequence[Series]) -> str:
    """The plot as one `<svg>` element of 480 × 320 pixels on white, without any outside resource.

    Raises:
        ValueError: no point at all, a value that is no finite number, or one ≤ 0 on a logarithmic axis.
    """
    across = _Scale(x, [value for one in series for value in one.xs], LEFT, WIDTH - RIGHT)
    heights = [value for one in series for value in one.ys]
    heights += [value for one in series for bounds in one.interval or () for value in bounds]
    up = _Scale(y, heights, HEIGHT - BOTTOM, TOP)
    parts = [_frame(title, x, y, across, up)]
    plain = [one for one in series if one.marks != "dashed"]
    for one in series:
        colour = "#888" if one.marks == "dashed" else COLOURS[plain.index(one) % len(COLOURS)]
        parts.append(_draw(one, colour, across, up))
    parts.append(_legend([(one.name, COLOURS[place % len(COLOURS)]) for place, one in enumerate(plain) if one.name]))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'role="img" aria-label="{html.escape(title)}" font-family="system-ui, sans-serif" font-size="11">'
        f"{''.join(parts)}</svg>"
    )


class _Scale:
    """Values of an axis to pixels between `start` and `end`."""

    def __init__(self, axis: Axis, values: Sequence[float], start: float, end: float) -> None:
        shown = [*values, *(axis.bounds or ())]
        if not values or not all(map(math.isfinite, shown)) or (axis.log and min(shown) <= 0):
            raise ValueError(f"axis {axis.label!r}: needs values, finite and on a logarithmic axis above 0")
        self._log = axis.log
        self.low, self.high = axis.bounds or (min(values), max(values))
        if self.low == self.high:
            self.high = self.low * 2 if axis.log else self.low + 1
        self._start, self._end = start, end
        self.ticks = axis.ticks if axis.ticks is not None else _ticks(self.low, self.high, axis.log)

    def __call__(self, value: float) -> float:
        low, high, place = self.low, self.high, min(max(value, self.low), self.high)
        if self._log:
            low, high, place = math.log(low), math.log(high), math.log(place)
        return self._start + (place - low) / (high - low) * (self._end - self._start)


def _ticks(low: float, high: float, log: bool) -> list[float]:
    """Round values within the bounds: about six of them, or 1, 2 and 5 of each power of ten if that gives two."""
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
    return [step * place for place in range(first, math.floor(high / step + 1e-9) + 1)]


def _frame(title: str, x: Axis, y: Axis, across: _Scale, up: _Scale) -> str:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = [f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>']
    for value in across.ticks:
        at = across(value)
        parts.append(f'<path d="M{at:.1f} {TOP}V{bottom}" stroke="#e3e3e3"/>')
        parts.append(_text(at, bottom + 15, f"{value:g}"))
    for value in up.ticks:
        at = up(value)
        parts.append(f'<path d="M{LEFT} {at:.1f}H{right}" stroke="#e3e3e3"/>')
        parts.append(_text(LEFT - 6, at + 4, f"{value:g}", "end"))
    parts.append(f'<path d="M{LEFT} {TOP}V{bottom}H{right}" fill="none" stroke="#555"/>')
    parts.append(_text((LEFT + right) / 2, HEIGHT - 10, x.label))
    middle = (TOP + bottom) / 2
    parts.append(f'<g transform="rotate(-90 8 {middle:.1f})">{_text(8, middle + 4, y.label)}</g>')
    parts.append(f'<g font-size="13" font-weight="bold">{_text((LEFT + right) / 2, 18, title)}</g>')
    return "".join(parts)


def _draw(one: Series, colour: str, across: _Scale, up: _Scale) -> str:
    places = [(across(x), up(y)) for x, y in zip(one.xs, one.ys, strict=True)]
    parts = []
    if one.interval is not None and one.marks == "points":
        for (at, _), (low, high) in zip(places, one.interval, strict=True):
            parts.append(f'<path d="M{at:.1f} {up(low):.1f}V{up(high):.1f}" stroke="{colour}" opacity=".5"/>')
    elif one.interval is not None:
        edge = [(at, up(low)) for (at, _), (low, _) in zip(places, one.interval, strict=True)]
        edge += [(at, up(high)) for (at, _), (_, high) in reversed(list(zip(places, one.interval, strict=True)))]
        parts.append(f'<path d="{_path(edge)}Z" fill="{colour}" opacity=".15"/>')
    if one.marks == "dashed":
        parts.append(f'<path d="{_path(places)}" fill="none" stroke="{colour}" stroke-dasharray="4 4"/>')
    elif one.marks != "points":
        parts.append(f'<path d="{_path(places)}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
    if one.marks in ("points", "both"):
        notes = one.notes or [""] * len(places)
        for (at, height), note in zip(places, notes, strict=True):
            tip = f"<title>{html.escape(note)}</title>" if note else ""
            parts.append(f'<circle cx="{at:.1f}" cy="{height:.1f}" r="3" fill="{colour}">{tip}</circle>')
    return "".join(parts)


def _path(places: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)


def _legend(entries: Sequence[tuple[str, str]]) -> str:
    """A row above the plane, where no curve can be; a single curve needs none."""
    if len(entries) < 2:
        return ""
    parts = []
    share = (WIDTH - LEFT - RIGHT) / len(entries)
    for place, (name, colour) in enumerate(entries):
        left = LEFT + share * place
        parts.append(f'<path d="M{left:.1f} {TOP - 12}h18" stroke="{colour}" stroke-width="3"/>')
        parts.append(_text(left + 23, TOP - 8, name, "start"))
    return "".join(parts)


def _text(x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="#222">{html.escape(text)}</text>'
