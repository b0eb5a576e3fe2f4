"""Writes scenes to a folder with several processes; their number does not change a byte."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from str_app.datasets.renderer.render import encode
from str_app.datasets.renderer.scene import SceneComposer
from str_app.datasets.renderer.worker_pool import draw_all
from str_app.datasets.sample import DataError

JPEG_QUALITY = 92
Encoded = tuple[int, bytes, list[dict[str, Any]]]


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
    unfinished = out.with_name(f".{out.name}.partial-{secrets.token_hex(4)}")
    try:
        (unfinished / "images").mkdir(parents=True)
        with (unfinished / "labels.jsonl").open("w", encoding="utf-8") as labels:
            scenes = draw_all(partial(_make_draw, composer), range(start, start + count), workers)
            for done, (index, data, words) in enumerate(scenes, 1):
                name = f"images/{index:06d}.jpg"
                (unfinished / name).write_bytes(data)
                labels.write(json.dumps({"image": name, "words": words}) + "\n")
                progress(done)
        unfinished.rename(out)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _make_draw(composer: tuple[Any, ...]) -> Callable[[int], Encoded]:
    return partial(_encoded, SceneComposer(*composer))


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
