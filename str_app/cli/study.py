"""The verb `study`: the paper's comparisons, and the field's baselines beside them."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from str_app.errors import StrAppError


def study(
    name: Annotated[str, typer.Argument(help="Which; without a name, all are listed.")] = "",
    out: Annotated[Path | None, typer.Option(help="Folder of the report; default: runs/study-NAME.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Small and short: minutes; tells little.")] = False,
    paper_scale: Annotated[bool, typer.Option("--paper-scale", help="Large and long: hours to days.")] = False,
    unit: Annotated[list[str] | None, typer.Option(help="LSTM, GRU or MGU; may be repeated. Default: all.")] = None,
    gates: Annotated[
        list[str] | None, typer.Option(help="none, add, mul, ur or chrono; may be repeated. Default: all.")
    ] = None,
    length: Annotated[
        list[int] | None, typer.Option(min=5, help="T, n, delay or bptt in place of the study's own; may be repeated.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Runs of each; default 3, 2 with --quick.")] = None,
    data: Annotated[
        Path,
        typer.Option(help="Folder of the corpora ptb/, wikitext-2/, tinyshakespeare.txt, or of train/, validation/."),
    ] = Path("corpora"),
    workers: Annotated[int | None, typer.Option(min=1, help="Processes, one thread each; default: the cores.")] = None,
) -> None:
    """Train every unit with every kind of gates on one task, and report. Interrupted, the same command goes on.

    Example: str-app study adding --quick
    """
    from str_app.cpu import usable_cores
    from str_app.study.report import write_report
    from str_app.study.running import Plan, run_study
    from str_app.study.studies import SCALES, STUDIES, Scale
    from str_app.study.variants import all_variants

    if not name:
        for known, one in STUDIES.items():
            typer.echo(f"{known:15} {one.about}")
        return
    if name not in STUDIES:
        raise typer.BadParameter(f"{name!r} is none of {', '.join(STUDIES)}", param_hint="NAME")
    if quick and paper_scale:
        raise typer.BadParameter("not together with --paper-scale", param_hint="--quick")
    chosen = STUDIES[name]
    units, kinds = _known(unit, chosen.units, "--unit"), _known(gates, chosen.gates, "--gates")
    scale: Scale = "quick" if quick else "paper" if paper_scale else "default"
    count = seeds or chosen.seeds[SCALES.index(scale)]
    folder = out or Path("runs") / f"study-{name}"
    if folder.exists() and not folder.is_dir():
        raise StrAppError(f"{folder} is a file: give --out a folder")
    plan = Plan(name, scale, data, tuple(length or ()), folder)
    results = run_study(
        plan,
        all_variants(units, kinds),
        count,
        workers or usable_cores(),
        lambda line: typer.echo(line, err=True),
    )
    command = shlex.join(["str-app", *sys.argv[1:]])
    files = write_report(folder, chosen.about, command, results)
    typer.echo(files[0].read_text(encoding="utf-8"))
    typer.echo(f"{len(files)} files in {folder}", err=True)


def _known(given: list[str] | None, known: tuple[Any, ...], option: str) -> tuple[Any, ...]:
    for value in given or []:
        if value not in known:
            raise typer.BadParameter(f"{value!r} is none of {', '.join(known)}", param_hint=option)
    return tuple(given) if given else known
