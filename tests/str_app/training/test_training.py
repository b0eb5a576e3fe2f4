"""Runs: they learn, resume exactly, stop on a signal, and spread over processes without changing the result."""

import dataclasses
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from str_app.datasets.lmdb_writer import LmdbWriter
from str_app.datasets.opening import open_source
from str_app.engines.torch_engine import TorchEngine
from str_app.errors import StrAppError
from str_app.evaluation.protocol import evaluate_source
from str_app.models.checkpoint import load_checkpoint
from str_app.reader import Reader
from str_app.training import loop
from str_app.training.loop import Stopped, schedule, train
from str_app.training.run_logger import RunLogger
from str_app.training.samples import shares_of_groups
from str_app.training.schedules import constant
from str_app.training.settings import TrainSettings, make_settings, save_settings
from str_app.training.state import load_state
from tests.str_app.training.tiny_run import TINY, encoded, losses, settings_for, weights
from tests.tiny_recognizer import changed

ROOT = Path(__file__).resolve().parents[3]


def stop_at(monkeypatch, step, signum=signal.SIGTERM):
    advance = RunLogger.advance

    def and_stop(self, now):
        advance(self, now)
        if now == step:  # to the workers too, as Ctrl-C and service managers do
            for process in [*multiprocessing.active_children(), multiprocessing.current_process()]:
                os.kill(process.pid, signum)

    monkeypatch.setattr(RunLogger, "advance", and_stop)


@pytest.mark.parametrize(("workers", "parts"), [(0, 1), (1, 1), (0, 2)])
def test_interrupted_and_resumed_equals_uninterrupted(data, tmp_path, monkeypatch, workers, parts):
    settings = settings_for(data, workers=workers, parts=parts, precision="bf16")
    train(settings, tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_at(patch, 3)
        with pytest.raises(Stopped, match="after step 3"):
            train(settings, tmp_path / "parts")
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    train(settings, tmp_path / "parts", resume=True)
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    for name in whole:
        assert torch.equal(whole[name], parts[name]), name
    steps = [json.loads(line)["step"] for line in (tmp_path / "parts/metrics.jsonl").read_text().splitlines()]
    assert steps == [2, 4, 4, 6, 6]


@pytest.mark.parametrize(("processor", "expected"), [("avx512_bf16", "bf16"), ("avx2", "fp32")])
def test_the_processor_decides_the_precision(data, tmp_path, monkeypatch, capsys, processor, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {processor: True}, raising=False)
    enabled = []
    autocast = torch.autocast.__init__

    def noted(self, *arguments, **options):
        enabled.append(options.get("enabled", True))
        autocast(self, *arguments, **options)

    monkeypatch.setattr(torch.autocast, "__init__", noted)
    train(settings_for(data, precision="auto", steps=2, validate_every=2), tmp_path / "run")
    assert f", cpu, {expected}, " in "".join(capsys.readouterr())
    assert any(enabled) is (expected == "bf16")


def test_a_run_learns_and_keeps_its_best(data, tmp_path):
    settings = settings_for(data, steps=60, learning_rate=1e-2, augmentation="none", validate_every=20)
    train(settings, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert losses(tmp_path / "run")[-1] < 0.5 * losses(tmp_path / "run")[0]
    accuracies = [line["accuracy"] for line in lines if "accuracy" in line]
    model, info = load_checkpoint(tmp_path / "run/best.safetensors")
    assert model.charset.characters == "ab"
    reader = Reader(TorchEngine(model, info))
    (source,) = [open_source(Path(path)) for path in settings.validation]
    # While it trains nothing is searched, and the temperature changes no greedy reading.
    greedy = evaluate_source(reader, source, beam=1).score()
    assert greedy.as_json()["accuracy"] == pytest.approx(max(accuracies), abs=0.01)
    assert info["training"]["samples_seen"] in {160, 320, 480}


def assert_same_way(start, expected, actual):
    """Adam turns the sign of a vanishing gradient into a whole step, so single weights may differ: so the ways."""
    for name in expected:
        way = (expected[name].float() - start[name].float()).norm()
        assert (actual[name].float() - expected[name].float()).norm() <= 0.02 * way + 1e-5, name


def test_parts_of_a_batch_train_as_the_whole(data, tmp_path):
    """With batch norms frozen: otherwise each part has statistics of its own."""
    settings = settings_for(data, architecture=changed(TINY, dropout=0.0), steps=4, group=1, augmentation="none")
    train(dataclasses.replace(settings, steps=1), tmp_path / "first")
    begun = dataclasses.replace(settings, start_from=str(tmp_path / "first/last.safetensors"), frozen_stages=3)
    for parts in (1, 4):
        train(dataclasses.replace(begun, parts=parts), tmp_path / str(parts))
    assert losses(tmp_path / "4") == pytest.approx(losses(tmp_path / "1"), rel=1e-4)
    assert_same_way(*(weights(tmp_path / run) for run in ("first", "1", "4")))
    with pytest.raises(StrAppError, match="batch_size=8 is not a multiple of the 1 processes × parts=3"):
        train(dataclasses.replace(begun, parts=3), tmp_path / "3")


def train_in_two(settings, out):
    """The run in two processes of torchrun, over gloo."""
    script, chosen = out.parent / "run_two.py", out.parent / "settings.json"
    save_settings(settings, chosen)
    script.write_text(
        "import sys; from pathlib import Path; from str_app.training.loop import train; "
        "from str_app.training.settings import load_settings; "
        "train(load_settings(Path(sys.argv[1])), Path(sys.argv[2]))"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [str(script), str(chosen), str(out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def test_two_processes_train_as_one(data, tmp_path):
    """torchrun with 2 gloo processes ends with the weights of one process, up to float tolerance.

    Without sorting by width and with crops of one width: each process sorts its own share and takes the narrowest
    canvas for it, so with them the processes see slightly other batches than one does.
    """
    settings = settings_for(data, architecture=changed(TINY, dropout=0.0), steps=4, group=1, augmentation="none")
    train(settings, tmp_path / "one")
    train_in_two(settings, tmp_path / "two")
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)
    train(dataclasses.replace(settings, learning_rate=1e-12), tmp_path / "start")
    assert_same_way(*(weights(tmp_path / run) for run in ("start", "one", "two")))


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_two_processes_that_step_alone_meet_in_their_mean(data, tmp_path, monkeypatch, one_thread, optimizer):
    """Weights, batch norms' statistics and moments are the means of two runs, each on its half of every batch."""
    tiny = changed(TINY, dropout=0.0, hidden_size=40)  # some matrices are large enough for Muon
    settings = settings_for(data, architecture=tiny, steps=2, validation=(), optimizer=optimizer)
    train_in_two(dataclasses.replace(settings, average_every=2, validate_every=2), tmp_path / "two")
    halves = []
    for rank in (0, 1):
        with monkeypatch.context() as patch:
            patch.setattr(loop, "shares_of_groups", lambda *args, rank=rank: shares_of_groups(*args[:4], rank, 2))
            train(settings, tmp_path / str(rank))
        halves.append(load_state(tmp_path / str(rank) / "last.pt"))
    two = load_state(tmp_path / "two/last.pt")
    pairs = [(two["objective"], [half["objective"] for half in halves])]
    for k, member in enumerate(two["optimizers"]):
        states = [half["optimizers"][k]["state"] for half in halves]
        pairs += [(member["state"][key], [state[key] for state in states]) for key in member["state"]]
    differing = 0
    for together, (first, second) in pairs:
        for name, value in together.items():
            if value.is_floating_point():
                differing += not torch.equal(first[name], second[name])
                assert torch.allclose(value, (first[name] + second[name]) / 2, rtol=1e-4, atol=1e-6), name
    assert differing > 50


def test_unusable_samples_are_named_and_counted(data, tmp_path, capfd):
    broken = tmp_path / "broken.lmdb"
    with LmdbWriter(broken) as writer:
        for k in range(24):
            writer.add(encoded(k), "z" if k == 3 else "a" * 40 if k == 5 else "a")
    train(settings_for(broken, validation=(), steps=6), tmp_path / "run")
    said = capfd.readouterr().err
    assert "'z' of 'z' is not in the charset" in said
    assert "40 characters, the model reads at most 32" in said
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["unusable"] == 2  # distinct samples: 48 positions are two rounds over 24 samples
    assert (tmp_path / "run/best.safetensors").is_file()


def test_too_many_unusable_samples_stop_the_run(data, tmp_path):
    settings = settings_for(data, charset="a", validation=(), steps=500, batch_size=24)
    with pytest.raises(StrAppError, match=r"12 of 24 samples are unusable.*'b' of 'ab' is not in"):
        train(settings, tmp_path / "run")


def test_starting_from_other_weights(data, tmp_path):
    train(settings_for(data, steps=2), tmp_path / "first")
    start = str(tmp_path / "first/best.safetensors")
    overrides = ["charset=abc", "preprocessing.widths=64,256", "steps=1", "warmup_steps=1000", "workers=0"]
    settings = make_settings(overrides, train=(str(data),), start_from=start)
    train(settings, tmp_path / "second")
    resumed = make_settings(["steps=2"], base=settings)
    train(resumed, tmp_path / "second", resume=True)
    model, info = load_checkpoint(tmp_path / "second/last.safetensors")
    assert (info["training"]["steps"], info["training"]["before"]["steps"]) == (2, 2)
    assert info["name"] == "second"  # of the folder; the weights are not the preset's any more
    assert "before" not in info["training"]["before"]
    assert model.architecture == TINY
    assert model.charset.characters == "abc"
    assert model.preprocessing.widths == (64, 256)
    before, after = weights(tmp_path / "first", "best.safetensors"), weights(tmp_path / "second")
    torch.testing.assert_close(after["decoder.cell.weight_hh"], before["decoder.cell.weight_hh"], rtol=0, atol=1e-4)
    with pytest.raises(StrAppError, match="brings its own architecture"):
        make_settings(["architecture.decoder.hidden_size=9"], train=(str(data),), start_from=start)
    deeper = tuple(count + 1 for count in TINY.backbone.blocks)
    blocks = "architecture.backbone.blocks=" + ",".join(map(str, deeper))
    larger = [blocks, "architecture.backbone.fpn=true", "architecture.decoder.positional_glimpse=true"]
    grown = make_settings(larger, train=(str(data),), start_from=start)
    assert grown.architecture == changed(TINY, blocks=deeper, fpn=True, positional_glimpse=True)
    without = make_settings(["architecture.decoder.dropout=0"], train=(str(data),), start_from=start)
    assert without.architecture == changed(TINY, dropout=0.0)


@pytest.mark.parametrize("train_frozen", [train, train_in_two])
def test_frozen_stages_stay_as_they_are(data, tmp_path, train_frozen):
    train(settings_for(data, steps=2), tmp_path / "first")
    start = str(tmp_path / "first/best.safetensors")
    settings = make_settings(["frozen_stages=2", "steps=3", "workers=0"], train=(str(data),), start_from=start)
    train_frozen(settings, tmp_path / "second")
    before, after = weights(tmp_path / "first", "best.safetensors"), weights(tmp_path / "second")
    kept = {name for name in before if torch.equal(before[name], after[name])}
    frozen = ("backbone.stem.", "backbone.stages.0.", "backbone.stages.1.")  # a block a stage
    assert {name for name in before if name.startswith(frozen)} <= kept
    learnt = {name for name in before if name.startswith("backbone.stages.2.")}
    assert not learnt & kept


def test_a_run_is_not_overwritten(data, tmp_path):
    train(settings_for(data, steps=1), tmp_path / "run")
    with pytest.raises(StrAppError, match="--resume"):
        train(settings_for(data), tmp_path / "run")
    with pytest.raises(StrAppError, match="all 1 steps are done"):
        train(settings_for(data, steps=1), tmp_path / "run", resume=True)


@pytest.mark.parametrize("cut", [0, 100, -10])
def test_damaged_state_is_named(data, tmp_path, cut):
    train(settings_for(data, steps=1), tmp_path / "run")
    state = tmp_path / "run/last.pt"
    state.write_bytes(state.read_bytes()[:cut])
    with pytest.raises(StrAppError, match=r"last\.pt: damaged"):
        train(settings_for(data), tmp_path / "run", resume=True)


def test_learning_rate_rises_and_falls():
    settings = TrainSettings(steps=1000, warmup_steps=100, learning_rate=1.0)
    assert schedule(0, settings) == pytest.approx(0.01)
    assert schedule(99, settings) == schedule(100, settings) == pytest.approx(1.0)
    assert schedule(325, settings) == pytest.approx(0.01 + 0.99 * (2 + 2**0.5) / 4)  # a quarter of the way
    assert schedule(550, settings) == pytest.approx(0.505)
    assert schedule(1000, settings) == pytest.approx(0.01)


def test_a_constant_rate_falls_at_last():
    settings = TrainSettings(steps=1000, warmup_steps=100, schedule="constant")
    assert schedule(49, settings) == pytest.approx(0.5)
    assert {schedule(step, settings) for step in (100, 500, 800)} == {1.0}
    assert schedule(900, settings) == pytest.approx(0.505)
    assert schedule(1000, settings) == pytest.approx(0.01)
    assert [constant(step, 1000, 100, cooling=0.0) for step in (100, 999)] == [1.0, 1.0]
    # Longer by the time it is resumed: still at its peak.
    assert schedule(900, dataclasses.replace(settings, steps=2000)) == 1.0
