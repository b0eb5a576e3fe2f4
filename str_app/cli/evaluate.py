"""The verb `evaluate`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from str_app.engines import precision as precisions
from str_app.errors import StrAppError

if TYPE_CHECKING:
    from str_app.evaluation.protocol import Protocol, SetResult
    from str_app.evaluation.sources import TestSet
    from str_app.reader import Reader


def evaluate(
    data: Annotated[
        list[Path],
        typer.Option(
            help="A data set, or a directory of them: LMDBs, or folders with images/ and labels.tsv "
            "(and subset_*.txt, lexicon50.tsv). May be given several times."
        ),
    ],
    model: Annotated[str, typer.Option(help="A name that `str-app models` lists, or a checkpoint file.")] = "small",
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the numbers here.")] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Write a page with the worst mistakes here.")
    ] = None,
    plots: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the plots of confidence here, as SVG.")
    ] = None,
    mistakes: Annotated[int, typer.Option(min=0, help="Mistakes per data set in the report.")] = 24,
    protocol: Annotated[
        str | None,
        typer.Option(
            metavar="field|unicode",
            help="What is compared: [0-9a-z] after NFKD, or letters and digits of every script. By default the first "
            "for models that read ASCII alone, else the second.",
        ),
    ] = None,
    lexicon50: Annotated[bool, typer.Option(help="Choose from each image's 50 words where the set has them.")] = False,
    beam: Annotated[
        int | None, typer.Option(min=1, help="Readings kept while an unsure one is searched; 1: none [default: 8].")
    ] = None,
    prior: Annotated[
        bool, typer.Option(help="Prefer known words and numbers where the picture leaves a doubt.")
    ] = True,
    batch_size: Annotated[int, typer.Option(min=1, help="Most crops in one pass.")] = 32,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; torch's default otherwise.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    precision: Annotated[precisions.Precision, typer.Option(help=precisions.HELP)] = "auto",
) -> None:
    """Measure how well a model reads labelled data sets, by the field's protocol.

    Prints a Markdown table; rows with † are not part of the total and the mean.

    Example: str-app evaluate --data benchmarks --json scores.json --report mistakes.html
    """
    import json

    from str_app.evaluation.protocol import PROTOCOLS, protocol_of
    from str_app.evaluation.sources import open_test_sets
    from str_app.evaluation.table import as_json, markdown

    if protocol is not None and protocol not in PROTOCOLS:
        raise typer.BadParameter(f"{protocol!r} is none of {', '.join(PROTOCOLS)}", param_hint="--protocol")

    for file in (json_file, report):
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
    test_sets = open_test_sets(data)

    from str_app.decoding import BEAM
    from str_app.reader import Reader

    reader = Reader.load(model, device=device, threads=threads, batch_size=batch_size, prior=prior, precision=precision)
    compared = PROTOCOLS[protocol] if protocol else protocol_of(reader.charset)
    results = [_run(reader, test_set, lexicon50, compared, beam or BEAM) for test_set in test_sets]
    typer.echo(markdown(results))
    if json_file is not None:
        _write(json_file, json.dumps(as_json(reader.name, results), ensure_ascii=False, indent=2) + "\n")
    if report is not None:
        from str_app.evaluation.report import render_report

        sources = [test_set.source for test_set in test_sets]
        _write(report, render_report(reader, sources, results, mistakes))
        typer.echo(f"report: {report}", err=True)
    if plots is not None:
        from str_app.evaluation.report import confidence_plots

        plots.mkdir(parents=True, exist_ok=True)
        for name, svg in confidence_plots(results).items():
            _write(plots / name, svg + "\n")


def _write(path: Path, content: str) -> None:
    try:
        path.write_text(content, encoding="utf-8")
    except OSError as error:  # a full disk shows on closing, where Python has forgotten the name
        raise StrAppError(f"{path}: {error.strerror}") from error


def _run(reader: Reader, test_set: TestSet, lexicon50: bool, protocol: Protocol, beam: int) -> SetResult:
    from rich.console import Console
    from rich.progress import Progress

    from str_app.evaluation.protocol import evaluate_source

    source = test_set.source
    started = time.perf_counter()
    with Progress(console=Console(stderr=True), transient=True, disable=not Console(stderr=True).is_terminal) as bar:
        task = bar.add_task(source.name, total=len(source))
        result = evaluate_source(
            reader,
            source,
            subsets=test_set.subsets,
            lexicons=test_set.lexicons if lexicon50 else None,
            protocol=protocol,
            beam=beam,
            on_progress=lambda done: bar.advance(task, done),
        )
    seconds = time.perf_counter() - started
    count = len(result.predictions)
    typer.echo(f"{source.name}: {count} crops in {seconds:.1f} s ({count / seconds:.0f} a second)", err=True)
    return result
