"""`str-app bench gates`: contenders take turns, the table and the plots follow from the timings."""

import json

import pytest
import torch
from typer.testing import CliRunner

from str_app.bench import gates as bench_gates
from str_app.bench.gates import Timing, contenders, markdown, measure, overhead, write
from str_app.cli import app


def test_every_unit_and_pass_is_timed():
    timings = list(measure(["LSTM", "MGU"], [(2, 3, 4)], "mul", "cpu", turns=4, seconds=0.0, compiled=False))
    assert [(timing.unit, timing.what) for timing in timings] == [
        (unit, what) for unit in ("LSTM", "MGU") for what in ("forward", "forward+backward")
    ]
    assert all(timing.turns >= 3 for timing in timings)
    assert [set(timing.ratios) for timing in timings[1:3]] == [{"torch", "cells"}, {"cells"}]


def test_where_kernels_run_the_layer_competes_without_them(monkeypatch):
    monkeypatch.setattr(bench_gates, "find_steps", lambda *_, **__: object())
    timings = list(measure(["MGU"], [(2, 3, 4)], "mul", "cpu", turns=3, seconds=0.0, compiled=False))
    assert [set(timing.ratios) for timing in timings] == [{"loop", "cells"}] * 2
    assert "ran in kernels" in markdown(timings, [])
    assert "ran in the plain loop" in markdown([], [])


def test_contenders_compute_the_same():
    """The loop of cells and the layer are one function once they share weights."""
    torch.manual_seed(0)
    modules = contenders("GRU", 4, "mul", "cpu", compiled=False)
    weights = {name.removesuffix("_l0"): value for name, value in modules["refined"].state_dict().items()}
    modules["cells"].cell.load_state_dict(weights)
    x = torch.randn(5, 2, 4)
    torch.testing.assert_close(modules["cells"](x)[0], modules["refined"](x)[0])


def test_overhead_is_the_features_weights():
    cost = overhead("LSTM", "mul", (2, 3, 4))
    assert cost.parameters["refined"] - cost.parameters["torch"] == 4 * 4
    assert cost.kept_bytes["refined"] >= 3 * 2 * (4 * 4 + 4) * 4  # activations of four blocks and the states, float32


def test_ratios_are_medians_of_turns(monkeypatch):
    clock = iter([0, 1, 0, 2, 0, 4, 0, 2, 0, 6, 0, 2])

    def take_turns(runs, *_):
        return {name: [float(next(clock)) + 1 for _ in range(3)] for name in runs}

    monkeypatch.setattr(bench_gates, "_take_turns", take_turns)
    (timing, _) = measure(["MGU"], [(1, 1, 2)], "mul", "cpu", 3, 0, False)
    refined, cells = [1, 2, 1], [3, 1, 5]
    ratios = sorted(a / b for a, b in zip(refined, cells, strict=True))
    assert timing.ratios["cells"][1] == ratios[1]


def test_files(tmp_path):
    timing = Timing(
        "LSTM", 1, 26, 128, "forward+backward", 3, {"torch": 1.0, "refined": 2.0}, {"torch": (1.8, 2.0, 2.1)}
    )
    files = write(tmp_path, {"threads": 1}, [timing], [])
    assert [file.name for file in files] == ["gates.md", "gates.json", "gates-lstm.svg"]
    assert "2.00 [1.80, 2.10]" in markdown([timing], [])
    assert json.loads(files[1].read_text())["timings"][0]["ratios"]["torch"] == [1.8, 2.0, 2.1]
    assert "time / nn.LSTM" in files[2].read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--unit", "RNN"], "'RNN' is not one of"),
        (["--refine", "none"], "'none' is not one of"),
        (["--cpu-time", "--threads", "2"], "needs --device cpu and --threads 1"),
    ],
)
def test_wrong_usage(tmp_path, arguments, words):
    result = CliRunner().invoke(app, ["bench", "gates", "--out", str(tmp_path), *arguments])
    assert result.exit_code == 2
    assert words in " ".join(result.output.replace("│", " ").split())
