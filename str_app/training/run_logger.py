"""What a run says while it goes: a progress bar or plain lines, metrics.jsonl, TensorBoard."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from str_app.models.checkpoint import replace_file

METRICS = "metrics.jsonl"


def read_metrics(out: Path) -> list[dict[str, Any]]:
    """What the run under `out` has logged, a mapping for each line, oldest first; nothing where no run began.

    The last line of a run that was killed may be half; it is left out.
    """
    path = out / METRICS
    logged = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        with contextlib.suppress(json.JSONDecodeError):
            logged.append(json.loads(line))
    return logged


class RunLogger:
    """Writes metrics under `out`; use it as a context manager.

    Args:
        out: the run's folder.
        first_step: metrics from this step on are dropped from an earlier, interrupted part of the run.
        steps: of the whole run.
        quiet: say and write nothing (processes other than the main one).
    """

    def __init__(self, out: Path, first_step: int, steps: int, quiet: bool) -> None:
        self._out = out
        self._first_step = first_step
        self._steps = steps
        self._quiet = quiet
        self._started = time.monotonic()
        self._stack = contextlib.ExitStack()
        self._progress: Progress | None = None
        self._writer: Any = None

    def __enter__(self) -> RunLogger:
        if self._quiet:
            return self
        self._lines = self._stack.enter_context(self._open_lines())
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self.say("tensorboard is not installed (extra `train`): metrics go to metrics.jsonl alone")
        else:
            writer = SummaryWriter(str(self._out / "tensorboard"), purge_step=self._first_step)
            self._writer = writer
            self._stack.callback(writer.close)
        if sys.stderr.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            self._progress = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn())
            self._task = self._progress.add_task("training", total=self._steps, completed=self._first_step)
            self._stack.enter_context(self._progress)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def _open_lines(self) -> TextIO:
        kept = [values for values in read_metrics(self._out) if values["step"] <= self._first_step]
        path = self._out / METRICS
        replace_file(path, "".join(json.dumps(values) + "\n" for values in kept).encode())  # a kill now loses nothing
        return path.open("a", encoding="utf-8")

    def advance(self, step: int) -> None:
        """Move the bar."""
        if self._progress is not None:
            self._progress.update(self._task, completed=step)

    def metrics(self, step: int, values: dict[str, float], summary: str) -> None:
        """Record numbers of a step, and say `summary` with the time left."""
        if self._quiet:
            return
        self._lines.write(json.dumps({"step": step, **{key: round(value, 6) for key, value in values.items()}}) + "\n")
        self._lines.flush()
        if self._writer is not None:
            for key, value in values.items():
                self._writer.add_scalar(key, value, step)
        if self._progress is not None:
            self._progress.update(self._task, description=summary)
        else:
            elapsed = time.monotonic() - self._started
            left = elapsed / max(step - self._first_step, 1) * (self._steps - step)
            self.say(f"step {step}/{self._steps}  {summary}  {left / 60:.0f} min left")

    def say(self, line: str) -> None:
        """A line for people."""
        if self._quiet:
            return
        if self._progress is not None:
            self._progress.console.print(line, highlight=False, markup=False)
        else:
            print(line, file=sys.stderr, flush=True)
