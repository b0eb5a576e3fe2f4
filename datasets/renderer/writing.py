"""Writes crops to an LMDB with several processes; their number does not change a byte."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from str_app.datasets.lmdb_writer import LmdbWriter
from str_app.datasets.renderer.render import Renderer, encode
from str_app.datasets.renderer.worker_pool import draw_all
from str_app.datasets.sample import DataError

CHUNK = 50  # crops that a worker draws at a time
Encoded = tuple[bytes, str, npt.NDArray[np.float32]]


def render_to_lmdb(
    out: str | Path,
    renderer: tuple[Any, ...],
    count: int,
    start: int = 0,
    workers: int = 1,
    progress: Callable[[int], None] = lambda done: None,
) -> None:
    """Write crops `start` … `start + count - 1` to a new LMDB, atomically.

    After an interruption, even a kill or a full disk, the same call continues where it stopped.

    Args:
        out: folder of the LMDB; must not exist.
        renderer: the arguments of `Renderer`.
        count: number of crops.
        start: index of the first crop, to continue a data set in another LMDB.
        workers: number of processes; 1 draws in this process.
        progress: called with the number of crops written so far.

    Raises:
        DataError: `out` exists, or a number is out of range.
    """
    if count < 1 or start < 0 or workers < 1:
        raise DataError(f"count {count}, start {start}, workers {workers}: they must be at least 1, 0 and 1")
    if Path(out).exists():
        raise DataError(f"{out} exists already: give another name or remove it")
    identity = Renderer(*renderer).identity
    with LmdbWriter(out, resume=f"{identity} {start} {count}") as writer:
        done = len(writer)
        progress(done)
        end = start + count
        chunks = [range(first, min(first + CHUNK, end)) for first in range(start + done, end, CHUNK)]
        for samples in draw_all(partial(_make_draw, renderer), chunks, workers):
            for data, text, boxes in samples:
                writer.add(data, text, boxes)
            done += len(samples)
            progress(done)


def _make_draw(renderer: tuple[Any, ...]) -> Callable[[range], list[Encoded]]:
    return partial(_draw_chunk, Renderer(*renderer))


def _draw_chunk(renderer: Renderer, indices: range) -> list[Encoded]:
    return [_encoded(renderer, index) for index in indices]


def _encoded(renderer: Renderer, index: int) -> Encoded:
    sample = renderer.render(index)
    assert sample.boxes is not None
    return encode(sample.image), sample.text, sample.boxes
