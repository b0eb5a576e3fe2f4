"""The verb `bulk`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from str_app.cli import options, pool
from str_app.cli.progress import ProgressBar
from str_app.errors import StrAppError
from str_app.photos import LONGEST_SIDE


def bulk(
    context: typer.Context,
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT",
            readable=False,
            help="Folders, LMDBs, Parquet files, WebDataset tars, and CSV, TSV or JSON-lines lists of image files.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the output: _manifest.json and one Parquet file per shard.")],
    model: options.Model = "small",
    workers: pool.Workers = None,
    ray: pool.Ray = False,
    ray_address: pool.RayAddress = None,
    gpus_per_actor: Annotated[
        float, typer.Option(min=0, help="GPUs of each actor of --ray, such as 0.25 (with --device cuda).")
    ] = 0.0,
    memory_per_actor: Annotated[
        int, typer.Option(min=1, help="MiB of memory that Ray sets aside for an actor.")
    ] = 1024,
    shard_size: Annotated[int, typer.Option(min=1, help="Maximum number of images per shard (a tar is one shard).")] = (
        10_000
    ),
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete the output of a run with other inputs or settings.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as a JSON object.")] = False,
    image_column: Annotated[
        str | None, typer.Option(help="Column of Parquet files and lists that holds images or paths.")
    ] = None,
    id_column: Annotated[str | None, typer.Option(help="Column that holds ids [default: id or __key__].")] = None,
    photos: Annotated[
        bool, typer.Option("--photos", help="Images without regions are photographs: find their words too.")
    ] = False,
    detector: options.Detector = "auto",
    longest_side: options.LongestSide = LONGEST_SIDE,
    rotate: Annotated[bool, typer.Option("--rotate", help="Also try each crop rotated by 90, 180 and 270°.")] = False,
    beam: options.Beam = None,
    prior: options.Prior = True,
    blank: options.Blank = True,
    variants: options.Variants = True,
    lexicon: Annotated[
        Path | None, typer.Option(help="Text file with one word per line; only these words are read.")
    ] = None,
    characters: options.Characters = None,
    batch_size: options.BatchSize = 32,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1, help="CPU threads per process. Default: the engine's own choice; 1 with several processes."
        ),
    ] = None,
    device: options.Device = "cpu",
    engine: options.Engine = "auto",
    precision: options.Precision = "auto",
) -> None:
    """Read millions of images into Parquet files. The same command continues where an interrupted one stopped.

    Images are crops of one word, or with --photos whole photographs. One that cannot be read is a row with its error. A
    column `regions` in a Parquet file or a list, or in a JSON file of a tar, marks words in a photograph; each is a
    row.

    Example: str-app bulk crops/ --out readings/ --workers 2
    """
    import json

    from str_app.bulk.inputs import Columns, open_inputs
    from str_app.bulk.output import manifest_hash
    from str_app.bulk.ray_pool import RayOptions
    from str_app.bulk.run import describe, read_in_bulk, words_hash
    from str_app.bulk.work import ShardReader, identity
    from str_app.cli.lexicon_file import LexiconFile
    from str_app.decoding import parse_characters
    from str_app.engines.graph_folder import lasting_name, sha256_of
    from str_app.reader import Reader

    if photos and (rotate or lexicon is not None):
        raise typer.BadParameter("cannot be used with --rotate or --lexicon", param_hint="--photos")
    if not ray:
        options.refuse(context, ("ray_address", "gpus_per_actor", "memory_per_actor"), "needs --ray")
    if not photos:
        options.refuse(context, ("detector", "longest_side"), "needs --photos")
    for path in inputs:
        if path.is_dir() and out.resolve().is_relative_to(path.resolve()):
            raise typer.BadParameter(f"{out} lies in the input {path}: its files would be read too", param_hint="--out")
    if threads is None and (workers or ray):
        threads = 1
    lexicon_file = LexiconFile(lexicon) if lexicon is not None else None
    load: dict[str, Any] = {
        "model": model,
        "device": device,
        "threads": threads,
        "batch_size": batch_size,
        "prior": prior,
        "blank": blank,
        "variants": variants,
        "engine": engine,
        "precision": precision,
    }
    opened = open_inputs(inputs, shard_size, Columns(image_column, id_column))
    # With Ray this machine may have no GPU.
    on_cpu = {"device": "cpu", "engine": "torch", "precision": "fp32" if precision == "auto" else precision}
    loaded = Reader.load(**(load | on_cpu if ray and device != "cpu" else load))
    if characters is not None:  # before anything is written
        if lexicon_file is not None:
            raise StrAppError("give either a lexicon or allowed characters, not both")
        parse_characters(characters, loaded.charset)
    known = identity(loaded, model)
    words = lexicon_file.words_for(loaded) if lexicon_file is not None else None
    choices: dict[str, Any] = {"beam": beam, "lexicon": words, "characters": characters, "rotate": rotate}
    # Threads are left out: readings do not depend on their number.
    settings = {name: load[name] for name in ("device", "batch_size", "prior", "blank", "variants")} | choices
    settings["lexicon"] = words and words_hash(words)
    finding: dict[str, Any] | None = None
    if photos:
        from str_app.photos.load import DETECTORS, load_pipeline

        own = detector not in DETECTORS
        finding = {"detector": str(Path(detector).absolute()) if own else detector, "longest_side": longest_side}
        settings["photos"] = finding | {"detector": load_pipeline(**finding).detector.name}
        if own:
            settings["photos"]["sha256"] = sha256_of(Path(detector))
    manifest = describe(opened, known, settings, shard_size)
    load["model"] = lasting_name(model)
    reader = ShardReader(out.absolute(), manifest_hash(manifest), known, load, choices, finding)

    memory = memory_per_actor * 2**20
    cluster = RayOptions(ray_address, workers, threads or 1, gpus_per_actor, memory) if ray else None
    started = time.monotonic()
    with ProgressBar("reading", rate=True) as progress:
        totals = read_in_bulk(
            opened,
            reader,
            manifest,
            pool.make_pool(workers, cluster),
            overwrite=overwrite,
            on_start=lambda count: progress.update(0, count),
            on_items=progress.advance,
        )
    seconds = time.monotonic() - started
    failed = sum(totals.errors.values())
    if as_json:
        summary = {"out": str(out), **vars(totals), "seconds": round(seconds, 1)}
        typer.echo(json.dumps(summary | {"crops_per_second": round(totals.read / seconds, 1)}))
        return
    typer.echo(
        f"{out}: {totals.rows} rows in {totals.shards} shards, {failed} with errors"
        + "".join(f", {count} {code}" for code, count in totals.errors.items())
    )
    done_before = f", {totals.skipped} shards were finished before" if totals.skipped else ""
    typer.echo(f"{totals.read} rows in {seconds:.0f} s ({totals.read / seconds:.0f} per second){done_before}")
