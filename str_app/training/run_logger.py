"""The log of a run: a progress bar or plain lines, metrics.jsonl, TensorBoard."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from str_app.datasets.text_files import parse_json
from str_app.models.checkpoint import replace_file
from str_app.training.state import naming

METRICS = "metrics.jsonl"
CPU_SECONDS = "cpu_seconds_per_step"  # a metric
HEARTBEAT = 30.0  # seconds; without a terminal, no longer silence than this


def read_metrics(out: Path) -> list[dict[str, Any]]:
    """The metrics that the run in `out` has logged, oldest first; empty if there is no run.

    An incomplete last line, which a killed run may leave, is skipped.
    """
    path = out / METRICS
    logged = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        with contextlib.suppress(ValueError):
            logged.append(parse_json(line))
    return logged


def open_metrics(out: Path, step: int, revalidate: bool = False) -> TextIO:
    """The metrics of the run in `out`, which goes on after `step`, to append to; those of later steps are removed.

    Args:
        out: the run's folder.
        step: of the state from which the run continues; 0 for a new run.
        revalidate: also remove the validation metrics of `step`.

    Raises:
        StrAppError: the file cannot be written.
    """

    def is_kept(values: dict[str, Any]) -> bool:
        repeated = revalidate and values["step"] == step and "accuracy" in values
        return values["step"] <= step and not repeated

    path = out / METRICS
    kept = "".join(json.dumps(values) + "\n" for values in read_metrics(out) if is_kept(values))
    with naming(path):
        replace_file(path, kept.encode())  # atomic: a kill at this moment loses nothing
        return path.open("a", encoding="utf-8")


@dataclass
class RunLogger:
    """Logs a run in `out`; a context manager.

    Attributes:
        out: the run's folder.
        first_step: step of the state from which the run continues, 0 for a new run. Metrics of later steps, from an
            interrupted part of the run, are removed.
        steps: number of steps of the whole run.
        quiet: print and write nothing; for all processes but the main one.
        revalidate: also remove the validation metrics of `first_step`, which will be validated again.
        clock: seconds, for the time left and the heartbeat.
    """

    out: Path
    first_step: int
    steps: int
    quiet: bool
    revalidate: bool = False
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._started = self._last_line = self.clock()
        self._stack = contextlib.ExitStack()
        self._progress: Progress | None = None
        self._writer: Any = None

    def __enter__(self) -> RunLogger:
        if self.quiet:
            return self
        self._lines = self._stack.enter_context(open_metrics(self.out, self.first_step, self.revalidate))
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self.say("tensorboard is not installed (extra `train`): metrics are written to metrics.jsonl only")
        else:
            folder = self.out / "tensorboard"
            if self.first_step == 0:  # events of a run that was killed before its first step
                for events in folder.glob("events.out.tfevents.*"):
                    events.unlink()
            writer = SummaryWriter(str(folder), purge_step=self.first_step + 1)
            self._writer = writer
            self._stack.callback(writer.close)
        if sys.stderr.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            self._progress = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn())
            self._task = self._progress.add_task("training", total=self.steps, completed=self.first_step)
            self._stack.enter_context(self._progress)
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(OSError):  # the terminal of the progress bar may be closed
            self._stack.close()

    def advance(self, step: int) -> None:
        """Report that `step` steps are done."""
        if self._progress is not None:
            self._progress.update(self._task, completed=step)
        self.heartbeat(f"step {step}/{self.steps}  {self._minutes_left(step):.0f} min left")

    def metrics(self, step: int, values: dict[str, float], summary: str) -> None:
        """Record the metrics of a step, and print `summary` with the time left."""
        if self.quiet:
            return
        line = {"step": step, **{key: round(value, 6) for key, value in values.items()}}
        with naming(self.out / METRICS):
            self._lines.write(json.dumps(line) + "\n")
            self._lines.flush()
        if self._writer is not None:
            for key, value in values.items():
                self._writer.add_scalar(key, value, step)
        if self._progress is not None:
            self._progress.update(self._task, description=summary)
        else:
            self.say(f"step {step}/{self.steps}  {summary}  {self._minutes_left(step):.0f} min left")

    def heartbeat(self, line: str) -> None:
        """Print `line` if there is no progress bar and nothing has been printed for `HEARTBEAT` seconds."""
        if self._progress is None and self.clock() - self._last_line >= HEARTBEAT:
            self.say(line)

    def say(self, line: str) -> None:
        """Print a line, if standard error can be written: a run outlives its terminal."""
        if self.quiet:
            return
        self._last_line = self.clock()
        with contextlib.suppress(OSError):
            if self._progress is not None:
                self._progress.console.print(line, highlight=False, markup=False)
            else:
                print(line, file=sys.stderr, flush=True)

    def _minutes_left(self, step: int) -> float:
        elapsed = self.clock() - self._started
        return elapsed / max(step - self.first_step, 1) * (self.steps - step) / 60
