"""A run's log."""

import errno
import io
import sys
from pathlib import Path

import pytest

from str_app.training.run_logger import METRICS, RunLogger, read_metrics


def test_a_killed_run_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    """What was logged after the checkpoint, and damaged lines, give way to what is logged anew."""
    assert read_metrics(tmp_path) == []
    with RunLogger(tmp_path, 0, 40, quiet=False) as logger:
        for step in (10, 20, 30):
            logger.metrics(step, {"loss": step / 7}, "")
    with (tmp_path / METRICS).open("a") as lines:
        lines.write("[" * 100_000 + '\n{"step": 40, "lo')
    assert [values["step"] for values in read_metrics(tmp_path)] == [10, 20, 30]
    with RunLogger(tmp_path, 20, 40, quiet=False) as logger:
        assert [values["step"] for values in read_metrics(tmp_path)] == [10, 20]  # on the disk already
        logger.metrics(30, {"loss": 1.0}, "")
    assert read_metrics(tmp_path) == [
        {"step": 10, "loss": round(10 / 7, 6)},
        {"step": 20, "loss": round(20 / 7, 6)},
        {"step": 30, "loss": 1.0},
    ]


def test_the_time_left_of_a_resumed_run_is_by_its_own_steps(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    with RunLogger(tmp_path, 50, 100, quiet=False, clock=lambda: now) as logger:
        now = 600.0
        logger.metrics(60, {"loss": 1.0}, "loss 1")
    assert "step 60/100  loss 1  40 min left" in capfd.readouterr().err


def test_a_terminal_that_was_closed_ends_no_run(tmp_path, monkeypatch):
    class Closed(io.StringIO):
        def write(self, text):
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(sys, "stderr", Closed())
    with RunLogger(tmp_path, 0, 10, quiet=False) as logger:
        logger.say("lost")
        logger.metrics(1, {"loss": 0.5}, "loss 0.5")
    assert [values["step"] for values in read_metrics(tmp_path)] == [1]
