"""The verb `convert`: bring a data set in its own layout into an LMDB."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from str_app.cli.printing import write, write_line
from str_app.cli.progress import ProgressBar
from str_app.datasets.converters import CONVERTERS

Layout = StrEnum("Layout", {name: name for name in CONVERTERS})  # type: ignore[misc] # names from the table
NAMED_RECORDS = 3  # examples listed for each reason to skip


def convert(
    kind: Annotated[Layout, typer.Argument(help="Layout of the data set.")],
    source: Annotated[Path, typer.Argument(help="The unpacked data set; for `folder`, also its list of labels.")],
    out: Annotated[Path, typer.Option(help="LMDB to write; must not exist.")],
    split: Annotated[
        str | None, typer.Option(help="train, val or test, for data sets that have more than one.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the LMDB at --out.")] = False,
    max_skipped: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Write nothing if more than this share of the records is unusable.")
    ] = 0.05,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object.")] = False,
) -> None:
    """Convert a data set to an LMDB, keeping the image files' bytes; unusable records are skipped and listed.

    Example: str-app convert folder my_crops --out runs/my_crops.lmdb
    """
    from str_app.datasets.converters.conversion import convert as convert_to_lmdb

    with ProgressBar("converting", unit="records") as progress:
        summary = convert_to_lmdb(
            str(kind), source, out, split=split, overwrite=overwrite, max_skipped=max_skipped, progress=progress.update
        )
    if as_json:
        write(json.dumps({"out": str(out), "written": summary.written, "skipped": summary.skipped}))
        return
    write_line(f"{out}: {summary.written} samples written, {sum(map(len, summary.skipped.values()))} skipped")
    for reason, records in summary.skipped.items():
        more = ", …" if len(records) > NAMED_RECORDS else ""
        write_line(f"  {len(records)} {reason}: {', '.join(records[:NAMED_RECORDS])}{more}")
