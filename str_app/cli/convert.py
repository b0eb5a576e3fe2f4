"""The verb `convert`: bring a data set in its own layout into an LMDB."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

NAMED_PLACES = 3


def convert(
    kind: Annotated[str, typer.Argument(help="folder, iiit5k, svt, ic13, ic15, svtp, cute80, mjsynth or synthtext.")],
    source: Annotated[Path, typer.Argument(help="The data set as unpacked; for `folder` also the list of labels.")],
    out: Annotated[Path, typer.Option(help="LMDB to write; must not exist.")],
    split: Annotated[str | None, typer.Option(help="train, val or test, where the data set has several.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the LMDB at --out.")] = False,
    max_skipped: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of unusable records above which nothing is written.")
    ] = 0.05,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object.")] = False,
) -> None:
    """Convert a data set to an LMDB, images byte for byte; bad records are left out, counted and named.

    Example: str-app convert folder my_crops --out runs/my_crops.lmdb
    """
    from str_app.datasets.converters import READERS
    from str_app.datasets.converters.conversion import convert as convert_to_lmdb

    if kind not in READERS:
        raise typer.BadParameter(f"{kind!r} is none of {', '.join(READERS)}", param_hint="KIND")
    with _progress() as progress:
        summary = convert_to_lmdb(
            kind, source, out, split=split, overwrite=overwrite, max_skipped=max_skipped, progress=progress
        )
    if as_json:
        typer.echo(json.dumps({"out": str(out), "written": summary.written, "skipped": summary.skipped}))
        return
    typer.echo(f"{out}: {summary.written} samples written, {sum(map(len, summary.skipped.values()))} skipped")
    for reason, places in summary.skipped.items():
        more = ", …" if len(places) > NAMED_PLACES else ""
        typer.echo(f"  {len(places)} {reason}: {', '.join(places[:NAMED_PLACES])}{more}")


@contextmanager
def _progress() -> Iterator[Callable[[int, int | None], None]]:
    """On stderr: a bar on a terminal, else plain lines, a tenth of the records or at least a thousand apart."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if console.is_terminal:
        columns = (TextColumn("converting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("converting", total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
        return

    def line(done: int, total: int | None) -> None:
        if done % (max(1000, total // 10) if total else 100_000) == 0:
            typer.echo(f"{done} of {total} records" if total else f"{done} records", err=True)

    yield line
