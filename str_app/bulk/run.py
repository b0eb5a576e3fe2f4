"""One run: what it depends on, what of it is done, and the rest."""

from __future__ import annotations

import hashlib
import platform
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

from str_app import __version__
from str_app.bulk.inputs import Input
from str_app.bulk.output import FORMAT, finished, locked, prepare, shard_file
from str_app.bulk.work import Outcome, Shard, ShardReader
from str_app.installation import distribution_version

VERSIONS = ("numpy", "opencv-python-headless", "pillow", "onnxruntime", "pyarrow")
Pool = Callable[[ShardReader, Sequence[Shard]], Iterable[Outcome]]


@dataclass(frozen=True)
class Totals:
    """Of all shards of a run.

    Attributes:
        shards: number of shards.
        skipped: those that an earlier command had finished.
        rows: in all shards.
        read: rows that this command has added.
        errors: rows of images that could not be read, by code.
    """

    shards: int
    skipped: int
    rows: int
    read: int
    errors: Mapping[str, int]


def describe(
    inputs: Sequence[Input], model: Mapping[str, str], settings: Mapping[str, Any], shard_size: int
) -> dict[str, Any]:
    """The manifest: everything that the output depends on. Runs with equal manifests continue each other."""
    versions = {"python": platform.python_version(), "str-app": __version__}
    names = [*VERSIONS]
    if model["engine"] == "torch":
        names.append("torch")
    if settings.get("photos") and find_spec("rapidocr"):  # has a detector
        names.append("rapidocr")
    return {
        "format": FORMAT,
        "model": dict(model),
        "settings": dict(settings),
        "shard_size": shard_size,
        "inputs": [
            {"name": each.name, "kind": each.kind, "fingerprint": each.fingerprint, "shards": len(each.parts)}
            for each in inputs
        ],
        "versions": versions | {name: distribution_version(name) for name in names},
    }


def words_hash(words: Iterable[str]) -> str:
    """By which the manifest knows a lexicon."""
    return hashlib.sha256("\n".join(words).encode()).hexdigest()


def read_in_bulk(
    inputs: Sequence[Input],
    reader: ShardReader,
    manifest: Mapping[str, Any],
    pool: Pool,
    *,
    overwrite: bool = False,
    on_start: Callable[[int], None] = lambda count: None,
    on_items: Callable[[int], None] = lambda count: None,
) -> Totals:
    """Read what is not read yet.

    Args:
        inputs: from `open_inputs`.
        reader: reads a shard.
        manifest: from `describe`.
        pool: maps the reader over shards.
        overwrite: delete the output of a run with another manifest.
        on_start: called with the number of items to be read, estimated where it is not known.
        on_items: called with the number of images read since the last call.

    Raises:
        StrAppError: see `prepare`; or what the pool raises.
    """
    shards = [Shard(number, part) for number, part in enumerate(part for each in inputs for part in each.parts)]
    rows = read = 0
    errors: Counter[str] = Counter()
    with locked(reader.out):
        prepare(reader.out, dict(manifest), overwrite)
        left = []
        for shard in shards:
            done = finished(shard_file(reader.out, shard.number), reader.run)
            if done is None:
                left.append(shard)
            else:
                rows += done[0]
                errors += done[1]
        on_start(sum(shard.part.count for shard in left))
        for outcome in pool(replace(reader, on_items=on_items), left) if left else ():
            read += outcome.rows
            errors += outcome.errors
            if not outcome.counted:
                on_items(outcome.items)
    return Totals(len(shards), len(shards) - len(left), rows + read, read, dict(sorted(errors.items())))
