"""Options that verbs share, choices that repeat the names of a registry, and progress in a pipe."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from str_app.bench.limits import SWEEPS
from str_app.cli import app
from str_app.cli.progress import ProgressBar
from str_app.datasets.converters import CONVERTERS
from str_app.errors import StrAppError
from str_app.evaluation.protocol import PROTOCOLS
from str_app.photos import load as photos
from str_app.reader import Reader
from str_app.study.variants import GATES, UNITS
from tests.str_app.painted_data import write_folder


def help_of(*verb: str) -> str:
    return " ".join(CliRunner().invoke(app, [*verb, "--help"]).stdout.split())


def test_choices_are_the_names_of_the_registries() -> None:
    assert "|".join(CONVERTERS) in help_of("convert")
    assert f"Property to vary: {', '.join(sweep.name for sweep in SWEEPS)};" in help_of("bench", "limits")
    assert f"Recurrent unit: {', '.join(UNITS)};" in help_of("study")
    # A name may be broken at its hyphen.
    assert f"Kindofgates:{','.join(GATES)};" in help_of("study").replace(" ", "")
    assert list(PROTOCOLS) == ["field", "unicode"]


def test_help_names_no_types_of_python() -> None:
    shown = help_of("evaluate")
    values = "--data PATH", "--json FILE", "--model TEXT", "--threads N", "--protocol <field|unicode>"
    assert all(f" {value} " in shown for value in values)
    assert " --easy X " in help_of("select")


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate", "--data", "x", "--protocol", "ascii"],
        ["bench", "limits", "--out", "x", "--only", "colour"],
        ["bench", "gates", "--out", "x", "--unit", "RNN"],
        ["study", "adding", "--gates", "x"],
        ["recognize", "x.png", "--precision", "fp8"],
    ],
)
def test_a_wrong_choice_is_named_with_the_right_ones(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    message = " ".join(result.stderr.split())
    assert f"Invalid value for '{arguments[-2]}'" in message
    assert f"'{arguments[-1]}' is not one of " in message


def test_the_same_option_has_the_same_help_in_every_verb() -> None:
    for text in (
        "Where the network runs: cpu, cuda or cuda:N",
        "CPU threads",
        "What runs the network: onnx (exported graphs), torch",
        "int8 (exported graphs), bf16 or fp32",
    ):
        assert all(text in help_of(verb) for verb in ("evaluate", "recognize", "serve")), text


OF_READING = {"device": "cuda", "threads": 3, "prior": False, "engine": "torch", "precision": "bf16"}
OF_CROPS = OF_READING | {"batch_size": 5, "blank": False, "variants": False}


def written(options: Mapping[str, Any]) -> list[str]:
    """Options as they are on the command line."""
    pairs = [
        [f"--no-{name}"] if value is False else [f"--{name.replace('_', '-')}", str(value)]
        for name, value in options.items()
    ]
    return [part for pair in pairs for part in pair]


@pytest.mark.parametrize(
    ("verb", "options"),
    [
        (["recognize"], OF_CROPS),
        (["evaluate", "--data"], OF_CROPS),
        (["bulk", "--out", "out"], OF_CROPS),
        (["read"], OF_READING),
        (["evaluate-photos", "--data"], OF_READING),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_options_reach_the_model_and_the_detector(
    verb: list[str], options: Mapping[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[Any] = []
    found: list[Any] = []

    def load(model: str, **given: Any) -> None:
        loaded.append((model, given))
        raise StrAppError("this is enough")

    monkeypatch.setattr(Reader, "load", load)
    monkeypatch.setattr(photos, "load_pipeline", lambda *given: found.append(given))
    monkeypatch.chdir(tmp_path)
    folder = write_folder(tmp_path / "data")
    (folder / "labels.jsonl").write_text('{"image": "images/0.png", "words": []}')
    finding = ["--detector", "own", "--longest-side", "999"] if options is OF_READING else []
    result = CliRunner().invoke(app, [*verb, str(folder), "--model", "mine", *written(options), *finding])
    assert "this is enough" in result.stderr
    assert loaded == [("mine", options)]
    assert found == ([("own", 3, 999)] if finding else [])


def test_progress_in_a_pipe_is_a_line_after_each_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar("reading", 30_000) as progress:
        for _ in range(100):
            progress.advance(64)
    assert capsys.readouterr().err.splitlines() == ["3008 of 30000 crops", "6016 of 30000 crops"]
    with ProgressBar("converting", unit="records") as progress:  # the total is not known at first
        progress.update(999)
        progress.update(1000, 2500)
        progress.update(2499, 2500)
    assert capsys.readouterr().err.splitlines() == ["1000 of 2500 records", "2499 of 2500 records"]
