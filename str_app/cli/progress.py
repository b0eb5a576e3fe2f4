"""Progress of a long command, on standard error."""

from __future__ import annotations

import time
from contextlib import ExitStack
from datetime import timedelta

import typer

from str_app.cli.printing import printable

MIN_LINE_DISTANCE = 1000  # items; more lines would hide the messages that matter
UNKNOWN_TOTAL_DISTANCE = 100_000


class ProgressBar:
    """A progress bar on a terminal; elsewhere a plain line after each tenth of the items (at least 1,000 apart).

    Args:
        description: shown beside the bar.
        total: number of items; None while it is unknown.
        unit: plural noun for the items, as in "1000 of 5000 crops".
        rate: show items per second too, and the time left where there is no bar to show it.
    """

    def __init__(self, description: str, total: int | None = None, unit: str = "crops", *, rate: bool = False) -> None:
        self._description, self._total, self._unit, self._rate = printable(description), total, unit, rate
        self._done = 0
        self._lines = 0
        self._stack = ExitStack()

    def __enter__(self) -> ProgressBar:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            ProgressColumn,
            TextColumn,
            TimeRemainingColumn,
        )

        console = Console(stderr=True)
        self._bar = None
        self._started = time.monotonic()
        if console.is_terminal:
            named = TextColumn("{task.description}", markup=False)  # brackets in a name are no styles
            columns: list[ProgressColumn] = [named, BarColumn(), MofNCompleteColumn()]
            if self._rate:
                columns.append(TextColumn("{task.fields[rate]}"))
            columns.append(TimeRemainingColumn())
            self._bar = self._stack.enter_context(Progress(*columns, console=console, transient=True))
            self._task = self._bar.add_task(self._description, total=self._total, rate="")
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def advance(self, count: int = 1) -> None:
        """Count `count` more items as done."""
        self.update(self._done + count, self._total)

    def update(self, done: int, total: int | None = None) -> None:
        """Set the number of items done; `total` replaces the total if it is given."""
        self._done, self._total = done, self._total if total is None else total
        rate = done / max(time.monotonic() - self._started, 1e-9)
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=self._total, rate=f"{rate:.0f} {self._unit}/s")
            return
        distance = max(MIN_LINE_DISTANCE, self._total // 10) if self._total else UNKNOWN_TOTAL_DISTANCE
        if done // distance > self._lines:
            self._lines = done // distance
            of_total = f" of {self._total}" if self._total else ""
            speed = f", {rate:.0f}/s" if self._rate else ""
            if self._rate and self._total and done < self._total:
                speed += f", {timedelta(seconds=round((self._total - done) / rate))} left"
            typer.echo(f"{done}{of_total} {self._unit}{speed}", err=True)
