"""Render, convert, train, evaluate, resume: a tiny model from its data to its scores."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from str_app.cli import build_app
from tests.datasets.renderer_fonts import write_font

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
TINY = (
    *("backbone.stem=4,4", "backbone.stages=8,8,8", "backbone.blocks=1,1,1"),
    *("decoder.hidden_size=16", "decoder.attention_size=8", "decoder.embedding_size=8"),
)


def str_app(*arguments, code=0):
    """Standard output of the command, run in this process."""
    threads = torch.get_num_threads()
    result = CliRunner().invoke(build_app(), [str(argument) for argument in arguments])
    torch.set_num_threads(threads)
    assert result.exit_code == code, f"{arguments}\n{result.output}"
    return result.stdout


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A tiny model, trained for a few steps on rendered words."""
    folder = tmp_path_factory.mktemp("job")
    write_font(folder / "fonts" / "font.ttf")
    str_app("synth", "--out", folder / "train.lmdb", "--count", 48, "--seed", 1, "--fonts", folder / "fonts")
    sizes = [argument for choice in TINY for argument in ("--set", f"architecture.{choice}")]
    steps = "--set steps=3 --set batch_size=8 --set group=1 --set workers=0 --set device=cpu".split()
    str_app("train", "--train", folder / "train.lmdb", "--val", SAMPLES, "--out", folder / "run", *sizes, *steps)
    return folder


def test_folder_and_lmdb_score_the_same(run):
    """Whatever the source, the batch and the threads."""
    model = run / "run/best.safetensors"
    str_app("convert", "folder", SAMPLES, "--out", run / "tests" / "samples")
    scores = []
    for data, batch, threads in ((SAMPLES, 1, 1), (SAMPLES, 64, 2), (run / "tests", 64, 1)):
        out = run / "scores.json"
        options = ("--json", out, "--batch-size", batch, "--threads", threads, "--no-blank")
        assert "| samples" in str_app("evaluate", "--data", data, "--model", model, *options)
        scores.append(json.loads(out.read_text())["sets"])
    assert scores[0] == scores[1] == scores[2]
    assert scores[0][0]["n"] == 10
    assert scores[0][0]["cer"] != 100  # texts were read


def test_recognize_prints_what_the_readme_says(run):
    model = run / "run/best.safetensors"
    lines = str_app("recognize", SAMPLES / "images", "--model", model).splitlines()
    assert len(lines) == 10
    path, _, confidence = lines[0].split("\t")
    assert path.endswith("01.jpg")
    assert 0 <= float(confidence) <= 1
    first = json.loads(str_app("recognize", SAMPLES / "images/01.jpg", "--json", "--model", model))
    assert set(first) == {"image", "text", "confidence", "characters"}


def test_a_run_goes_on(run):
    str_app("train", "--out", run / "run", "--resume", code=1)  # all steps are done
    str_app("train", "--out", run / "run", "--resume", "--set", "steps=4")
    metrics = (run / "run/metrics.jsonl").read_text().splitlines()
    assert json.loads(metrics[-1])["step"] == 4
