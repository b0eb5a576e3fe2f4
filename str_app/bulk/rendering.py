"""Rendering of data sets too large for one machine: shards that depend on the seed and their number only."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from str_app.datasets.renderer import Renderer
from str_app.datasets.renderer.writing import render_to_lmdb
from str_app.datasets.shards import DESCRIPTION, read_description, shard_path
from str_app.errors import StrAppError
from str_app.models.checkpoint import replace_file


class CropRange(NamedTuple):
    """Crops `start` … `start + size - 1`, which make shard `number`."""

    number: int
    start: int
    size: int


@dataclass(frozen=True)
class ShardRenderer:
    """Draws shards. One that was interrupted is continued by whoever gets it next.

    Attributes:
        out: folder of the shards.
        renderer: arguments of `Renderer`; fonts are opened by their paths on every machine.
    """

    out: Path
    renderer: tuple[Any, ...]

    def __call__(self, crops: CropRange) -> CropRange:
        """Write the shard's LMDB and return the range."""
        render_to_lmdb(shard_path(self.out, crops.number), self.renderer, crops.size, crops.start)
        return crops


def render_shards(
    out: Path,
    renderer: tuple[Any, ...],
    count: int,
    start: int,
    shard_size: int,
    pool: Callable[[ShardRenderer, Sequence[CropRange]], Iterable[CropRange]],
    progress: Callable[[int], None] = lambda done: None,
) -> None:
    """Write crops `start` … `start + count - 1` as LMDBs of `shard_size` crops; finished ones are kept.

    The crops are those of one LMDB of that range: their shards, processes and machines do not change a byte.

    Args:
        out: folder; may hold some of the shards.
        renderer: arguments of `Renderer`.
        count, start: the range.
        shard_size: crops in each shard but the last.
        pool: maps the renderer over the shards that are missing.
        progress: called with the number of crops done so far.

    Raises:
        StrAppError: `out` has shards of another data set.
        DataError: its description of them is damaged.
    """
    wanted = {"identity": Renderer(*renderer).identity, "count": count, "start": start, "shard_size": shard_size}
    description = out / DESCRIPTION
    if description.is_file():
        stored = read_description(out)
        if stored != wanted:
            changed = ", ".join(key for key in wanted if stored.get(key) != wanted[key])
            raise StrAppError(f"{out} has shards of another data set ({changed}): choose another --out or remove it")
    elif out.exists():
        raise StrAppError(f"{out} exists already and has no {DESCRIPTION}: choose another --out or remove it")
    else:
        out.mkdir(parents=True)
        replace_file(description, (json.dumps(wanted) + "\n").encode())
    ranges = [
        CropRange(number, first, min(shard_size, start + count - first))
        for number, first in enumerate(range(start, start + count, shard_size))
    ]
    missing = [crops for crops in ranges if not shard_path(out, crops.number).exists()]
    done = count - sum(crops.size for crops in missing)
    progress(done)
    for crops in pool(ShardRenderer(out.absolute(), renderer), missing) if missing else ():
        done += crops.size
        progress(done)
