"""What a run does when something goes wrong: NaN, unusable data, kills, full disks."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from str_app.datasets.lmdb_writer import LmdbWriter
from str_app.datasets.sample import DataError
from str_app.errors import StrAppError
from str_app.models.checkpoint import load_checkpoint
from str_app.training import loop
from str_app.training.loop import train
from str_app.training.objective import Objective
from str_app.training.optimizers import Optimizers
from str_app.training.run_logger import HEARTBEAT, RunLogger, read_metrics
from str_app.training.state import load_state, stop_signals
from tests.str_app.training.tiny_run import encoded, settings_for, weights
from tests.tiny_recognizer import tiny_config


def each_step(monkeypatch: pytest.MonkeyPatch, change: Callable[[int, Objective, torch.Tensor], torch.Tensor]) -> None:
    """Replace the losses of step 1, 2, … of the next run by `change(step, objective, losses)`."""
    forward, steps = Objective.forward, iter(range(1, 1000))
    monkeypatch.setattr(Objective, "forward", lambda self, *batch: change(next(steps), self, forward(self, *batch)))


def test_a_step_without_finite_gradients_is_skipped(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def spoil(step: int, objective: Objective, losses: torch.Tensor) -> torch.Tensor:
        if step != 3:
            return losses
        next(iter(objective.model.buffers())).data.fill_(torch.nan)  # statistics of a batch norm
        return losses * torch.nan

    each_step(monkeypatch, spoil)
    train(settings_for(data), tmp_path / "run")
    assert "step 3 skipped: loss or gradients are NaN or infinite (1 in a row)" in capfd.readouterr().err
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path / "run").values())
    assert [values["step"] for values in read_metrics(tmp_path / "run")] == [2, 4, 4, 6, 6]


def test_settings_that_cannot_be_used_do_not_replace_those_of_a_run(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(settings_for(data, steps=2), run)
    before = (run / "settings.json").read_text()
    for changes in ({"train": (str(tmp_path / "typo.lmdb"),)}, {"architecture": tiny_config(hidden_size=6)}):
        with pytest.raises((StrAppError, DataError)):
            train(settings_for(data, steps=4, **changes), run, resume=True)
        assert (run / "settings.json").read_text() == before
    train(settings_for(data, steps=4), run, resume=True)
    assert json.loads((run / "settings.json").read_text())["steps"] == 4


def test_a_run_that_stays_nan_stops_and_keeps_its_last_good_state(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        each_step(patch, lambda step, _, losses: losses * (torch.nan if step > 5 else 1))
        with pytest.raises(StrAppError, match=r"loss is NaN or infinite at step 15: .* keeps last\.pt, .* from before"):
            train(settings_for(data, steps=40), run)
    assert load_state(run / "last.pt")["step"] == 12  # of the validation; nothing changed since step 5
    load_checkpoint(run / "best.safetensors")
    train(settings_for(data, steps=14), run, resume=True)
    assert all(tensor.isfinite().all() for tensor in weights(run).values())


def test_nan_weights_never_replace_good_ones(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, step = tmp_path / "run", Optimizers.step
    calls = iter(range(1, 1000))

    def spoil(self: Optimizers) -> None:
        step(self)
        if next(calls) == 8:
            with torch.no_grad():
                self._groups()[0]["params"][0].fill_(torch.inf)

    monkeypatch.setattr(Optimizers, "step", spoil)
    with pytest.raises(StrAppError, match=r"weights are NaN or infinite at step 8: .*keeps last\.pt"):
        train(settings_for(data, steps=20), run)
    assert load_state(run / "last.pt")["step"] == 4
    assert all(tensor.isfinite().all() for tensor in weights(run).values())


@pytest.fixture
def without_image(tmp_path: Path) -> Path:
    with LmdbWriter(tmp_path / "broken.lmdb") as writer:
        for _ in range(4):
            writer.add(b"no image", "ab")
    return tmp_path / "broken.lmdb"


@pytest.mark.parametrize("part", ["train", "validation"])
def test_data_of_another_charset_is_noticed_before_the_first_step(data: Path, tmp_path: Path, part: str) -> None:
    other = tmp_path / "digits.lmdb"
    with LmdbWriter(other) as writer:
        for number in range(5):
            writer.add(encoded(number), str(number))
    with pytest.raises(StrAppError, match=r"digits: none of the 5 labels checked is usable: '0' of '0' .*--charset"):
        train(settings_for(data, **{part: (str(other),)}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("part", ["train", "validation"])
def test_data_without_a_readable_image_is_noticed_before_the_first_step(
    data: Path, without_image: Path, tmp_path: Path, part: str
) -> None:
    with pytest.raises(StrAppError, match="broken: none of the 4 images checked can be decoded"):
        train(settings_for(data, **{part: (str(without_image),)}), tmp_path / "run")


def test_validation_labels_may_differ_in_case(data: Path, tmp_path: Path) -> None:
    with LmdbWriter(tmp_path / "capitals.lmdb") as writer:
        writer.add(encoded(7), "A-B")
    train(settings_for(data, steps=1, validation=(str(tmp_path / "capitals.lmdb"),)), tmp_path / "run")


def test_a_state_is_written_at_once_and_before_each_validation(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    save_state = loop.save_state

    def note(path: Path, state: dict[str, Any]) -> None:
        written.append(state["step"])
        save_state(path, state)

    monkeypatch.setattr(loop, "save_state", note)
    train(settings_for(data), tmp_path / "seldom")
    assert written == [0, 4, 6, 6]  # before validating, and at the end
    written.clear()
    monkeypatch.setattr(loop, "FIRST_STATE", 0.0)
    train(settings_for(data), tmp_path / "often")
    assert written == [0, 1, 2, 3, 4, 5, 6, 6]


@pytest.mark.parametrize("step", [4, 6])
def test_a_run_killed_while_validating_validates_again(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    settings = settings_for(data)
    train(settings, tmp_path / "whole")
    advance = RunLogger.metrics

    def killed(self: RunLogger, now: int, values: dict[str, float], summary: str) -> None:
        advance(self, now, values, summary)
        if now == step and "accuracy" in values:
            raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(RunLogger, "metrics", killed)
        with pytest.raises(MemoryError):
            train(settings, tmp_path / "parts")
    assert load_state(tmp_path / "parts/last.pt")["step"] == step
    train(settings, tmp_path / "parts", resume=True)
    whole, parts = (read_metrics(tmp_path / name) for name in ("whole", "parts"))
    assert [(v["step"], v.get("accuracy")) for v in parts] == [(v["step"], v.get("accuracy")) for v in whole]
    assert (
        load_checkpoint(tmp_path / "parts/best.safetensors")[1]
        == load_checkpoint(tmp_path / "whole/best.safetensors")[1]
    )
    with pytest.raises(StrAppError, match="all 6 steps are done"):
        train(settings, tmp_path / "parts", resume=True)


@pytest.mark.parametrize("name", ["last.pt", "last.safetensors"])
def test_a_full_disk_names_the_file(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def full(path: Path, content: bytes) -> None:
        if path.name == name:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("str_app.training.state.replace_file", full)
    monkeypatch.setattr("str_app.models.checkpoint.replace_file", full)
    with pytest.raises(StrAppError, match=rf"run/{name}: cannot be written: No space left .*; the previous version"):
        train(settings_for(data), tmp_path / "run")


def test_a_new_run_removes_the_events_of_one_killed_before_its_first_state(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    stale = tmp_path / "run/tensorboard/events.out.tfevents.1.host"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"stale")
    with RunLogger(tmp_path / "run", 0, 10, quiet=False):
        pass
    assert not stale.exists()
    with RunLogger(tmp_path / "run", 5, 10, quiet=False):  # a resumed run continues them
        pass
    assert len(list(stale.parent.iterdir())) == 2


def test_a_pipe_gets_a_line_every_half_minute(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    with RunLogger(tmp_path, 0, 100, quiet=False, clock=lambda: now) as logger:
        for step in range(1, 7):
            now += HEARTBEAT / 3
            logger.advance(step)
    assert capfd.readouterr().err.splitlines() == ["step 3/100  16 min left", "step 6/100  16 min left"]


def test_states_of_earlier_versions_are_continued(data: Path, tmp_path: Path) -> None:
    train(settings_for(data, steps=2), tmp_path / "run")
    state = load_state(tmp_path / "run/last.pt")
    del state["usage"], state["pending"]
    torch.save(state | {"seen": 16, "unusable": 0}, tmp_path / "run/last.pt")
    train(settings_for(data, steps=4), tmp_path / "run", resume=True)
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["step"] == 4


def test_steps_that_are_skipped_now_and_then_do_not_end_a_run(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "MAX_SKIPPED", 2)
    each_step(monkeypatch, lambda step, _, losses: losses * (torch.nan if step % 2 else 1))
    train(settings_for(data, validation=()), tmp_path / "run")
    assert load_state(tmp_path / "run/last.pt")["step"] == 6


def test_a_second_signal_ends_the_process_at_once() -> None:
    usual = signal.getsignal(signal.SIGINT)
    with stop_signals() as received:
        signal.raise_signal(signal.SIGINT)
        assert received == [signal.SIGINT]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)  # the first of its kind
    assert received == [signal.SIGINT, signal.SIGTERM]
    assert signal.getsignal(signal.SIGINT) == usual


def test_a_closed_terminal_is_noted_and_what_is_ignored_stays_ignored() -> None:
    with stop_signals() as received:
        signal.raise_signal(signal.SIGHUP)
        assert received == [signal.SIGHUP]
    usual = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with stop_signals() as received:
            signal.raise_signal(signal.SIGHUP)
            assert received == []
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, usual)


def test_weights_of_a_run_whose_state_is_gone_are_not_overwritten(data: Path, tmp_path: Path) -> None:
    train(settings_for(data), tmp_path / "run")
    (tmp_path / "run/last.pt").unlink()
    best, logged = ((tmp_path / "run" / name).read_bytes() for name in ("best.safetensors", "metrics.jsonl"))
    with pytest.raises(StrAppError, match=r"run contains the weights of a run, best\.safetensors, without its state"):
        train(settings_for(data), tmp_path / "run")
    assert (tmp_path / "run/best.safetensors").read_bytes() == best
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == logged
