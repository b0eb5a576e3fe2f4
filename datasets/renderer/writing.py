"""Many crops into an LMDB, drawn by several processes, the same bytes whatever their number."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from str_app.datasets.lmdb_writer import LmdbWriter
from str_app.datasets.renderer.render import Renderer, encode
from str_app.datasets.sample import DataError

CHUNK = 50  # crops a worker draws before it hands them over
Encoded = tuple[bytes, str, npt.NDArray[np.float32]]

_renderer: Renderer | None = None  # one in each worker process, made by its initialiser


def render_to_lmdb(
    out: str | Path,
    renderer: tuple[Any, ...],
    count: int,
    start: int = 0,
    workers: int = 1,
    progress: Callable[[int], None] = lambda done: None,
) -> None:
    """Write crops `start` … `start + count - 1` to a new LMDB; it has its final name only when it is whole.

    Interrupted, even by a kill or a lack of room on the disk, it goes on where it was when called again alike.

    Args:
        out: folder of the LMDB; must not exist.
        renderer: arguments of `Renderer`.
        count: number of crops.
        start: index of the first, to continue a data set in another file.
        workers: processes that draw; 1 draws in this one.
        progress: called with the number of crops written so far.

    Raises:
        DataError: `out` exists, or a number makes no sense.
    """
    if count < 1 or start < 0 or workers < 1:
        raise DataError(f"count {count}, start {start}, workers {workers}: expected at least 1, 0 and 1")
    if Path(out).exists():
        raise DataError(f"{out} exists already: give another name or remove it")
    identity = Renderer(*renderer).identity
    with LmdbWriter(out, resume=f"{identity} {start} {count}") as writer:
        done = len(writer)
        progress(done)
        chunks = [(first, min(first + CHUNK, start + count)) for first in range(start + done, start + count, CHUNK)]
        for samples in _render_chunks(renderer, chunks, workers):
            for data, text, boxes in samples:
                writer.add(data, text, boxes)
            done += len(samples)
            progress(done)


def _render_chunks(renderer: tuple[Any, ...], chunks: list[tuple[int, int]], workers: int) -> Iterator[list[Encoded]]:
    if workers == 1:
        own = Renderer(*renderer)
        for chunk in chunks:
            yield [_encoded(own, index) for index in range(*chunk)]
        return
    # spawn: a fork would copy whatever locks and threads the caller has.
    with multiprocessing.get_context("spawn").Pool(workers, _start_worker, renderer) as pool:
        yield from pool.imap(_render_chunk, chunks)


def _start_worker(*renderer: Any) -> None:
    global _renderer
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends the workers
    cv2.setNumThreads(1)
    _renderer = Renderer(*renderer)


def _render_chunk(chunk: tuple[int, int]) -> list[Encoded]:
    assert _renderer is not None
    return [_encoded(_renderer, index) for index in range(*chunk)]


def _encoded(renderer: Renderer, index: int) -> Encoded:
    sample = renderer.render(index)
    assert sample.boxes is not None
    return encode(sample.image), sample.text, sample.boxes
