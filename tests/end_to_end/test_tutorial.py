"""docs/tutorial/first-reading.md, followed: what it says is printed is printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from str_app.cli import build_app

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/tutorial/first-reading.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


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
