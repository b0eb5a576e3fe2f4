"""The verbs on a real, tiny network: what they print and write, and how they fail."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from str_app.bench import gates as bench_gates
from str_app.cli import app
from str_app.datasets.lmdb_source import LmdbSource
from str_app.datasets.opening import open_source
from str_app.models.checkpoint import load_checkpoint, read_header
from tests.str_app.fake_engine import paint
from tests.str_app.painted_data import png, write_folder, write_lmdb

ROOT = Path(__file__).resolve().parents[2]
WORDS = [("open", "open"), ("EXIT", "EXIT"), ("$4.54", "$4.54"), ("far too long a line", "far")]


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lmdb(tmp_path_factory.mktemp("data") / "words.lmdb", WORDS)


def test_recognize(tiny_checkpoint: Path, data: Path) -> None:
    result = run("recognize", data, "--model", tiny_checkpoint, "--beam", 1, "--no-prior", "--precision", "fp32")
    assert result.exit_code == 0, result.stderr
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert [Path(path).stem for path, _, _ in rows] == ["0", "1", "2", "3"]
    assert all(0 <= float(confidence) <= 1 for _, _, confidence in rows)
    texts = run("recognize", data, "--model", tiny_checkpoint, "--beam", 1, "--no-blank").stdout.splitlines()
    assert len({line.split("\t")[1] for line in texts}) > 1


def test_evaluate_writes_scores_report_and_plots(tiny_checkpoint: Path, data: Path, tmp_path: Path) -> None:
    files = ["--json", tmp_path / "scores.json", "--report", tmp_path / "report.html", "--plots", tmp_path / "plots"]
    result = run("evaluate", "--data", data, "--model", tiny_checkpoint, "--beam", 1, *files)
    assert result.exit_code == 0, result.stderr
    assert "| words" in result.stdout
    assert "words: 4 crops in " in result.stderr
    assert json.loads((tmp_path / "scores.json").read_text())["model"] == "tiny"
    assert "Evaluation of <code>tiny</code>" in (tmp_path / "report.html").read_text()
    assert sorted(file.name for file in (tmp_path / "plots").iterdir()) == ["coverage.svg", "reliability-words.svg"]


@pytest.mark.parametrize("pool", [["--workers", 2], pytest.param(["--ray"], marks=pytest.mark.slow)])
def test_evaluate_in_several_processes(tiny_checkpoint: Path, tmp_path: Path, pool: list[Any]) -> None:
    if pool == ["--ray"]:
        pytest.importorskip("ray", reason="pip install -e '.[ray]' brings it")
    options = ["--model", tiny_checkpoint, "--precision", "fp32", "--batch-size", 1, "--no-blank"]
    shown = run("recognize", write_lmdb(tmp_path / "first.lmdb", WORDS), *options).stdout.splitlines()
    read = [(line.split("\t")[1], painted) for (_, painted), line in zip(WORDS, shown, strict=True)]
    data = write_lmdb(tmp_path / "words.lmdb", read * 5)  # labelled by what this network reads
    arguments = ["evaluate", "--data", data, *options]
    alone = run(*arguments, "--json", tmp_path / "alone.json")
    spread = run(*arguments, *pool, "--json", tmp_path / "spread.json")
    assert (alone.exit_code, spread.exit_code) == (0, 0), spread.stderr
    scores = [json.loads((tmp_path / f"{name}.json").read_text()) for name in ("alone", "spread")]
    assert [score.pop("made") is None for score in scores] == [False, False]
    assert scores[0] == scores[1]
    assert scores[0]["total"]["accuracy_94"] == 100


def test_results_that_cannot_be_written_are_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for option, path in (("--json", "-"), ("--report", tmp_path), ("--plots", tmp_path / "file")):
        result = run("evaluate", "--data", "gone", option, path)
        assert result.exit_code == 1
        assert str(path) in result.stderr, "the data would be refused afterwards"


def test_select(tiny_checkpoint: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "kept.lmdb"
    result = run("select", data, "--out", out, "--model", tiny_checkpoint, "--hopeless", "inf", "--threads", 1)
    assert result.exit_code == 0, result.stderr
    assert "unusable: 25.0% of the crops" in result.stdout
    assert f"{out}: 3 of 4 crops" in result.stdout
    assert len(LmdbSource(out)) == 3
    again = run("select", data, "--out", out, "--model", tiny_checkpoint)
    assert again.exit_code == 1
    assert "exists already" in again.stderr


def test_select_that_keeps_nothing_says_why(tiny_checkpoint: Path, tmp_path: Path) -> None:
    data = write_lmdb(tmp_path / "own.lmdb", [("far too long a line", "far"), ("gone", None)])
    result = run("select", data, "--out", tmp_path / "kept.lmdb", "--model", tiny_checkpoint, "--threads", 1)
    assert result.exit_code == 1
    assert "no samples were added" in result.stderr
    *kinds, unusable = result.stdout.splitlines()
    assert [line.split(":")[0] for line in kinds] == ["easy", "hard", "hopeless"]
    assert unusable.startswith("unusable: 100.0% of the crops, 0.0% of the loss; the first: own, images/0.png: ")
    broken = write_folder(tmp_path / "broken", [("gone", None)])
    result = run("select", broken, "--out", tmp_path / "kept.lmdb", "--model", tiny_checkpoint, "--threads", 1)
    assert f"; the first: {broken}/images/0.png: " in result.stdout


def test_select_from_a_folder(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder, out = write_folder(tmp_path / "crops", WORDS), tmp_path / "kept.lmdb"
    result = run("select", folder, "--out", out, "--model", tiny_checkpoint, "--hopeless", "inf", "--threads", 1)
    assert result.exit_code == 0, result.stderr
    kept, source = LmdbSource(out), open_source(folder)
    names = [source.identifier(index) for index in range(len(source))]
    assert {kept.identifier(index) for index in range(len(kept))} <= set(names)


def test_average(tiny_checkpoint: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "mean.safetensors"
    result = run("average", tiny_checkpoint, tiny_checkpoint, "--out", out, "--val", data)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("words: ")
    info = read_header(out)["info"]
    assert info["training"]["averaged"] == ["0.5 {}/{}".format(*tiny_checkpoint.parts[-2:])] * 2
    assert info["metrics"]["validation"][0]["name"] == "words"
    assert info["temperature"] > 0
    assert run("average", tiny_checkpoint, "--out", tmp_path / "x.safetensors", "--share", 0).exit_code == 1
    before = out.read_bytes()
    assert "mean.safetensors exists already" in run("average", tiny_checkpoint, "--out", out).stderr
    assert out.read_bytes() == before
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "labels.tsv").write_text("")
    unscored = run("average", tiny_checkpoint, "--out", tmp_path / "x.safetensors", "--val", empty)
    assert unscored.exit_code == 1
    assert not (tmp_path / "x.safetensors").exists()
    half = tmp_path / "half.safetensors"
    assert run("average", tiny_checkpoint, "--half", "--out", half, "--val", data).exit_code == 0
    assert half.stat().st_size < out.stat().st_size
    assert read_header(half)["info"]["temperature"] > 0


def test_train_and_resume(tiny_checkpoint: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine"
    settings = [part for key in ("steps=2", "batch_size=4", "group=1", "workers=0") for part in ("--set", key)]
    start = ["train", "--train", data, "--val", data, "--from", tiny_checkpoint, "--out", out]
    result = run(*start, *settings)
    assert result.exit_code == 0, result.stderr
    assert "mine: 0.0M parameters, 4 samples in 1 sets, step 0 of 2" in result.stderr
    assert load_checkpoint(out / "best.safetensors")[1]["name"] == "mine"
    assert "contains a run already" in run(*start).stderr
    assert "all 2 steps are done" in run("train", "--out", out, "--resume").stderr
    again = run(*start, *settings, "--auto-resume")
    assert (again.exit_code, "all 2 steps are done" in again.stderr) == (0, True)
    resumed = run("train", "--out", out, "--resume", "--set", "steps=3", "--name", "yours")
    assert resumed.exit_code == 0, resumed.stderr
    assert "the settings differ from the interrupted run's" in resumed.stderr
    assert load_checkpoint(out / "last.safetensors")[1]["name"] == "yours"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no training data"),
        (["--train", "gone.lmdb"], "gone.lmdb"),
        (["--train", "x", "--preset", "huge"], "base, small"),
        (["--train", "x", "--from", "gone.safetensors"], "'gone.safetensors' is neither one of base, small"),
        (["--train", "x", "--charset", "gone.txt"], "gone.txt: No such file or directory"),
        (["--train", "x", "--charset", "/dev/null"], "/dev/null: no character in this file"),
        (["--train", "x", "--preset", "base", "--from", "small"], "leave out --preset"),
        (["--train", "x", "--set", "stepz=3"], "unknown key"),
        (["--resume"], "no run to resume"),
        (["--resume", "--preset", "small"], "leave out --preset, --from and --charset"),
    ],
)
def test_train_says_what_is_wrong(tmp_path: Path, arguments: list[str], message: str) -> None:
    result = run("train", "--out", tmp_path / "run", *arguments)
    assert result.exit_code == 1
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_train_needs_out() -> None:
    assert run("train", "--train", "x").exit_code == 2


def test_models_names_sizes_and_scores() -> None:
    lines = run("models").stdout.splitlines()
    assert lines[0] == "| model | parameters | weights | graphs | accuracy |"
    assert "IIIT5K_train" in next(line for line in lines if line.startswith("| small "))
    assert "| none | none |" in next(line for line in lines if line.startswith("| base "))


def test_bench_gates_quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_gates, "QUICK", ((1, 3, 4), (2, 3, 4)))
    arguments = ["bench", "gates", "--quick", "--out", tmp_path, "--turns", 1, "--seconds", 0]
    result = run(*arguments, "--unit", "GRU", "--unit", "MGU", "--json")
    assert result.exit_code == 0, result.stderr
    shapes = {(timing["batch"], timing["steps"], timing["hidden"]) for timing in json.loads(result.stdout)["timings"]}
    assert shapes == {(1, 3, 4), (2, 3, 4)}
    assert "GRU B 1 T 3 H 4 forward: " in result.stderr
    assert "| GRU | 1 | 3 | 4 | forward |" in (tmp_path / "gates.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["--port", "70000"], "port"),
        (["--max-batch", "0"], "max_batch"),
        (["--threads", "0"], "threads"),
        (["--log-format", "xml"], "--log-format"),
        (["--precision", "fp8"], "--precision"),
    ],
)
def test_serve_names_the_wrong_option(arguments: list[str], name: str) -> None:
    pytest.importorskip("uvicorn")
    result = run("serve", *arguments)
    assert result.exit_code == 2
    assert name in result.stderr


def test_serve_names_a_missing_model() -> None:
    pytest.importorskip("uvicorn")
    # In a process of its own: the server sets signal handlers before it loads the model.
    command = [sys.executable, "-m", "str_app", "serve", "--model", "gone.safetensors", "--port", "0"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 1
    assert "gone.safetensors" in result.stderr


@pytest.mark.parametrize("part", [0.5, 0.0])
def test_a_checkpoint_cut_short_is_named(tiny_checkpoint: Path, tmp_path: Path, part: float) -> None:
    cut = tmp_path / "cut.safetensors"
    shutil.copy(tiny_checkpoint, cut)
    cut.write_bytes(cut.read_bytes()[: int(cut.stat().st_size * part)])
    image = tmp_path / "word.png"
    image.write_bytes(png(paint("word")))
    result = run("recognize", image, "--model", cut)
    assert result.exit_code == 1
    assert "cut.safetensors: not a whole safetensors file" in result.stderr
    assert run("recognize", image, "--model", tiny_checkpoint).exit_code == 0


def test_convert_and_evaluate_agree_on_a_folder(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "words", WORDS)
    assert run("convert", "folder", folder, "--out", tmp_path / "words.lmdb").exit_code == 0
    results = [
        run("evaluate", "--data", path, "--model", tiny_checkpoint, "--beam", 1, "--no-blank")
        for path in (folder, tmp_path / "words.lmdb")
    ]
    assert [result.exit_code for result in results] == [0, 0]
    assert results[0].stdout == results[1].stdout
