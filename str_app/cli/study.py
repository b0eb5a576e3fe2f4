"""The verb `study`: refined gates beside vanilla ones and the usual baselines."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from str_app.cli import options
from str_app.errors import StrAppError

_GATES = ("none", "add", "mul", "add-sigmoid", "mul-sigmoid", "ur", "chrono")


def study(
    name: Annotated[str, typer.Argument(help="Name of the study. Without a name, all studies are listed.")] = "",
    out: Annotated[
        Path | None, typer.Option(help="Folder of the report. Default: runs/study-NAME, or runs/study-NAME-quick.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Small networks and short runs: minutes, but inconclusive.")
    ] = False,
    paper_scale: Annotated[
        bool,
        typer.Option("--paper-scale", help="Networks and runs as large as usual in papers: hours to days."),
    ] = False,
    unit: options.Units = None,
    gates: Annotated[list[str] | None, options.choices("Kind of gates", _GATES)] = None,
    length: Annotated[
        list[int] | None,
        typer.Option(min=5, help="Replaces the study's own T, n, delay or BPTT length; repeatable."),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Runs of each variant. Default: the study's own, 1 to 5.")
    ] = None,
    data: Annotated[
        Path,
        typer.Option(help="Folder with ptb/, wikitext-2/, tinyshakespeare.txt, or with train/ and validation/."),
    ] = Path("corpora"),
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes of one thread each. Default: one per core.")
    ] = None,
) -> None:
    """Train every unit with every kind of gates on one task, and report. After an interruption, run it again.

    Example: str-app study adding --quick
    """
    from str_app.cpu import usable_cores
    from str_app.study.report import write_report
    from str_app.study.running import Plan, run_study
    from str_app.study.studies import SCALES, STUDIES, Scale
    from str_app.study.variants import all_variants

    if not name:
        for study_name, listed in STUDIES.items():
            typer.echo(f"{study_name:22} {listed.about}")
        return
    if name not in STUDIES:
        raise typer.BadParameter(f"{name!r} is not one of {', '.join(STUDIES)}", param_hint="NAME")
    if quick and paper_scale:
        raise typer.BadParameter("cannot be combined with --paper-scale", param_hint="--quick")
    chosen = STUDIES[name]
    units, kinds = _offered(unit, chosen.units, "--unit"), _offered(gates, chosen.gates, "--gates")
    if find_spec("scipy") is None:  # hours before the report asks for it
        raise StrAppError("scipy is not installed: pip install 'str-app[train]'")
    scale: Scale = "quick" if quick else "paper" if paper_scale else "default"
    count = seeds or chosen.seeds[SCALES.index(scale)]
    folder = out or Path("runs") / (f"study-{name}" if scale == "default" else f"study-{name}-{scale}")
    if folder.exists() and not folder.is_dir():
        raise StrAppError(f"--out {folder} is a file; give a folder")
    plan = Plan(name, scale, data, tuple(dict.fromkeys(length or ())), folder)
    variants = all_variants(units, kinds)
    if not variants:
        raise typer.BadParameter(f"{', '.join(kinds)}: only for --unit MGU", param_hint="--gates")
    results = run_study(
        plan,
        variants,
        count,
        workers or usable_cores(),
        lambda line: typer.echo(line, err=True),
    )
    command = shlex.join(["str-app", *sys.argv[1:]])
    files = write_report(folder, chosen.about, command, results)
    typer.echo(files[0].read_text(encoding="utf-8"))
    typer.echo(f"{len(files)} files in {folder}", err=True)


def _offered(given: Sequence[Any] | None, offered: tuple[Any, ...], option: str) -> tuple[Any, ...]:
    """The values given, or all that the study offers; a study may offer fewer than the option accepts."""
    for value in given or []:
        if value not in offered:
            raise typer.BadParameter(f"{value!r} is not one of {', '.join(offered)}", param_hint=option)
    return tuple(dict.fromkeys(given)) if given else offered  # repeated, its seeds would count twice
