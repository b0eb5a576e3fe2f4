"""Writes scenes to a folder with several processes; their number does not change a byte."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from str_app.datasets.renderer.render import encode
from str_app.datasets.renderer.scene import SceneComposer
from str_app.datasets.sample import DataError

JPEG_QUALITY = 92
Encoded = tuple[int, bytes, list[dict[str, Any]]]

_composer: SceneComposer | None = None  # of a worker process, set by its initialiser


def write_scenes(
    out: str | Path,
    composer: tuple[Any, ...],
    count: int,
    start: int = 0,
    workers: int = 1,
    progress: Callable[[int], None] = lambda done: None,
) -> None:
    """Write scenes `start` … `start + count - 1` to a new folder: `images/*.jpg` and `labels.jsonl`.

    A line of `labels.jsonl` is `{"image": …, "words": [{"quad": [x, y, …], "text": …, "line": …, "characters":
    [[x, y, …], …]}]}`: quads clockwise from the top left of the first letter, in pixels. The text of illegible words
    is `###`, and they have no characters. The folder gets its name when it is complete.

    Args:
        out: the folder; must not exist.
        composer: the arguments of `SceneComposer`.
        count: number of scenes.
        start: index of the first scene.
        workers: number of processes; 1 composes in this process.
        progress: called with the number of scenes written so far.

    Raises:
        DataError: `out` exists, or a number is out of range.
    """
    out = Path(out)
    if count < 1 or start < 0 or workers < 1:
        raise DataError(f"count {count}, start {start}, workers {workers}: they must be at least 1, 0 and 1")
    if out.exists():
        raise DataError(f"{out} exists already: give another name or remove it")
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "images").mkdir(parents=True)
    with (partial / "labels.jsonl").open("w", encoding="utf-8") as labels:
        indices = range(start, start + count)
        for done, (index, data, words) in enumerate(_compose_all(composer, indices, workers), 1):
            name = f"images/{index:06d}.jpg"
            (partial / name).write_bytes(data)
            labels.write(json.dumps({"image": name, "words": words}) + "\n")
            progress(done)
    partial.rename(out)


def _compose_all(composer: tuple[Any, ...], indices: range, workers: int) -> Iterator[Encoded]:
    if workers == 1:
        local_composer = SceneComposer(*composer)
        for index in indices:
            yield _encoded(local_composer, index)
        return
    # spawn: a fork would copy the caller's locks but not its threads.
    with multiprocessing.get_context("spawn").Pool(workers, _start_worker, composer) as pool:
        yield from pool.imap(_compose, indices)


def _start_worker(*composer: Any) -> None:
    global _composer
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops the workers
    cv2.setNumThreads(1)
    _composer = SceneComposer(*composer)


def _compose(index: int) -> Encoded:
    assert _composer is not None
    return _encoded(_composer, index)


def _encoded(composer: SceneComposer, index: int) -> Encoded:
    scene = composer.compose(index)
    words = [
        {
            "quad": _rounded(word.quad),
            "text": word.text,
            "line": word.line,
            "characters": [_rounded(quad) for quad in word.character_quads],
        }
        for word in scene.words
    ]
    return index, encode(scene.image, JPEG_QUALITY), words


def _rounded(quad: npt.NDArray[np.float32]) -> list[float]:
    return [round(float(value), 1) for value in quad.ravel()]
