"""The verb `evaluate`."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from str_app.cli import options, pool
from str_app.cli.printing import note, row, write_lines
from str_app.cli.progress import ProgressBar
from str_app.errors import StrAppError, writing

if TYPE_CHECKING:
    from str_app.evaluation.protocol import Pool, Protocol, SetResult
    from str_app.evaluation.sources import TestSet
    from str_app.reader import Reader

NAMED = 5  # of the images that cannot be read
COLUMNS = ("set", "identifier", "label", "text", "confidence", "right")  # of `--readings`
# A folder without permission, or a file that is a mount of its own: it cannot be replaced, but can be written.
IN_PLACE_ONLY = (errno.EACCES, errno.EPERM, errno.EBUSY, errno.EROFS)


def evaluate(
    context: typer.Context,
    data: Annotated[
        list[Path],
        typer.Option(
            help="A data set, or a directory of data sets: LMDBs, or folders with images/ and labels.tsv "
            "(and optionally subset_*.txt, lexicon50.tsv). Repeatable."
        ),
    ],
    model: options.Model = "small",
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write all scores to this file.")
    ] = None,
    readings: Annotated[
        Path | None,
        typer.Option(metavar="FILE.tsv", help=f"Write each reading to this file: {', '.join(COLUMNS)} (1 or 0)."),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Write a page with the most confident mistakes.")
    ] = None,
    plots: Annotated[Path | None, typer.Option(metavar="DIR", help="Write the confidence plots here, as SVG.")] = None,
    mistakes: Annotated[int, typer.Option(min=0, help="Number of mistakes per data set in the report.")] = 24,
    protocol: Annotated[
        Literal["field", "unicode"] | None,
        typer.Option(
            help="Characters that are compared: [0-9a-z] after NFKD (field), or letters and digits of every script "
            "(unicode). Default: field for models that read only ASCII, unicode for others.",
        ),
    ] = None,
    lexicon50: Annotated[
        bool, typer.Option(help="Choose each reading from the image's 50-word lexicon if the data set has one.")
    ] = False,
    beam: options.Beam = None,
    prior: options.Prior = True,
    blank: options.Blank = True,
    variants: options.Variants = True,
    workers: pool.Workers = None,
    ray: pool.Ray = False,
    ray_address: pool.RayAddress = None,
    batch_size: options.BatchSize = 32,
    threads: options.Threads = None,
    device: options.Device = "cpu",
    engine: options.Engine = "auto",
    precision: options.Precision = "auto",
) -> None:
    """Score a model on labelled data sets under the field's usual protocol.

    Prints a Markdown table. Rows marked † do not count in the total and the mean.

    Example: str-app evaluate --data benchmarks --json scores.json --report mistakes.html
    """
    import json

    from str_app.evaluation.protocol import PROTOCOLS, numbered, protocol_of
    from str_app.evaluation.sources import open_test_sets
    from str_app.evaluation.table import as_json, markdown

    if not ray:
        options.refuse(context, ("ray_address",), "needs --ray")
    if report is None:
        options.refuse(context, ("mistakes",), "needs --report")
    for file in (json_file, readings, report, plots / "coverage.svg" if plots is not None else None):
        check_writable(file)
    test_sets = open_test_sets([path.absolute() for path in data])  # actors of Ray have another working directory

    from str_app.reader import Reader

    reader = Reader.load(
        model,
        device=device,
        threads=1 if threads is None and (workers or ray) else threads,
        batch_size=batch_size,
        prior=prior,
        blank=blank,
        variants=variants,
        engine=engine,
        precision=precision,
    )
    if lexicon50:
        for test_set in test_sets:
            test_set.check_lexicons(reader)
    compared = PROTOCOLS[protocol] if protocol else protocol_of(reader.charset)
    cluster = None
    if ray:
        from str_app.bulk.ray_pool import RayOptions

        cluster = RayOptions(ray_address, workers, threads or 1)
    mapped = pool.make_pool(workers, cluster)
    names = numbered(test_set.source.name for test_set in test_sets)
    results = [
        _run(reader, name, test_set, lexicon50, compared, beam, mapped)
        for name, test_set in zip(names, test_sets, strict=True)
    ]
    write_lines(markdown(results))
    for name, result in zip(names, results, strict=True):
        for subset in result.unscored_subsets:
            note(f"str-app evaluate: {name}: no sample of its subset {subset} can be scored")
    if json_file is not None:
        write_file(json_file, json.dumps(as_json(reader.name, results), ensure_ascii=False, indent=2) + "\n")
    if readings is not None:
        write_file(readings, _as_tsv(zip(names, test_sets, results, strict=True)))
    if report is not None:
        from str_app.evaluation.report import render_report

        sources = [test_set.source for test_set in test_sets]
        write_file(report, render_report(reader, sources, results, mistakes, beam))
        note(f"report: {report}")
    if plots is not None:
        from str_app.evaluation.report import confidence_plots

        for name, svg in confidence_plots(results).items():
            write_file(plots / name, svg + "\n")


def check_writable(path: Path | None) -> None:
    """Make the file's folder, and see whether the file can be written, before the work whose result it shall hold.

    Raises:
        StrAppError: it cannot.
    """
    if path is None:
        return
    if path.is_dir() or str(path) == "-":
        raise StrAppError(f"{path}: give the name of a file")
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise StrAppError(f"{path}: cannot be written")


def write_file(path: Path, content: str) -> None:
    """Write a text file.

    Raises:
        StrAppError: it cannot be written.
    """
    from str_app.models.checkpoint import replace_file

    data = content.encode("utf-8", "backslashreplace")  # names may have lone surrogates
    with writing(path):
        if path.exists() and not path.is_file():  # a device or a pipe, which has no path of its own
            path.write_bytes(data)
            return
        file = path.resolve()  # a link stays one
        try:
            replace_file(file, data)  # what was there stays until this is whole
        except OSError as error:
            if error.errno not in IN_PLACE_ONLY or not file.exists():
                raise
            file.write_bytes(data)


def _as_tsv(sets: Iterable[tuple[str, TestSet, SetResult]]) -> str:
    """A header, and a line for each sample that was scored, in the order of the sets."""
    lines = [row(*COLUMNS)]
    for name, test_set, result in sets:
        lines += [
            row(
                name,
                test_set.source.identifier(sample.index),
                sample.label,
                sample.text,
                f"{sample.confidence:.4f}",
                str(int(sample.correct)),
            )
            for sample in result.predictions
        ]
    return "\n".join(lines) + "\n"


def _run(
    reader: Reader, name: str, test_set: TestSet, lexicon50: bool, protocol: Protocol, beam: int | None, pool: Pool
) -> SetResult:
    from str_app.evaluation.protocol import evaluate_source

    source = test_set.source
    started = time.perf_counter()
    with ProgressBar(name, len(source)) as progress:
        result = evaluate_source(
            reader,
            source,
            subsets=test_set.subsets,
            lexicons=test_set.lexicons if lexicon50 else None,
            protocol=protocol,
            beam=beam,
            pool=pool,
            on_progress=progress.advance,
        )
    seconds = time.perf_counter() - started
    count = len(result.predictions)
    note(f"{name}: {count} crops in {seconds:.1f} s ({count / seconds:.0f} per second)")
    if unreadable := [source.identifier(sample.index) for sample in result.predictions if not sample.readable]:
        several = f"{len(unreadable)} images that cannot be read count"
        images = several if len(unreadable) > 1 else "1 image that cannot be read counts"
        names = ", ".join(unreadable[:NAMED]) + (", …" if len(unreadable) > NAMED else "")
        note(f"{name}: {images} as wrong: {names}")
    if reasons := result.unreadable_labels:
        several = f"{len(reasons)} labels cannot be read; their samples are"
        labels = several if len(reasons) > 1 else "1 label cannot be read; its sample is"
        note(f"{name}: {labels} dropped; the first: {reasons[0]}")
    return result
