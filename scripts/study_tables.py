"""Results of the gate studies: docs/results/studies.json, docs/pictures/studies/, and the tables made from them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from str_app.study.experiment import Metric, Outcome
from str_app.study.report import file_name, p_value, paired_differences, table, verdict
from str_app.study.variants import GATES, UNITS, UnitName, all_variants

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "docs/results/studies.json"
PICTURES = ROOT / "docs/pictures/studies"
FIELDS = tuple(Outcome.__annotations__)
WORDS = {"better": "helps", "worse": "hurts", "": "unclear"}
FALSE_DISCOVERIES = 0.05  # share that is expected among the verdicts in bold
# Experiment → how the verdict names it, and its anchor on the page; the order of the table.
ROWS = {
    "adding, T = 50": "adding, T = 50 (paper's task)",
    "adding, T = 100": "adding, T = 100 (paper's task)",
    "adding, T = 200": "adding, T = 200 (paper's task)",
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
    """Take reports and pictures of `str-app study` into docs/; they replace those of the same experiments and units."""
    known = load()
    for folder in folders:
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        for experiment in report["experiments"]:
            name = experiment["experiment"]
            before = known.get(name, {"runs": [], "made": {}})
            runs = [[run[field] for field in FIELDS[1:]] for run in experiment["runs"]]
            units = {_unit(run[0]) for run in runs}
            lost = {tuple(run[:2]) for run in before["runs"] if _unit(run[0]) in units} - {
                tuple(run[:2]) for run in runs
            }
            if lost:
                raise SystemExit(f"{folder} lacks {min(lost)} of {name}: run the study with all its gates and seeds")
            runs = [run for run in before["runs"] if _unit(run[0]) not in units] + runs
            runs.sort(key=lambda run: UNITS.index(_unit(run[0])))
            made = before["made"] | {unit: _made(experiment, unit) for unit in units}
            made = {unit: made[unit] for unit in UNITS if unit in made}
            known[name] = {"experiment": name, "metric": experiment["metric"], "made": made, "runs": runs}
            stem = file_name(name)
            for picture in folder.glob(f"{stem}-*.svg"):
                if picture.stem.endswith(("-curve", "-gates")):
                    PICTURES.joinpath(picture.name).write_bytes(picture.read_bytes())
    lines = []
    for experiment in sorted(known.values(), key=lambda one: list(ROWS).index(one["experiment"])):
        rows = ",\n".join(json.dumps(row) for row in experiment.pop("runs"))
        head = json.dumps(experiment, ensure_ascii=False)
        lines.append(f'{head[:-1]}, "runs": [\n{rows}\n]}}')
    FILE.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")


def _unit(variant: str) -> Any:
    """LSTM, GRU or MGU."""
    return variant.partition("-")[0]


def _made(experiment: Mapping[str, Any], unit: str) -> str:
    """Processors, versions of torch and dates of one unit's runs."""
    runs = [run["made"] for run in experiment["runs"] if _unit(run["variant"]) == unit]
    processors, versions, dates = (sorted({run[key] for run in runs}) for key in ("processor", "torch", "date"))
    span = " to ".join(dict.fromkeys((dates[0], dates[-1])))
    return f"{' and '.join(processors)}, torch {' and '.join(versions)}, {span}"


def study_table(experiment: Mapping[str, Any]) -> str:
    """The table of one experiment."""
    made, runs = experiment["made"], outcomes(experiment)
    lines = table(Metric(**experiment["metric"]), runs)
    seeds = len({run.seed for run in runs})
    places = {where: [unit for unit in made if made[unit] == where] for where in made.values()}
    told = [where if len(places) == 1 else f"{', '.join(units)}: {where}" for where, units in places.items()]
    return "\n".join(lines) + f"\n\n{seeds} seeds; {'; '.join(told)}."


def verdict_table(experiments: Mapping[str, Mapping[str, Any]]) -> str:
    """A row for each task and unit: what each kind of gates does against the vanilla ones."""
    tasks = {name: (Metric(**experiment["metric"]), outcomes(experiment)) for name, experiment in experiments.items()}
    units = {name: {_unit(run.variant) for run in runs} for name, (_, runs) in tasks.items()}
    rows = [(name, unit) for name in tasks for unit in UNITS if unit in units[name]]
    kinds = [kind for kind in GATES if kind != "none"]
    words = {(name, unit, kind): cell(*tasks[name], unit, kind) for name, unit in rows for kind in kinds}
    chances = {
        (name, unit, kind): p_value(paired_differences(*tasks[name], f"{unit}-{kind}"))
        for (name, unit, kind), word in words.items()
        if word in WORDS.values()
    }
    surest = discoveries(chances)
    clear = sum(word in (WORDS["better"], WORDS["worse"]) for word in words.values())
    lines = [f"| task | unit | {' | '.join(f'`{kind}`' for kind in kinds)} |", "|---" * (len(kinds) + 2) + "|"]
    previous = ""
    for name, unit in rows:
        keys = [(name, unit, kind) for kind in kinds]
        cells = [f"**{words[key]}**" if key in surest else words[key] for key in keys]
        task = "" if name == previous else f"[{ROWS[name]}](#{_anchor(name)})"
        lines.append(f"| {task} | {unit} | {' | '.join(cells)} |")
        previous = name
    note = (
        f"{len(chances)} comparisons, in {clear} of which the interval excludes 0. In bold: the {len(surest)} that "
        f"remain at a false discovery\nrate of {100 * FALSE_DISCOVERIES:g} % (Benjamini–Hochberg, paired t-tests)."
    )
    return "\n".join(lines) + f"\n\n{note}"


def discoveries(chances: Mapping[Any, float]) -> set[Any]:
    """The comparisons, by their p-values, that Benjamini & Hochberg (1995) keep at the rate `FALSE_DISCOVERIES`."""
    from scipy.stats import false_discovery_control  # extra `train`

    adjusted = false_discovery_control(list(chances.values()))
    return {key for key, chance in zip(chances, adjusted, strict=True) if chance <= FALSE_DISCOVERIES}


def cell(metric: Metric, runs: Sequence[Outcome], unit: UnitName, kind: str) -> str:
    """The verdict on one kind of gates in one unit."""
    if kind not in [variant.gates for variant in all_variants((unit,))]:
        return ""
    own = [run for run in runs if run.variant == f"{unit}-{kind}"]
    if not own:
        return "not run"
    diverged = sum(run.diverged_at is not None for run in own)
    if diverged:
        return f"diverges in {diverged} of {len(own)}"
    return WORDS[verdict(metric, runs, f"{unit}-{kind}")]


def _anchor(name: str) -> str:
    """The id that the site gives the heading of this experiment."""
    return "".join(letter for letter in name.lower().replace(" ", "-") if letter.isalnum() or letter == "-")


def tables() -> dict[str, Callable[[], str]]:
    """Name of a table on a page → what makes it."""
    known = load()
    of_one = {f"study-{file_name(name)}": partial(study_table, experiment) for name, experiment in known.items()}
    return {"studies": partial(verdict_table, known), **of_one}
