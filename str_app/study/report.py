"""The report of a study: a table and plots for each experiment, as Markdown, JSON and SVG."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from str_app.evaluation.plots import Axis, Series, plot
from str_app.installation import provenance
from str_app.models.checkpoint import replace_file
from str_app.models.gates.statistics import EFFECTIVE_RANGE, Histogram, Record
from str_app.models.gates.units import GRU, LSTM, MGU
from str_app.study.experiment import Experiment, Metric, Outcome, Run
from str_app.study.gate_plots import gate_histogram, gradient_norms

_FIRST_GATE = {"LSTM": LSTM.default_gates[0], "GRU": GRU.default_gates[0], "MGU": MGU.default_gates[0]}


def interval(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and half-width of its 95 % interval (Student's t); the half-width of a single value is None."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, None
    return mean, students_t(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))


def p_value(differences: Sequence[float]) -> float:
    """Of the two-sided paired t-test: how likely a mean as far from 0 is if the true one is 0. At least 2 values."""
    from scipy.special import stdtr

    mean, deviation = statistics.fmean(differences), statistics.stdev(differences)
    if deviation == 0:
        return float(mean == 0)
    degrees = len(differences) - 1
    return 2 * float(stdtr(degrees, -abs(mean) * math.sqrt(len(differences)) / deviation))


def students_t(degrees: int) -> float:
    """97.5 % point of Student's t with `degrees` degrees of freedom, at least 1."""
    from scipy.special import stdtrit  # extra `train`; its import takes half a second

    return float(stdtrit(degrees, 0.975))


def write_report(out: Path, title: str, command: str, results: Sequence[tuple[Experiment, list[Run]]]) -> list[Path]:
    """Write `report.md`, `report.json` and the plots into `out`, and return their paths in this order."""
    files: dict[str, str] = {}
    parts = [f"# {title}", "", f"Command: `{command}`", ""]
    parts.append(
        "Means over seeds with 95 % intervals (Student's t). *Against none* is the mean difference to vanilla gates "
        "of the same unit and seed; better and worse mean that its interval excludes 0. One that contains 0 does not "
        "show that there is no difference. Errors that span orders of magnitude have geometric means, in plots too, "
        "and are compared by their ratio, whose interval then excludes 1. Runs whose loss became NaN or infinite "
        "count as diverged and are left out of means and plots; a kind of gates that diverged is called neither "
        "better nor worse. Time is CPU time on one thread relative to the vanilla gates; runs in parallel disturb "
        "each other a little."
    )
    for experiment, runs in results:
        parts += ["", f"## {experiment.name}", "", *_experiment(experiment, runs, files)]
    text = "\n".join(parts) + "\n"
    stored = [
        {
            "experiment": experiment.name,
            "settings": experiment.settings(),
            "metric": asdict(experiment.metric),
            "runs": [_plain(run, experiment.metric) for run in runs],
        }
        for experiment, runs in results
    ]
    files = {
        "report.md": text,
        "report.json": json.dumps({"command": command, "made": provenance(), "experiments": stored}, indent=1),
        **files,
    }
    for name, content in files.items():
        replace_file(out / name, content.encode())
    return [out / name for name in files]


def table(metric: Metric, outcomes: Sequence[Outcome]) -> list[str]:
    """The Markdown table of one experiment, line by line."""
    solvable = metric.solved is not None
    head = ["gates", "H", "parameters", metric.name, "against none", "time"]
    if solvable:
        sign = "≤" if metric.better == "lower" else "≥"
        head[5:5] = [f"solved ({sign} {metric.solved:g})", "median steps"]
    lines = [f"| {' | '.join(head)} |", "|---|" + "---:|" * (len(head) - 1)]
    for variant in dict.fromkeys(outcome.variant for outcome in outcomes):
        attempts = [outcome for outcome in outcomes if outcome.variant == variant]
        cells = [variant, str(attempts[0].hidden_size), f"{attempts[0].parameters:,}"]
        cells.append(_mean(metric, [outcome.value for outcome in attempts if outcome.value is not None], len(attempts)))
        cells.append("" if variant.endswith("-none") else _against_vanilla(metric, outcomes, variant))
        if solvable:
            steps = [outcome.solved_at for outcome in attempts if outcome.solved_at is not None]
            cells += [f"{len(steps)} of {len(attempts)}", f"{statistics.median(steps):,.0f}" if steps else "–"]
        ratios = [own.seconds / vanilla.seconds for own, vanilla in _pairs(outcomes, variant)]
        cells.append(f"{statistics.median(ratios):.2f}" if ratios else "–")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def verdict(metric: Metric, outcomes: Sequence[Outcome], variant: str) -> str:
    """`better` or `worse` than the vanilla gates if the interval of the paired difference excludes 0; else empty.

    Empty, too, if a run of either diverged: those that are left are not chosen at random.
    """
    differences = paired_differences(metric, outcomes, variant)
    compared = (variant, _vanilla(variant))
    diverged = any(outcome.value is None for outcome in outcomes if outcome.variant in compared)
    if diverged or len(differences) < 2:
        return ""
    mean, half = interval(differences)
    assert half is not None
    if abs(mean) <= half:
        return ""
    return "better" if (mean < 0) == (metric.better == "lower") else "worse"


def _pairs(outcomes: Sequence[Outcome], variant: str) -> list[tuple[Outcome, Outcome]]:
    """The variant's runs that did not diverge, each with that of the vanilla gates with the same seed."""
    vanilla = _vanilla(variant)
    base = {outcome.seed: outcome for outcome in outcomes if outcome.variant == vanilla and outcome.value is not None}
    own = [outcome for outcome in outcomes if outcome.variant == variant and outcome.value is not None]
    return [(outcome, base[outcome.seed]) for outcome in own if outcome.seed in base]


def _vanilla(variant: str) -> str:
    return f"{variant.partition('-')[0]}-none"


def paired_differences(metric: Metric, outcomes: Sequence[Outcome], variant: str) -> list[float]:
    """To the vanilla gates, by seed: of values, or of their logarithms where they span orders of magnitude."""
    scale = math.log if metric.log else float
    return [
        scale(own.value) - scale(vanilla.value)
        for own, vanilla in _pairs(outcomes, variant)
        if own.value is not None and vanilla.value is not None
    ]


def _experiment(experiment: Experiment, runs: list[Run], files: dict[str, str]) -> list[str]:
    seeds = len({run.seed for run in runs})
    numbers = {k: v for k, v in experiment.settings().get("training", {}).items() if isinstance(v, int | float | bool)}
    training = ", ".join(f"{key} {value:g}" for key, value in numbers.items())
    head = f"{seeds} seed(s); {training}" if training else f"{seeds} seed(s)"
    outcomes = [run.outcome(experiment.metric) for run in runs]
    lines = [f"{head}.", "", *table(experiment.metric, outcomes), ""]
    stem = file_name(experiment.name)
    for unit in dict.fromkeys(run.variant.partition("-")[0] for run in runs):
        own = [run for run in runs if run.variant.startswith(f"{unit}-")]
        plots = {
            "curve": _curves(experiment, own, unit),
            "gradient": _gradients(own, unit),
            "gates": _gates(own, unit),
        }
        for kind, svg in plots.items():
            if svg is not None:
                files[f"{stem}-{unit}-{kind}.svg"] = svg
                lines.append(f"![{kind}]({stem}-{unit}-{kind}.svg)")
        lines.append("")
    return [*lines, *_gate_table(runs)]


def _curves(experiment: Experiment, runs: list[Run], unit: str) -> str | None:
    """The metric's curve by step: means over seeds, geometric on a logarithmic axis; a band from worst to best.

    Values above twice the vanilla gates' maximum are clipped, so that diverging curves do not squash the others.
    """
    metric = experiment.metric
    name = metric.curve or metric.name
    series = []
    runs = [run for run in runs if run.diverged_at is None]
    if not runs:
        return None
    vanilla = [values[name] for run in runs if run.variant.endswith("-none") for _, values in run.curve]
    ceiling = 2 * max(vanilla) if vanilla and metric.better == "lower" else math.inf
    for variant in dict.fromkeys(run.variant for run in runs):
        curves = [run.curve for run in runs if run.variant == variant]
        steps = [step for step, _ in curves[0]]
        values = [[curve[index][1][name] for curve in curves] for index in range(len(steps))]
        floor = 1e-6 if metric.log else -math.inf
        values = [[min(max(floor, value), ceiling) for value in row] for row in values]
        bands = [(min(row), max(row)) for row in values]
        means = [statistics.geometric_mean(row) if metric.log else statistics.fmean(row) for row in values]
        series.append(Series(variant.partition("-")[2], steps, means, bands if len(curves) > 1 else None))
    if metric.chance is not None:
        ends = [series[0].xs[0], series[0].xs[-1]]
        series.append(Series("", ends, [metric.chance] * 2, marks="dashed"))
    return plot(f"{unit}: {experiment.name}", Axis("step"), Axis(name, log=metric.log), series)


def _gradients(runs: list[Run], unit: str) -> str | None:
    """Norm of the gradient at each step of the recurrence, after training."""
    records = {}
    for run in runs:
        for curve in list(run.gradients.values())[:1]:
            records[run.variant.partition("-")[2]] = Record(gradient_norms={step: [norm] for step, norm in curve})
    if not any(norm > 0 for record in records.values() for _, norm in record.gradient_curve()):
        return None
    return gradient_norms(f"{unit}: gradient at h, after training", records)


def _gates(runs: list[Run], unit: str) -> str | None:
    """Histogram of the first refinable gate's effective values, for the vanilla and the refined variants."""
    chosen = {}
    for run in runs:
        kind = run.variant.partition("-")[2]
        for gates in list(run.gates.values())[:1] if kind not in ("ur", "chrono") else []:
            counts = torch.tensor(gates[_FIRST_GATE[unit]]["effective"])
            chosen[kind] = Histogram(*EFFECTIVE_RANGE, counts)
    return (
        gate_histogram(f"{unit}: {_FIRST_GATE[unit]} gate, effective values after training", chosen) if chosen else None
    )


def _gate_table(runs: Sequence[Run]) -> list[str]:
    """Shares of closed, open and out-of-range gate values after training, in percent; first seed and layer."""
    lines = [
        "| gates | gate | closed (< 0.1) | open (> 0.9) | effective < 0 | effective > 1 |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for run in runs:
        for gates in list(run.gates.values())[:1]:
            for name, shares in gates.items():
                cells = [f"{100 * shares[share]:.1f}" for share in ("closed", "open", "negative", "above_one")]
                lines.append(f"| {run.variant} | {name} | {' | '.join(cells)} |")
    return lines if len(lines) > 2 else []


def _against_vanilla(metric: Metric, outcomes: Sequence[Outcome], variant: str) -> str:
    differences = paired_differences(metric, outcomes, variant)
    if not differences:
        return "–"
    mean, half = interval(differences)
    plain = _rounded(mean, 3, "+") if half is None else f"{_rounded(mean, 3, '+')} ± {_rounded(half, 2)}"
    text = _factor("× ", mean, half) if metric.log else plain
    return f"{text} {verdict(metric, outcomes, variant)}".rstrip()


def _factor(sign: str, mean: float, half: float | None) -> str:
    """A mean of logarithms as a number, with its interval."""
    text = f"{sign}{_rounded(math.exp(mean), 2)}"
    if half is None:
        return text
    return f"{text} ({_rounded(math.exp(mean - half), 2)} to {_rounded(math.exp(mean + half), 2)})"


def _rounded(value: float, digits: int, sign: str = "") -> str:
    """So many significant digits, and no exponent where Python would write 130 as 1.3e+02."""
    return f"{float(f'{value:.{digits}g}'):{sign}g}"


def _mean(metric: Metric, values: Sequence[float], attempts: int) -> str:
    """Mean of the runs that finished, geometric on a logarithmic scale, and how many of all attempts diverged."""
    if not values:
        return "all diverged"
    if metric.log:
        text = _factor("", *interval([math.log(value) for value in values]))
    else:
        mean, half = interval(values)
        text = _rounded(mean, 4) if half is None else f"{_rounded(mean, 4)} ± {_rounded(half, 2)}"
    return text if len(values) == attempts else f"{text}; {attempts - len(values)} of {attempts} diverged"


def _plain(run: Run, metric: Metric) -> dict[str, Any]:
    """A run without its histograms, which stay in the run's own file."""
    stored = asdict(run)
    shares = ("closed", "open", "saturated", "negative", "above_one")
    stored["gates"] = {
        layer: {name: {share: values[share] for share in shares} for name, values in gates.items()}
        for layer, gates in run.gates.items()
    }
    return {**asdict(run.outcome(metric)), **stored}


def file_name(name: str) -> str:
    """`name` as part of a file name: lower-case letters, digits and hyphens."""
    plain = name.translate(str.maketrans("ⁿ", "n")).lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
