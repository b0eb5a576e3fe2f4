"""Tables of results on the pages are those made from docs/results/*.json, and these belong to the released weights."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pytest

from scripts import result_tables, study_tables
from str_app.models.checkpoint import read_header
from str_app.models.presets import weights_path
from str_app.study.experiment import Metric, Outcome

RELEASE = (result_tables.ROOT / "docs/how-to/release.md").read_text(encoding="utf-8")


def test_pages_show_the_results() -> None:
    stale = [str(page.relative_to(result_tables.ROOT)) for page, _ in result_tables.changes()]
    assert not stale, "run python scripts/result_tables.py"


def test_every_table_is_on_a_page() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in result_tables.pages())
    assert sorted(name for _, name, _ in result_tables.BLOCK.findall(text)) == sorted(result_tables.tables())


def test_commands_of_a_release_write_every_file() -> None:
    written = set(re.findall(r"--json docs/results/([\w-]+)\.json", RELEASE))
    there = {file.stem for file in result_tables.RESULTS.glob("*.json")}
    assert written | {"models", "peers", "studies"} == there


def test_a_verdict_needs_an_interval_without_zero() -> None:
    metric = Metric("error", "lower")
    values = {"none": (3.0, 3.1, 3.2), "add": (2.0, 2.2, 2.1), "mul": (3.0, 3.3, 3.1), "ur": (9.0, 9.1, 9.0)}
    runs = [
        Outcome("x", f"MGU-{kind}", seed, 1, 1, 1.0, value, None, None)
        for kind, of_seeds in values.items()
        for seed, value in enumerate(of_seeds)
    ]
    runs += [Outcome("x", "MGU-chrono", seed, 1, 1, 1.0, None, None, 5) for seed in range(3)]
    cells = [study_tables.cell(metric, runs, "MGU", kind) for kind in ("add", "mul", "ur", "chrono", "add-sigmoid")]
    assert cells == ["helps", "unclear", "hurts", "diverges in 3 of 3", "not run"]
    assert study_tables.cell(metric, runs, "LSTM", "add-sigmoid") == ""  # is not for the LSTM


def test_bold_verdicts_are_those_of_benjamini_and_hochberg() -> None:
    # The example of their paper (1995, table of section 4): four of fifteen.
    chances = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344]
    chances += [0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0]
    assert study_tables.discoveries(dict(enumerate(chances))) == {0, 1, 2, 3}
    assert study_tables.discoveries(dict(enumerate([0.9, 0.04, 0.03]))) == set()
    assert study_tables.discoveries({}) == set()


def report(folder: Path, variants: Sequence[str], value: float, processor: str) -> Path:
    made = {"processor": processor, "torch": "2", "date": "2026-01-01"}
    runs = [
        {**asdict(Outcome("aⁿbⁿ, trained to n = 20", variant, seed, 1, 1, 1.0, value, None, None)), "made": made}
        for variant in variants
        for seed in range(2)
    ]
    experiment = {"experiment": "aⁿbⁿ, trained to n = 20", "metric": asdict(Metric("n", "higher")), "runs": runs}
    folder.mkdir()
    (folder / "report.json").write_text(json.dumps({"experiments": [experiment]}))
    return folder


def test_a_report_of_one_unit_keeps_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_tables, "FILE", tmp_path / "studies.json")
    monkeypatch.setattr(study_tables, "PICTURES", tmp_path)
    both = ("MGU-none", "MGU-add", "LSTM-none", "LSTM-add")
    study_tables.collect([report(tmp_path / "a", both, 1.0, "A")])
    study_tables.collect([report(tmp_path / "b", ("LSTM-none", "LSTM-add"), 2.0, "B")])
    (stored,) = study_tables.load().values()
    values = {run.variant: run.value for run in study_tables.outcomes(stored)}
    assert values == {"LSTM-none": 2.0, "LSTM-add": 2.0, "MGU-none": 1.0, "MGU-add": 1.0}
    assert "2 seeds; LSTM: B, torch 2, 2026-01-01; MGU: A, torch 2, 2026-01-01." in study_tables.study_table(stored)
    with pytest.raises(SystemExit, match=r"lacks \('MGU-add', 0\)"):
        study_tables.collect([report(tmp_path / "c", ("MGU-none",), 3.0, "C")])
    assert study_tables.load()["aⁿbⁿ, trained to n = 20"] == stored


def test_models_are_counted() -> None:
    assert result_tables.count_models() == result_tables.load("models")


def test_validation_is_that_of_the_released_weights() -> None:
    stored = {
        row["name"]: row["accuracy"] for row in read_header(weights_path("small"))["info"]["metrics"]["validation"]
    }
    measured = {row["name"]: row["accuracy"] for row in result_tables.load("validation-fp32")["sets"]}
    assert measured == pytest.approx(stored, abs=0.05)


@pytest.mark.parametrize(
    ("ours", "expected"),
    [({1015: 93.2}, "93.2"), ({857: 94.1}, "94.1 (857)"), ({857: 94.1, 1015: 93.2}, "93.2, 94.1 (857)")],
)
def test_the_number_of_samples_is_told_where_it_differs(ours: dict[int, float], expected: str) -> None:
    assert result_tables.cell(ours, 1015) == expected
