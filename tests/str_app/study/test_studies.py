"""Studies: what their data look like, that they can be interrupted, and what the report says."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from str_app.cli import app
from str_app.datasets.text_corpus import CorpusError, penn_treebank, tiny_shakespeare, wikitext_2_characters
from str_app.errors import StrAppError
from str_app.study import studies
from str_app.study.experiment import Metric, Outcome, Run, Training, train_run
from str_app.study.language import LEAST_TOKENS, Language, LanguageSizes
from str_app.study.report import interval, p_value, table, verdict, write_report
from str_app.study.scene_text import SceneText
from str_app.study.studies import STUDIES
from str_app.study.synthetic import Adding, CopyMemory, EqualNumbers, MarkedCount
from str_app.study.variants import GATES, Variant, all_variants, count_parameters, equal_size
from str_app.training.loop import Diverged
from str_app.training.objective import Objective
from str_app.training.run_logger import CPU_SECONDS
from tests.str_app.painted_data import write_folder
from tests.tiny_recognizer import tiny_config

ROOT = Path(__file__).resolve().parents[3]
SHORT = Training(6, 4, evaluate_every=3)


@pytest.fixture(autouse=True)
def at_one_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """No two runs are of different dates because a test ran at midnight."""
    monkeypatch.setattr("str_app.study.experiment.provenance", dict)


def drawn(task):
    return task.draw(torch.Generator().manual_seed(0), 50)


def test_adding_sums_one_number_of_each_half() -> None:
    inputs, targets = drawn(Adding(10, SHORT))
    assert inputs.shape == (10, 50, 2)
    assert torch.equal(inputs[:5, :, 1].sum(0), torch.ones(50))
    assert torch.equal(inputs[5:, :, 1].sum(0), torch.ones(50))
    torch.testing.assert_close((inputs[..., 0] * inputs[..., 1]).sum(0), targets)


def test_marked_count_counts_between_the_marks() -> None:
    inputs, targets = drawn(MarkedCount(12, SHORT))
    for sequence, count in zip(inputs.unbind(1), targets.tolist(), strict=True):
        first, last = sequence[:, 4].nonzero().flatten().tolist()
        assert sum(bool(step[0]) for step in sequence[first + 1 : last]) == count
    assert targets.max() > 0


def test_equal_numbers_ask_only_for_what_is_certain() -> None:
    inputs, targets = EqualNumbers(3, SHORT).words(torch.tensor([2, 3]))
    assert inputs.argmax(-1).t().tolist() == [[0, 1, 1, 2, 2, 2, 2], [0, 1, 1, 1, 2, 2, 2]]
    # After the first b of aabb: b, then the end (2).
    assert targets.t().tolist() == [[-1, -1, -1, 1, 2, -1, -1], [-1, -1, -1, -1, 1, 1, 2]]


def test_equal_numbers_count_up_to_the_first_mistake() -> None:
    task = EqualNumbers(3, SHORT)
    _, targets = task.words(torch.arange(1, 13))

    class Oracle(nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            said = targets.clamp_min(0).clone()
            said[targets[:, 7] == 2, 7] = 1  # forgets the end of n = 8
            return nn.functional.one_hot(said, 3).float()

    assert task.evaluate(Oracle())["counts up to n"] == 7


def test_copy_memory_has_the_symbols_first_and_the_signal_before_the_answer() -> None:
    inputs, targets = drawn(CopyMemory(5, SHORT))
    said = inputs.argmax(-1)
    assert said.shape == (25, 50)
    assert torch.equal(said[:10], targets)
    assert (said[14] == 9).all()
    assert (said[10:14] == 8).all()
    assert (said[15:] == 8).all()


@pytest.mark.parametrize("gates", GATES)
@pytest.mark.parametrize("unit", ["LSTM", "GRU", "MGU"])
def test_sizes_are_as_equal_as_can_be(unit, gates) -> None:
    corpus = tiny(kind="words")
    task = Language(corpus, SHORT, LanguageSizes(16, 24), bptt=5, longest=5)
    vanilla = count_parameters(task.build(Variant(unit, "none")))
    built = task.build(Variant(unit, gates))
    size = built.layers[0].hidden_size
    assert size <= 24
    one_less = count_parameters(task._model(Variant(unit, gates), size - 1))
    assert abs(count_parameters(built) - vanilla) <= (count_parameters(built) - one_less) / 2


def test_equal_size_takes_the_nearest() -> None:
    assert equal_size(lambda size: nn.Linear(size, 1, bias=False), 7, 100) == 7
    assert equal_size(lambda size: nn.Linear(size, 10, bias=False), 64, 100) == 6
    assert equal_size(lambda size: nn.Linear(size, 1), 1000, 5) == 5


def tiny(kind="characters"):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        write_corpora(Path(folder))
        return tiny_shakespeare(Path(folder)) if kind == "characters" else penn_treebank(Path(folder), "words")


def write_corpora(root: Path) -> None:
    (root / "tinyshakespeare.txt").write_text("To be, or not to be.\n" * 60)
    (root / "ptb").mkdir()
    for split in ("train", "valid", "test"):
        (root / "ptb" / f"ptb.{split}.txt").write_text(" the N <unk> of the day \n a cat \n" * 40)
    (root / "wikitext-2").mkdir()
    (root / "wikitext-2/valid.txt").write_text("= A cat = \n" * 40)
    (root / "wikitext-2/test.txt").write_text("a 猫\n" * 40)


def test_corpora_become_ids(tmp_path: Path) -> None:
    write_corpora(tmp_path)
    words = penn_treebank(tmp_path, "words")
    assert words.vocabulary == ("the", "N", "<unk>", "of", "day", "<eos>", "a", "cat")
    assert words.train[:10].tolist() == [0, 1, 2, 3, 0, 4, 5, 6, 7, 5]
    assert penn_treebank(tmp_path, "characters").vocabulary[:4] == (" ", "t", "h", "e")
    (tmp_path / "ptb/ptb.test.txt").write_text("the dog\n")
    assert penn_treebank(tmp_path, "words").test.tolist() == [0, 2, 5]  # dog is unknown
    text = tiny_shakespeare(tmp_path)
    assert sum(len(part) for part in (text.train, text.validation, text.test)) == 21 * 60


def test_characters_that_the_training_text_lacks_are_one_token(tmp_path: Path) -> None:
    write_corpora(tmp_path)
    text = wikitext_2_characters(tmp_path)
    assert text.vocabulary == ("=", " ", "A", "c", "a", "t", "\n", "\ufffd")
    assert text.validation[:8].tolist() == [4, 1, 7, 6, 4, 1, 7, 6]
    assert (len(text.validation), len(text.test)) == (2 * 40, 2 * 40)


def test_a_corpus_that_is_not_there_is_asked_for(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app, ["study", "wikitext-2", "--quick", "--data", str(tmp_path), "--out", str(tmp_path)]
    )
    assert result.exit_code == 1
    assert f"{tmp_path}/wikitext-2/train.txt" in result.output
    assert "put your copy" in result.output
    (tmp_path / "tinyshakespeare.txt").write_bytes(b"caf\xe9")
    with pytest.raises(CorpusError, match="not UTF-8"):
        tiny_shakespeare(tmp_path)


def test_language_carries_its_state_to_the_next_window_and_not_around_the_corner() -> None:
    task = Language(tiny(), SHORT, LanguageSizes(8, 8, dropout=0.0), bptt=7)
    torch.manual_seed(0)
    model = task.build(Variant("GRU", "add"))
    windows = (len(task.corpus.train) // 4 - 1) // 7
    _, carry = task.loss(model, 0, 0, None)
    with_carry, without = task.loss(model, 1, 0, carry)[0], task.loss(model, 1, 0, None)[0]
    assert with_carry != without
    assert task.loss(model, windows, 0, carry)[0] == task.loss(model, 0, 0, None)[0]


def test_dropped_recurrent_weights_are_trained_and_whole_again() -> None:
    task = Language(tiny(), SHORT, LanguageSizes(8, 8, 2, dropout=0.0, dropout_weights=0.9), bptt=7)
    for variant in all_variants():
        torch.manual_seed(0)
        model = task.build(variant)
        names = sorted(name for name, _ in model.named_parameters())
        whole = model.get_parameter("layers.0.weight_hh_l0")
        before = task.loss(model.eval(), 0, 0, None)[0]
        task.loss(model.train(), 0, 0, None)[0].backward()
        assert 0 < (whole.grad == 0).float().mean() < 1, variant
        assert sorted(name for name, _ in model.named_parameters()) == names
        assert model.get_parameter("layers.0.weight_hh_l0") is whole
        assert task.loss(model.eval(), 0, 0, None)[0] == before


@pytest.mark.parametrize("variant", ["LSTM-none", "GRU-mul", "MGU-ur"])
def test_interrupted_at_any_step_a_run_ends_the_same(variant, tmp_path: Path, monkeypatch) -> None:
    unit, gates = variant.split("-")
    task = Language(tiny(), SHORT, LanguageSizes(8, 8, dropout=0.3), bptt=7)
    whole = train_run(task, Variant(unit, gates), 1, made(tmp_path / "whole"), watch=True)
    calls = 0
    real = Language.loss

    def interrupting(*arguments):
        nonlocal calls
        calls += 1
        if calls == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments)

    monkeypatch.setattr(Language, "loss", interrupting)
    with pytest.raises(KeyboardInterrupt):
        train_run(task, Variant(unit, gates), 1, made(tmp_path / "cut"), watch=True)
    assert (tmp_path / f"cut/{variant}-1.pt").is_file()
    again = train_run(task, Variant(unit, gates), 1, tmp_path / "cut", watch=True)
    assert replace(again, seconds=whole.seconds) == whole
    assert 0 < again.seconds < 60  # its own seconds, not the machine's
    assert calls == 6 + 1  # three steps after the cut, and one batch to look at the gates
    assert not (tmp_path / f"cut/{variant}-1.pt").exists()
    assert train_run(task, Variant(unit, gates), 1, tmp_path / "cut", watch=True) == again
    assert calls == 7  # finished runs are read, not run


def test_results_of_other_settings_are_not_replaced(tmp_path: Path) -> None:
    variant = Variant("GRU", "none")
    first = train_run(Adding(8, SHORT, 4), variant, 0, tmp_path, watch=False)
    longer = Adding(8, Training(9, 4, evaluate_every=3), 4)
    with pytest.raises(StrAppError, match=r"GRU-none-0\.json: a run with other settings; choose another --out"):
        train_run(longer, variant, 0, tmp_path, watch=False)
    assert train_run(Adding(8, SHORT, 4), variant, 0, tmp_path, watch=False) == first
    (tmp_path / "GRU-none-0.json").write_text("{")
    with pytest.raises(StrAppError, match=r"GRU-none-0\.json: not valid JSON .*; delete it to repeat this run"):
        train_run(longer, variant, 0, tmp_path, watch=False)
    (tmp_path / "GRU-none-0.json").unlink()
    assert len(train_run(longer, variant, 0, tmp_path, watch=False).curve) == len(first.curve) + 1


def test_seeds_are_runs_of_their_own(tmp_path: Path) -> None:
    """Other initial weights, and other data."""
    task, variant = Adding(8, SHORT, 4), Variant("GRU", "none")
    models = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        models.append(task.build(variant))
    assert not torch.equal(*(next(model.parameters()) for model in models))
    with torch.no_grad():
        losses = [task.loss(models[0], 3, seed, None)[0].item() for seed in (0, 1, 0)]
    assert losses[0] == losses[2] != losses[1]
    curves = [train_run(task, variant, seed, tmp_path, watch=False).curve for seed in (0, 1)]
    assert curves[0] != curves[1]


@pytest.mark.parametrize("setting", [{"clip_norm": 1e-3}, {"weight_decay": 10.0}, {"cosine": True}])
def test_each_setting_of_training_has_an_effect(setting: dict[str, Any], tmp_path: Path) -> None:
    variant, usual = Variant("GRU", "none"), Training(9, 4, learning_rate=0.01, evaluate_every=3)
    results = [
        train_run(Adding(8, training, 4), variant, 0, made(tmp_path / name), watch=False).curve
        for name, training in (("usual", usual), ("changed", replace(usual, **setting)))
    ]
    assert results[0] != results[1]


def test_lengths_of_one_text_are_told_apart(tmp_path: Path) -> None:
    write_corpora(tmp_path)
    names = [each.name for each in STUDIES["shakespeare"].experiments("quick", tmp_path, (5, 6))]
    assert len(set(names)) == 2
    assert all("BPTT" in name for name in names)


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_a_killed_study_goes_on_and_reports_the_same(tmp_path: Path) -> None:
    write_corpora(tmp_path)
    arguments = ["study", "shakespeare", "--data", str(tmp_path), "--quick", "--length", "5", "--seeds", "3"]
    arguments += ["--unit", "GRU", "--gates", "none", "--gates", "add", "--out"]
    command = [sys.executable, "-m", "str_app", *arguments, str(tmp_path / "killed"), "--workers", "2"]
    killed = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert killed.stderr is not None
    assert killed.stderr.readline().startswith("1 of 6: ")  # the others are unfinished
    time.sleep(0.3)  # until the next has begun in each worker
    killed.terminate()
    killed.communicate(timeout=60)
    assert killed.returncode == 128 + signal.SIGTERM
    assert not (tmp_path / "killed/report.md").exists()
    left = [path.name for path in (tmp_path / "killed/runs").glob("*/*")]
    assert any(name.endswith(".pt") for name in left)  # a state
    assert not any(name.startswith("GRU-add-2.") for name in left), "a run began after the signal"

    def report(out: str) -> dict:
        result = CliRunner().invoke(app, [*arguments, str(tmp_path / out), "--workers", "1"])
        assert result.exit_code == 0, result.output
        (experiment,) = json.loads((tmp_path / out / "report.json").read_text())["experiments"]
        for run in experiment["runs"]:
            del run["seconds"], run["made"]
        return experiment

    assert report("killed") == report("whole")
    text = (tmp_path / "whole/report.md").read_text()
    assert "GRU-add" in text
    for picture in (tmp_path / "whole").glob("*.svg"):
        assert f"({picture.name})" in text


def whole_folder(path: Path) -> None:
    write_folder(path)
    shutil.copy(path / "images/4.png", path / "images/5.png")  # which was no image


def test_the_recogniser_is_compared_by_its_own_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studies, "REDUCED", tiny_config())
    whole_folder(tmp_path / "train/painted")
    arguments = ["study", "scene-text", "--quick", "--data", str(tmp_path), "--out", str(tmp_path / "out")]
    arguments += ["--workers", "1", "--gates", "none", "--gates", "mul"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert f"{tmp_path}/validation: no data set in this folder" in result.output
    whole_folder(tmp_path / "validation/painted")
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    (experiment,) = json.loads((tmp_path / "out/report.json").read_text())["experiments"]
    none, refined = experiment["runs"]
    assert none["curve"][-1][0] == 20
    assert refined["parameters"] - none["parameters"] == 16 * (6 + 12)  # the feature map: H × (embedding + glimpse)
    assert refined["gates"]["decoder.cell"]["input"]["negative"] > 0.3
    assert CliRunner().invoke(app, ["study", "scene-text", "--unit", "GRU"]).exit_code == 2


def test_interval_is_students() -> None:
    assert interval([3.0]) == (3.0, None)
    mean, half = interval([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert half == pytest.approx(4.302653 / math.sqrt(3))


def test_p_value_is_that_of_the_paired_t_test() -> None:
    assert p_value([1.0, 2.0, 3.0]) == pytest.approx(0.0741799)  # t = 2 √3 with two degrees of freedom
    assert p_value([-1.0, -2.0, -3.0]) == p_value([1.0, 2.0, 3.0])
    assert p_value([0.0, 0.0]) == 1
    assert p_value([1.0, 1.0]) == 0


def test_a_study_without_scipy_says_so_before_it_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("str_app.cli.study.find_spec", lambda name: None)
    result = CliRunner().invoke(app, ["study", "adding", "--quick", "--out", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert "scipy is not installed: pip install 'str-app[train]'" in result.stderr
    assert not (tmp_path / "out").exists()


def test_the_table_tells_better_from_worse() -> None:
    metric = Metric("error", "lower", solved=0.15)

    def run(variant: str, seed: int, *values: float) -> Run:
        return Run("x", variant, seed, 10, 4, [(k, {"error": value}) for k, value in enumerate(values)], 2.0)

    runs = [run("GRU-none", seed, 0.9, 0.3 + 0.02 * seed) for seed in range(3)]
    runs += [run("GRU-add", seed, 0.1, 0.2, 0.1 + 0.01 * seed) for seed in range(3)]
    runs += [run("GRU-mul", seed, 0.9, 0.3 + 0.01 * seed) for seed in range(3)]
    lines = table(metric, [run.outcome(metric) for run in runs])
    assert lines[3] == "| GRU-add | 4 | 10 | 0.11 ± 0.025 | -0.21 ± 0.025 better | 3 of 3 | 2 | 1.00 |"
    assert "better" not in lines[4]
    assert "worse" not in lines[4]


def test_large_numbers_are_rounded_without_an_exponent() -> None:
    outcomes = [
        Outcome("x", variant, seed, 10, 4, 2.0, value + 80 * seed, None, None)
        for variant, value in (("GRU-none", 300.0), ("GRU-add", 2700.0))
        for seed in range(3)
    ]
    assert table(Metric("error", "lower"), outcomes)[3].startswith(
        "| GRU-add | 4 | 10 | 2780 ± 200 | +2400 ± 0 worse |"
    )
    assert table(Metric("error", "lower", log=True), outcomes)[3].split("|")[5].startswith(" × 7.4 (")


def test_what_diverged_in_one_seed_is_not_better_in_the_others() -> None:
    metric = Metric("error", "lower")
    values = {"GRU-none": (0.3, 0.31, 0.32), "GRU-add": (0.1, 0.11, 0.12), "GRU-mul": (0.1, 0.11, None)}
    outcomes = [
        Outcome("x", variant, seed, 10, 4, 2.0, value, None, None if value else 5)
        for variant, of_seeds in values.items()
        for seed, value in enumerate(of_seeds)
    ]
    assert [verdict(metric, outcomes, variant) for variant in ("GRU-add", "GRU-mul")] == ["better", ""]
    assert "| -0.2 ± " in table(metric, outcomes)[4]


def test_a_run_that_diverges_is_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = Adding(8, SHORT, 4)
    loss = Adding.loss

    def too_much(self: Adding, model: nn.Module, step: int, seed: int, carry: object) -> object:
        found, carry = loss(self, model, step, seed, carry)
        return found * (math.inf if seed == 1 and step == 1 else 1.0), carry

    monkeypatch.setattr(Adding, "loss", too_much)
    runs = [train_run(task, Variant("MGU", gates), 0, tmp_path, watch=True) for gates in ("none", "add")]
    runs += [train_run(task, Variant("MGU", gates), 1, tmp_path, watch=True) for gates in ("none", "add")]
    assert [run.diverged_at for run in runs] == [None, None, 1, 1]
    assert all(run.seconds > 0 for run in runs)
    assert train_run(task, Variant("MGU", "add"), 1, tmp_path, watch=True) == runs[3]
    (report, *_) = write_report(tmp_path, "adding", "str-app study adding", [(task, runs)])
    assert "; 1 of 2 diverged |" in report.read_text()
    (stored,) = json.loads((tmp_path / "report.json").read_text())["experiments"]
    assert [run["value"] is None for run in stored["runs"]] == [False, False, True, True]
    (report, *_) = write_report(tmp_path, "adding", "str-app study adding", [(task, runs[2:])])
    assert "| all diverged |" in report.read_text()


def test_the_report_needs_no_settings_of_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = Adding(8, SHORT, 4)
    runs = [train_run(task, Variant("GRU", "none"), 0, tmp_path, watch=False)]
    (report, *_) = write_report(tmp_path, "adding", "str-app study adding", [(task, runs)])
    assert "\n1 seed(s); steps 6, batch_size 4, " in report.read_text()
    monkeypatch.setattr(Adding, "settings", lambda self: {"task": "another"})
    (report, *_) = write_report(tmp_path, "adding", "str-app study adding", [(task, runs)])
    assert "\n1 seed(s).\n" in report.read_text()


def test_a_perplexity_no_float_holds_is_a_divergence() -> None:
    task = Language(tiny("words"), SHORT, LanguageSizes(8, 8, dropout=0.0), bptt=7)
    model = task.build(Variant("GRU", "none"))
    with torch.no_grad():
        model.bias[0] = 1e4  # a finite loss of some thousand nats
    assert math.isinf(task.evaluate(model, final=True)["test perplexity"])


def test_every_study_has_three_sizes(tmp_path: Path) -> None:
    write_corpora(tmp_path)
    for file in tmp_path.rglob("*.txt"):
        file.write_text(file.read_text() * 20)  # long enough for every step
    for name in ("adding", "counting", "copy", "shakespeare", "ptb-words", "ptb-characters", "wikitext-2-characters"):
        steps = [
            [experiment.training.steps for experiment in STUDIES[name].experiments(scale, tmp_path, ())]
            for scale in ("quick", "default", "paper")
        ]
        assert steps[0][0] < steps[1][0] < steps[2][0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nosuch"], "is not one of adding"),
        (["adding", "--unit", "RNN"], "is not one of 'LSTM'"),
        (["adding", "--gates", "x"], "is not one of 'none', 'add'"),
        (["adding", "--quick", "--paper-scale"], "cannot be combined with --paper-scale"),
    ],
)
def test_wrong_usage(arguments, message) -> None:
    result = CliRunner().invoke(app, ["study", *arguments])
    assert result.exit_code == 2
    assert message in " ".join(result.output.replace("│", " ").split())


def test_what_is_named_twice_is_run_once(tmp_path: Path) -> None:
    arguments = ["study", "counting", "--quick", "--seeds", "2", "--workers", "1", "--out", str(tmp_path)]
    arguments += "--unit LSTM --unit LSTM --gates none --gates none --length 5 --length 6 --length 5".split()
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    experiments = json.loads((tmp_path / "report.json").read_text())["experiments"]
    assert len({each["experiment"] for each in experiments}) == len(experiments) == 3  # aⁿbⁿ is the same at 5 and 6
    assert all([run["seed"] for run in each["runs"]] == [0, 1] for each in experiments)


def tiny_scene_text(folder: Path, monkeypatch: pytest.MonkeyPatch) -> SceneText:
    """The quick study of the recogniser, with a tiny network and data in `folder`."""
    monkeypatch.setattr(studies, "REDUCED", tiny_config())
    for part in ("train", "validation"):
        whole_folder(folder / f"{part}/painted")
    (study,) = STUDIES["scene-text"].experiments("quick", folder, ())
    assert isinstance(study, SceneText)
    return study


def test_a_recogniser_that_diverges_is_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = tiny_scene_text(tmp_path, monkeypatch)
    folder = made(tmp_path / "runs")
    whole = study.run(Variant("LSTM", "mul"), 1, folder, watch=False)
    assert 0 < whole.seconds < 600
    monkeypatch.setattr(Objective, "forward", lambda *parts: (_ for _ in ()).throw(Diverged("NaN", 11)))
    run = study.run(Variant("LSTM", "mul"), 0, folder, watch=True)
    assert (run.diverged_at, run.curve, run.parameters) == (11, [], whole.parameters)
    monkeypatch.undo()
    assert study.run(Variant("LSTM", "mul"), 0, folder, watch=True) == run


def test_without_a_name_the_studies_are_listed() -> None:
    result = CliRunner().invoke(app, ["study"])
    assert result.exit_code == 0
    assert all(name in result.output for name in STUDIES)


def test_a_step_longer_than_a_stream_is_refused(tmp_path: Path) -> None:
    write_corpora(tmp_path)
    arguments = ["study", "shakespeare", "--data", str(tmp_path), "--quick", "--length", "100000"]
    result = CliRunner().invoke(app, [*arguments, "--workers", "1", "--out", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert "a step of 100000 tokens is longer than each of the 32 streams" in result.stderr


def test_a_text_too_short_to_evaluate_is_refused(tmp_path: Path) -> None:
    write_corpora(tmp_path)
    test = tmp_path / "ptb/ptb.test.txt"
    test.write_text("a cat\n" * 6)  # 18 words and ends of lines
    arguments = ["study", "ptb-words", "--data", str(tmp_path), "--quick", "--length", "5"]
    result = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert "the test text has 18 tokens, and at least 20 are needed" in " ".join(result.stderr.split())
    task = Language(tiny("words"), SHORT, LanguageSizes(8, 8), bptt=5)
    corpus = replace(task.corpus, test=task.corpus.test[:LEAST_TOKENS])
    assert replace(task, corpus=corpus).evaluate(task.build(Variant("GRU", "none")), final=True)["test perplexity"] > 0


def test_a_recogniser_of_other_settings_is_not_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = tiny_scene_text(tmp_path, monkeypatch)
    folder = made(tmp_path / "runs")
    longer = SceneText(replace(study.training, steps=22))
    whole = longer.run(Variant("LSTM", "none"), 0, folder, watch=False)
    metrics = folder / "LSTM-none-0/metrics.jsonl"
    logged = metrics.read_text()
    assert logged.count(CPU_SECONDS) == 1
    metrics.write_text(logged.replace(CPU_SECONDS, "lost") + json.dumps({"step": 7, CPU_SECONDS: 0.5}) + "\n")
    (folder / "LSTM-none-0.json").unlink()  # killed before it was written
    assert longer.run(Variant("LSTM", "none"), 0, folder, watch=False).seconds == 11, "22 steps, though 7 are logged"
    metrics.write_text(logged)
    (folder / "LSTM-none-0.json").unlink()
    assert longer.run(Variant("LSTM", "none"), 0, folder, watch=False).curve == whole.curve
    (folder / "LSTM-none-0.json").unlink()
    with pytest.raises(StrAppError, match="LSTM-none-0: a run with other settings; choose another --out"):
        study.run(Variant("LSTM", "none"), 0, folder, watch=False)


def test_an_unfinished_run_of_other_settings_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variant, task = Variant("GRU", "none"), Adding(8, SHORT, 4)
    loss = Adding.loss

    def stopped(self, model, step, seed, carry):
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return loss(self, model, step, seed, carry)

    with monkeypatch.context() as patch:
        patch.setattr(Adding, "loss", stopped)
        with pytest.raises(KeyboardInterrupt):
            train_run(task, variant, 0, tmp_path, watch=False)
    state = (tmp_path / "GRU-none-0.pt").read_bytes()
    with pytest.raises(StrAppError, match=r"GRU-none-0\.pt: an unfinished run with other settings"):
        train_run(Adding(8, Training(9, 4, evaluate_every=3), 4), variant, 0, tmp_path, watch=False)
    assert (tmp_path / "GRU-none-0.pt").read_bytes() == state
