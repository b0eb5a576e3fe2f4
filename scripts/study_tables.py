"""Results of the gate studies: docs/results/studies.json, docs/pictures/studies/, and the tables made from them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from str_app.study.experiment import Metric, Outcome
from str_app.study.report import file_name, table, verdict
from str_app.study.variants import GATES, UNITS, all_variants

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "docs/results/studies.json"
PICTURES = ROOT / "docs/pictures/studies"
FIELDS = tuple(Outcome.__annotations__)
WORDS = {"better": "**helps**", "worse": "**hurts**", "": "chance"}
# Experiment → how the verdict names it, and its anchor on the page; the order of the table.
ROWS = {
    "adding, T = 50": "adding, T = 50 (paper's)",
    "adding, T = 100": "adding, T = 100 (paper's)",
    "adding, T = 200": "adding, T = 200 (paper's)",
    "counting between marks, T = 50": "counting between marks (paper's task, our form)",
    "aⁿbⁿ, trained to n = 20": "aⁿbⁿ (ours)",
    "copy memory, delay 50": "copy memory (ours)",
    "Tiny Shakespeare, characters": "Tiny Shakespeare, characters (ours)",
    "Penn Treebank, characters": "Penn Treebank, characters (ours)",
    "WikiText-2, characters": "WikiText-2, characters of two files (ours)",
    "Penn Treebank, words": "Penn Treebank, words (ours)",
    "scene text": "scene text, a short run (the paper's kind of task)",
}


def load() -> dict[str, dict[str, Any]]:
    """Experiments by name."""
    stored = json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else []
    return {experiment["experiment"]: experiment for experiment in stored}


def outcomes(experiment: Mapping[str, Any]) -> list[Outcome]:
    return [Outcome(experiment["experiment"], *row) for row in experiment["runs"]]


def collect(folders: Sequence[Path]) -> None:
    """Take reports and pictures of `str-app study` into docs/; they replace those of the same experiments."""
    known = load()
    for folder in folders:
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        for experiment in report["experiments"]:
            runs = [[run[name] for name in FIELDS[1:]] for run in experiment["runs"]]
            about = {key: experiment[key] for key in ("experiment", "metric")}
            known[experiment["experiment"]] = {**about, "made": report["made"], "runs": runs}
            stem = file_name(experiment["experiment"])
            for picture in folder.glob(f"{stem}-*.svg"):
                if picture.stem.endswith(("-curve", "-gates")):
                    PICTURES.joinpath(picture.name).write_bytes(picture.read_bytes())
    lines = []
    for experiment in sorted(known.values(), key=lambda one: list(ROWS).index(one["experiment"])):
        rows = ",\n".join(json.dumps(row) for row in experiment.pop("runs"))
        head = json.dumps(experiment, ensure_ascii=False)
        lines.append(f'{head[:-1]}, "runs": [\n{rows}\n]}}')
    FILE.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")


def study_table(experiment: Mapping[str, Any]) -> str:
    """The table of one experiment."""
    made, runs = experiment["made"], outcomes(experiment)
    lines = table(Metric(**experiment["metric"]), runs)
    seeds = len({run.seed for run in runs})
    return "\n".join(lines) + f"\n\n{seeds} seeds; {made['processor']}, torch {made['torch']}, {made['date']}."


def verdict_table(experiments: Mapping[str, Mapping[str, Any]]) -> str:
    """A row for each task and unit: what each kind of gates does against the vanilla ones."""
    kinds = [kind for kind in GATES if kind != "none"]
    lines = [f"| task | unit | {' | '.join(f'`{kind}`' for kind in kinds)} |", "|---" * (len(kinds) + 2) + "|"]
    for name, experiment in experiments.items():
        runs = outcomes(experiment)
        metric = Metric(**experiment["metric"])
        task = f"[{ROWS[name]}](#{_anchor(name)})"
        for unit in UNITS:
            if any(run.variant.startswith(f"{unit}-") for run in runs):
                cells = [cell(metric, runs, unit, kind) for kind in kinds]
                lines.append(f"| {task} | {unit} | {' | '.join(cells)} |")
                task = ""
    return "\n".join(lines)


def cell(metric: Metric, runs: Sequence[Outcome], unit: str, kind: str) -> str:
    """The verdict on one kind of gates in one unit."""
    if kind not in [variant.gates for variant in all_variants((unit,))]:
        return ""
    own = [run for run in runs if run.variant == f"{unit}-{kind}"]
    if not own:
        return "not run"
    diverged = sum(run.diverged_at is not None for run in own)
    if diverged:
        return f"**diverges** in {diverged} of {len(own)}"
    return WORDS[verdict(metric, runs, f"{unit}-{kind}")]


def _anchor(name: str) -> str:
    """The id that the site gives the heading of this experiment."""
    return "".join(letter for letter in name.lower().replace(" ", "-") if letter.isalnum() or letter == "-")


def tables() -> dict[str, Callable[[], str]]:
    """Name of a table on a page → what makes it."""
    known = load()
    of_one = {f"study-{file_name(name)}": partial(study_table, experiment) for name, experiment in known.items()}
    return {"studies": partial(verdict_table, known), **of_one}
