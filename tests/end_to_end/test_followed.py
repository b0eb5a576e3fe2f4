"""Pages of docs/, followed: what they say is printed is printed."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from str_app.cli import build_app

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/tutorial/first-reading.md").read_text(encoding="utf-8")
EVALUATING = (ROOT / "docs/how-to/evaluating.md").read_text(encoding="utf-8")
METRICS = (ROOT / "docs/reference/metrics.md").read_text(encoding="utf-8")


def blocks(language: str, page: str = PAGE) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


def test_samples_are_read_as_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    (command,) = (block.split() for block in blocks("sh") if "samples/images" in block)
    (printed,) = blocks("text")
    result = CliRunner().invoke(build_app(), command[1:])
    for line, expected in zip(result.stdout.splitlines(), printed.splitlines(), strict=True):
        *reading, confidence = line.split("\t")
        *expected_reading, expected_confidence = expected.split("\t")
        assert reading == expected_reading
        assert float(confidence) == pytest.approx(float(expected_confidence), abs=0.01)


def test_python(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    (example,) = blocks("python")
    exec(example, {})
    sure, unsure = capsys.readouterr().out.splitlines()
    assert sure == "BREAKFAST"
    assert unsure.startswith("unsure: ")


def test_commands_of_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ROOT / "samples", tmp_path / "my_crops")
    monkeypatch.chdir(tmp_path)
    commands, _, compared = blocks("sh", EVALUATING)
    for line in (commands + compared).splitlines():
        command = line.split("  #")[0].replace("runs/fine/best.safetensors", "small").split()
        result = CliRunner().invoke(build_app(), command[1:])
        assert result.exit_code == 0, f"{line}\n{result.output}"
        assert "| my_crops" in result.stdout
    assert (tmp_path / "scores.json").is_file()
    assert (tmp_path / "report.html").is_file()
    readings = (tmp_path / "fine.tsv").read_text(encoding="utf-8")
    assert readings == (tmp_path / "small.tsv").read_text(encoding="utf-8")
    (tmp_path / "fine.tsv").write_text(readings.replace("\t1\n", "\t0\n", 2), encoding="utf-8")
    (example,) = blocks("python", EVALUATING)
    exec(example, {})
    assert capsys.readouterr().out == "only small: 2, only fine: 0\n"


def test_columns_of_evaluation_are_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    table = CliRunner().invoke(build_app(), ["evaluate", "--data", "samples", "--beam", "1"]).stdout
    (heading,) = (line for line in table.splitlines() if line.startswith("| set"))
    columns = [column.strip() for column in heading.strip("|").split("|")]
    explained = re.findall(r"^\| ([^|]+) \|", METRICS.split("## Of the server")[0], re.MULTILINE)
    assert set(columns) - {"set", "n"} <= {name for cell in explained for name in cell.split(", ")}
