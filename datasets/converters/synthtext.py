"""SynthText in the Wild (Gupta et al., CVPR 2016): whole images, and the words' quadrilaterals in `gt.mat`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from str_app.datasets.converters.cropping import crop
from str_app.datasets.converters.record import Record, Records, Skipped, existing_file
from str_app.datasets.folder import read_image_file
from str_app.datasets.image_decoding import decode_image
from str_app.datasets.sample import DataError


def read(source: Path, split: str | None = None) -> Records:
    """Words cropped by the axis-aligned bounding box of their quadrilateral, like real test crops, stored as JPEG.

    `gt.mat` is loaded as a whole: several GB of memory for the 858,750 images of the official archive.

    Args:
        source: the folder `SynthText`.
        split: not used; there is only one.

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
        raise DataError(f"{path}: {len(names)} image names, but {len(boxes)} sets of boxes and {len(texts)} of texts")
    return Records(None, _records(source, names, boxes, texts))


def _records(source: Path, names: Any, boxes: Any, texts: Any) -> Iterator[Record | Skipped]:
    for name_cell, box_cell, text_cell in zip(names, boxes, texts, strict=True):
        name = str(np.asarray(name_cell).ravel()[0])
        # A cell has one string per region, whose words are separated by spaces and line feeds.
        words = " ".join(str(region) for region in np.asarray(text_cell).ravel()).split()
        corners = np.asarray(box_cell, dtype=np.float64)
        if corners.ndim == 2:  # a single word
            corners = corners[:, :, None]
        if corners.shape != (2, 4, len(words)):
            yield Skipped(name, "different numbers of words and boxes")
            continue
        try:
            image_pixels = decode_image(read_image_file(source / name))
        except (OSError, DataError) as error:
            reason = error.strerror if isinstance(error, OSError) else "the image cannot be decoded"
            yield from (Skipped(f"{name}#{number}", str(reason)) for number in range(1, len(words) + 1))
            continue
        low, high = corners.min(axis=1), corners.max(axis=1)  # (2, n): x and y
        for number, text in enumerate(words, 1):
            (x0, y0), (x1, y1) = low[:, number - 1], high[:, number - 1]
            finite = bool(np.isfinite([x0, y0, x1, y1]).all())
            image = crop(image_pixels, x0, y0, x1, y1, ".jpg") if finite else None
            if image is None:
                yield Skipped(f"{name}#{number}", "the box is empty or outside the image")
            else:
                yield Record(image, text, f"{name}#{number}")
