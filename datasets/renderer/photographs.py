"""Photographs that stand behind the letters."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from str_app.datasets.sample import DataError

# Where Debian's packages of wallpapers put them. Drawn ones are PNG or WebP more often than not.
SYSTEM_FOLDERS = ("/usr/share/wallpapers", "/usr/share/backgrounds")
SUFFIXES = {".jpg", ".jpeg"}
LONGEST_SIDE = 900  # pixels: enough for windows of every zoom, little to keep in each worker; the rest is cut off
SHORTEST_SIDE = 400
LARGEST_FILE = 1_500_000  # bytes: wallpapers of many megabytes take seconds to decode and show no more


def find_photographs(folder: str | Path | None = None) -> list[npt.NDArray[np.uint8]]:
    """The JPEG pictures below `folder`, or among the system's wallpapers when None, at most 900 pixels a side.

    Returns:
        uint8 (H, W, 3) RGB arrays in a fixed order; none where the system has no wallpapers.

    Raises:
        DataError: no such folder, or no usable picture in it.
    """
    folders = [Path(folder)] if folder is not None else [Path(name) for name in SYSTEM_FOLDERS]
    if folder is not None and not folders[0].is_dir():
        raise DataError(f"{folder}: no such folder of photographs")
    files = sorted(path for place in folders for path in place.rglob("*") if _is_handy(path))
    photographs, kept = [], set()
    for path in files:
        try:
            with Image.open(path) as image:
                if min(image.size) < SHORTEST_SIDE:
                    continue
                image.draft("RGB", (SHORTEST_SIDE, SHORTEST_SIDE))  # the decoder itself halves, which saves seconds
                picture = np.asarray(image.convert("RGB"))[:LONGEST_SIDE, :LONGEST_SIDE]
        except (OSError, ValueError):  # damaged, or no picture at all
            continue
        # Packages carry one picture in several sizes.
        looks = np.asarray(cv2.resize(picture, (4, 4), interpolation=cv2.INTER_AREA), np.uint8) >> 4
        if looks.tobytes() not in kept:
            kept.add(looks.tobytes())
            photographs.append(picture)
    if folder is not None and not photographs:
        raise DataError(
            f"{folder}: no JPEG picture of at least {SHORTEST_SIDE} pixels a side and at most {LARGEST_FILE} bytes"
        )
    return photographs


def _is_handy(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file() and path.stat().st_size <= LARGEST_FILE


def fingerprint(photographs: Sequence[npt.NDArray[np.uint8]]) -> str:
    """Short hash of the pixels: what a data set says about the photographs it was drawn with."""
    digest = hashlib.sha256()
    for photograph in photographs:
        digest.update(photograph.tobytes())
    return digest.hexdigest()[:12]
