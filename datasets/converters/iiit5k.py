"""IIIT 5K-word (Mishra et al., BMVC 2012): `traindata.mat`, `testdata.mat` beside `train/` and `test/`.

The optional `trainCharBound.mat` and `testCharBound.mat` have a box for each character.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from str_app.datasets.converters.record import Record, Records, Skipped, existing_file, labelled_file
from str_app.datasets.sample import DataError


def read(source: Path, split: str | None = None) -> Records:
    """Samples of one split with their 50-word lexicons, and character boxes if the archive has them.

    Args:
        source: the folder `IIIT5K`.
        split: `train` or `test`; optional if there is only one.

    Raises:
        DataError: no such split, or the .mat file is damaged.
    """
    splits = [split] if split else ["train", "test"]
    path = existing_file([source / f"{name}data.mat" for name in splits], f"{source}: IIIT5K's labels")
    rows = _rows(path)
    bounds_path = path.with_name(path.name.replace("data.mat", "CharBound.mat"))
    bounds = {row["ImgName"]: row for row in _rows(bounds_path)} if bounds_path.is_file() else {}
    return Records(len(rows), _records(source, rows, bounds))


def _rows(path: Path) -> list[dict[str, Any]]:
    from scipy.io import loadmat

    name = path.stem
    try:
        rows = loadmat(path, simplify_cells=True)[name]
    except Exception as error:  # scipy raises many kinds on damaged files
        raise DataError(f"{path}: not a readable .mat file with the variable {name}: {error}") from error
    return [rows] if isinstance(rows, dict) else list(rows)


def _records(source: Path, rows: list[dict[str, Any]], bounds: dict[str, dict[str, Any]]) -> Iterator[Record | Skipped]:
    for number, row in enumerate(rows, 1):
        try:
            name, text, words = str(row["ImgName"]), str(row["GroundTruth"]), np.atleast_1d(row.get("smallLexi", []))
        except (KeyError, TypeError, AttributeError):
            yield Skipped(f"record {number}", "no ImgName or GroundTruth")
            continue
        record = labelled_file(source, name, text, tuple(str(word) for word in words))
        if isinstance(record, Record) and name in bounds:
            record = record._replace(boxes=_boxes(bounds[name], text))
        yield record


def _boxes(row: dict[str, Any], text: str) -> npt.NDArray[np.float32] | None:
    boxes = np.asarray(row.get("charBB", []), dtype=np.float32)  # x, y, width, height
    if boxes.size != 4 * len(text) or str(row.get("chars", "")).lower() != text.lower():
        return None
    boxes = boxes.reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes
