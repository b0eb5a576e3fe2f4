"""SynthText in the Wild (Gupta et al., CVPR 2016): whole pictures and `gt.mat` with the words' quadrilaterals."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from str_app.datasets.converters.cropping import crop
from str_app.datasets.converters.record import Reading, Record, Skipped, existing_file
from str_app.datasets.image_decoding import decode_image
from str_app.datasets.sample import DataError


def read(source: Path, split: str | None = None) -> Reading:
    """Words cut out by the upright box around their quadrilateral, as real test crops are, and stored as JPEG.

    All of `gt.mat` is loaded at once: several GB of memory for the 858,750 pictures of the official archive.

    Args:
        source: the folder `SynthText`.
        split: not used; there is one.

    Raises:
        DataError: no `gt.mat`, or one that cannot be read.
    """
    from scipy.io import loadmat

    path = existing_file([source / "gt.mat"], f"{source}: SynthText's labels")
    try:
        labels = loadmat(path, variable_names=["imnames", "wordBB", "txt"])
        names, boxes, texts = (labels[key].ravel() for key in ("imnames", "wordBB", "txt"))
    except Exception as error:  # scipy raises many kinds on damaged files
        raise DataError(f"{path}: not a readable .mat file with imnames, wordBB and txt: {error}") from error
    if not len(names) == len(boxes) == len(texts):
        raise DataError(f"{path}: {len(names)} names, {len(boxes)} sets of boxes and {len(texts)} of texts")
    return Reading(None, _records(source, names, boxes, texts))


def _records(source: Path, names: Any, boxes: Any, texts: Any) -> Iterator[Record | Skipped]:
    for name_cell, box_cell, text_cell in zip(names, boxes, texts, strict=True):
        name = str(np.asarray(name_cell).ravel()[0])
        # A cell holds one string a region; its words are separated by spaces and line feeds.
        words = " ".join(str(region) for region in np.asarray(text_cell).ravel()).split()
        corners = np.asarray(box_cell, dtype=np.float64)
        if corners.ndim == 2:  # a single word
            corners = corners[:, :, None]
        if corners.shape != (2, 4, len(words)):
            yield Skipped(name, "words and boxes differ in number")
            continue
        try:
            picture = decode_image((source / name).read_bytes())
        except (OSError, DataError) as error:
            reason = error.strerror if isinstance(error, OSError) else "the picture cannot be decoded"
            yield from (Skipped(f"{name}#{number}", str(reason)) for number in range(1, len(words) + 1))
            continue
        low, high = corners.min(axis=1), corners.max(axis=1)  # (2, n): x and y
        for number, text in enumerate(words, 1):
            (x0, y0), (x1, y1) = low[:, number - 1], high[:, number - 1]
            finite = bool(np.isfinite([x0, y0, x1, y1]).all())
            image = crop(picture, x0, y0, x1, y1, ".jpg") if finite else None
            if image is None:
                yield Skipped(f"{name}#{number}", "the box lies outside the picture or is empty")
            else:
                yield Record(image, text, f"{name}#{number}")
