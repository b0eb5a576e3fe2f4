"""Options that verbs share, choices that repeat the names of a registry, and progress in a pipe."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from str_app.bench.limits import SWEEPS
from str_app.cli import app
from str_app.cli.progress import ProgressBar
from str_app.datasets.converters import CONVERTERS
from str_app.evaluation.protocol import PROTOCOLS
from str_app.study.variants import GATES, UNITS


def help_of(*verb: str) -> str:
    return " ".join(CliRunner().invoke(app, [*verb, "--help"]).stdout.split())


def test_choices_are_the_names_of_the_registries() -> None:
    assert "|".join(CONVERTERS) in help_of("convert")
    assert f"Property to vary: {', '.join(sweep.name for sweep in SWEEPS)};" in help_of("bench", "limits")
    assert f"Recurrent unit: {', '.join(UNITS)};" in help_of("study")
    # A name may be broken at its hyphen.
    assert f"Kindofgates:{','.join(GATES)};" in help_of("study").replace(" ", "")
    assert list(PROTOCOLS) == ["field", "unicode"]


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
        "Where the network runs: cpu or cuda",
        "CPU threads",
        "What runs the network: onnx (exported graphs), torch",
        "int8 (exported graphs), bf16 or fp32",
    ):
        assert all(text in help_of(verb) for verb in ("evaluate", "recognize", "serve")), text


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
