"""The verb `evaluate-photos`."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from str_app.cli import options
from str_app.cli.evaluate import check_writable, write_file
from str_app.cli.printing import note, write_lines
from str_app.cli.progress import ProgressBar
from str_app.errors import ImageError
from str_app.photos import LONGEST_SIDE


def evaluate_photos(
    context: typer.Context,
    data: Annotated[
        Path,
        typer.Option(
            help="Folder of labelled photographs: labels.jsonl, or the ground truth of ICDAR 2015 or Total-Text."
        ),
    ],
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Words of a lower confidence are left out of the scores.")
    ] = 0.5,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write all scores to this file.")
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.html", help="Write a page with the photographs in which most words were missed or misread."
        ),
    ] = None,
    worst: Annotated[int, typer.Option(min=0, help="Number of photographs in the report.")] = 12,
    model: options.Model = "small",
    detector: options.Detector = "auto",
    longest_side: options.LongestSide = LONGEST_SIDE,
    prior: options.Prior = True,
    threads: options.Threads = None,
    device: options.Device = "cpu",
    engine: options.Engine = "auto",
    precision: options.Precision = "auto",
) -> None:
    """Score finding and reading of words in labelled photographs, by the rules of ICDAR 2015.

    Prints a Markdown table: precision, recall and their harmonic mean, for words found and for words found and read.
    Photographs that cannot be read are listed on standard error, and their words count as missed.

    Example: str-app evaluate-photos --data photos --report worst.html
    """
    from str_app.datasets.labelled_photos import open_photos
    from str_app.evaluation.photos import PhotoScore, as_json, markdown
    from str_app.photos.load import load_pipeline
    from str_app.photos.photo_reader import PhotoReader
    from str_app.reader import Reader

    if report is None:
        options.refuse(context, ("worst",), "needs --report")
    for file in (json_file, report):
        check_writable(file)
    photos = open_photos(data)
    pipeline = load_pipeline(detector, threads, longest_side)
    reader = Reader.load(model, device=device, threads=threads, prior=prior, engine=engine, precision=precision)
    photo_reader = PhotoReader(reader, pipeline)
    scores = []
    with ProgressBar(data.name, len(photos), "photographs") as progress:
        for photo in photos:
            started = time.perf_counter()
            try:
                reading = photo_reader.read(photo.path)
            except ImageError as error:
                note(f"str-app evaluate-photos: {error}; its words count as missed")
                scores.append(PhotoScore.unreadable(photo.path, photo.words))
            else:
                scores.append(PhotoScore(photo.path, reading, photo.words, time.perf_counter() - started))
            progress.advance()
    results = as_json(reader.name, pipeline.detector.name, scores, threshold)
    write_lines(markdown(results))
    if json_file is not None:
        write_file(json_file, json.dumps(results, indent=2) + "\n")
    if report is not None:
        from str_app.evaluation.photo_report import render_report

        write_file(report, render_report(results, scores, threshold, worst))
        note(f"report: {report}")
