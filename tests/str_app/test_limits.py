"""`str-app bench limits`: the measurement and the files it writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from str_app.bench.limits import SWEEPS, Point, Sweep, draw, markdown, measure, write
from str_app.cli import app
from str_app.datasets.renderer import WordList, find_fonts
from str_app.reader import Reader
from tests.datasets.renderer_fonts import write_font
from tests.str_app.fake_engine import FakeEngine

POINTS = [Point(1.0, 4, 100.0, (51.0, 100.0), 100.0, 98.0), Point(2.0, 4, 50.0, (15.0, 85.0), 75.0, 60.0)]


def sweep_named(name: str) -> Sweep:
    return next(candidate for candidate in SWEEPS if candidate.name == name)


def test_each_property_is_measured_at_all_its_values(tmp_path: Path) -> None:
    write_font(tmp_path / "plain.ttf")
    fonts, words = find_fonts(tmp_path, tmp_path / "cache.json"), WordList(["there"], [1])
    done: list[int] = []
    curves = measure(Reader(FakeEngine()), fonts, words, sweep_named("contrast"), 2, on_progress=done.append)
    assert list(curves) == ["words"]
    assert [(point.value, point.n) for point in curves["words"]] == [(v, 2) for v in sweep_named("contrast").values]
    assert all(0 <= point.accuracy <= 100 and 0 <= point.confidence <= 100 for point in curves["words"])
    assert sum(done) == 2 * len(sweep_named("contrast").values)


def test_the_probes_of_a_sweep_change_one_property() -> None:
    for sweep in SWEEPS:
        probes = {probe_at(value) for value in sweep.values for probe_at in sweep.curves.values()}
        assert len(probes) == len(sweep.values) * len(sweep.curves), sweep.name
        if sweep.name != "length":
            assert len({(probe.length, probe.text) for probe in map(sweep.curves["words"], sweep.values)}) == 1


def test_files(tmp_path: Path) -> None:
    files = write(tmp_path / "new", "tiny", 32, [(sweep_named("height"), {"words": POINTS})])
    assert sorted(file.name for file in files) == ["height.svg", "limits.json", "limits.md"]
    content = json.loads((tmp_path / "new" / "limits.json").read_text())
    assert (content["model"], content["max_length"]) == ("tiny", 32)
    assert content["height"]["words"][1] == {
        "value": 2.0, "n": 4, "accuracy": 50.0, "interval": [15.0, 85.0], "ned": 75.0, "confidence": 60.0
    }  # fmt: skip
    page = (tmp_path / "new" / "limits.md").read_text()
    assert "| 2 | 4 | 50.0 | 15.0–85.0 | 75.0 | 60.0 |" in page
    assert "![height](height.svg)" in page


def test_several_curves_have_a_column_and_a_legend() -> None:
    curves = {"words": POINTS, "random letters": POINTS}
    assert markdown(sweep_named("length"), curves).count("| random letters |") == 2
    svg = draw("tiny", sweep_named("length"), curves)
    assert "right: random letters" in svg


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(model: str, **options: Any) -> Reader:
        return Reader(FakeEngine())

    monkeypatch.setattr(Reader, "load", load)
    monkeypatch.setattr("str_app.datasets.renderer.frequent_words", lambda: WordList(["there"], [1]))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_font(tmp_path / "fonts" / "plain.ttf")
    arguments = ["bench", "limits", "--out", tmp_path / "out", "--fonts", tmp_path / "fonts", "--count", 1]
    result = CliRunner().invoke(app, [*map(str, arguments), "--only", "contrast"])
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "out" / "contrast.svg").is_file()
    assert not (tmp_path / "out" / "length.svg").exists()
    assert CliRunner().invoke(app, [*map(str, arguments), "--only", "colour"]).exit_code == 2
    assert "Example: str-app bench limits" in " ".join(
        CliRunner().invoke(app, ["bench", "limits", "-h"]).stdout.split()
    )
