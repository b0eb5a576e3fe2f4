"""Scores as a Markdown table and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from str_app.evaluation.confidence import MEANING, equal_mass_reliability
from str_app.evaluation.metrics import rounded
from str_app.evaluation.protocol import FIELD, Score, SetResult, numbered, score_of
from str_app.installation import provenance


@dataclass(frozen=True)
class Total:
    """Totals over the default subset of every set.

    Attributes:
        pooled: scores of all their samples together.
        mean: unweighted mean of the sets' accuracies, in percent.
    """

    pooled: Score
    mean: float


def total_of(results: Sequence[SetResult]) -> Total:
    """Sample-weighted total and unweighted mean of the default subsets."""
    scores = [result.score(result.default_subset) for result in results]
    predictions = [sample for result in results for sample in result.of(result.default_subset)]
    dropped = sum(score.dropped for score in scores)
    return Total(
        pooled=score_of("weighted total", None, predictions, dropped, results[0].protocol),
        mean=sum(score.accuracy for score in scores) / max(1, len(scores)),
    )


def as_json(model: str, results: Sequence[SetResult]) -> dict[str, Any]:
    """The content of `--json`; docs/explanation/confidence.md explains the selective metrics."""
    total = total_of(results)
    return {
        "model": model,
        "made": provenance(),
        "protocol": results[0].protocol.description,
        "confidence": MEANING,
        "sets": [
            {**score.as_json(), "reliability": _reliability(result, score.subset)} for result, score in _scores(results)
        ],
        "total": total.pooled.as_json(),
        "weighted": round(total.pooled.accuracy, 2),
        "mean": round(total.mean, 2),
    }


def _scores(results: Sequence[SetResult]) -> list[tuple[SetResult, Score]]:
    """The scores of each set and its subsets, under a name that no other set has."""
    names = numbered(result.name for result in results)
    return [
        (result, replace(score, name=name))
        for name, result in zip(names, results, strict=True)
        for score in result.scores()
    ]


def _reliability(result: SetResult, subset: str | None) -> list[dict[str, float]]:
    members = result.of(subset)
    bars = equal_mass_reliability([s.confidence for s in members], [s.correct for s in members])
    return [
        rounded(
            {"low": b.low, "high": b.high, "n": b.size, "confidence": 100 * b.confidence, "accuracy": 100 * b.accuracy},
            low=4,
            high=4,
        )
        for b in bars
    ]


def headings(results: Sequence[SetResult]) -> tuple[str, ...]:
    """The header row. Beyond ASCII, exact match of the whole text replaces the two over parts of ASCII."""
    exact = ("62", "94") if results[0].protocol is FIELD else ("exact",)
    return ("set", "n", "accuracy", "95 %", *exact, "1−NED", "CER", "ECE", "unreadable", "dropped")


def rows(results: Sequence[SetResult]) -> list[tuple[str, ...]]:
    """The table's body: one row per set and subset, then the total and the mean."""
    lines = [
        _row(score, default=score.subset == result.default_subset, field=result.protocol is FIELD)
        for result, score in _scores(results)
    ]
    total = total_of(results)
    lines.append(_row(total.pooled, default=True, field=results[0].protocol is FIELD))
    lines.append(("plain mean", "", f"{total.mean:.2f}", *[""] * (len(headings(results)) - 3)))
    return lines


def markdown(results: Sequence[SetResult]) -> str:
    """The table as Markdown with aligned columns, and above it the protocol where it is not the usual one."""
    cells = [headings(results), *rows(results)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [_line(row, widths) for row in cells]
    rule = "|" + "|".join("-" * (width + 1) + (":" if column else "-") for column, width in enumerate(widths)) + "|"
    protocol = results[0].protocol
    above = [] if protocol is FIELD else [f"Protocol: {protocol.description}.", ""]
    return "\n".join([*above, lines[0], rule, *lines[1:]])


def _row(score: Score, default: bool, field: bool) -> tuple[str, ...]:
    name = score.name if score.subset is None else f"{score.name} ({score.subset})"
    if not default:
        name += " †"
    exact = (score.accuracy_62, score.accuracy_94) if field else (score.accuracy_exact,)
    values = (*exact, score.ned, score.cer, score.ece)
    return (
        name,
        str(score.n),
        f"{score.accuracy:.2f}",
        _interval(score.interval),
        *(f"{value:.2f}" for value in values),
        str(score.unreadable),
        str(score.dropped),
    )


def _interval(bounds: tuple[float, float]) -> str:
    return f"{bounds[0]:.1f}–{bounds[1]:.1f}"


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [
        cell.rjust(width) if column else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "| " + " | ".join(cells) + " |"
