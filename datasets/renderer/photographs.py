"""Photographs for backgrounds."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from str_app.datasets.sample import DataError

# Of Debian's wallpaper packages. Most drawings are PNG or WebP, so only JPEG files are used.
SYSTEM_FOLDERS = ("/usr/share/wallpapers", "/usr/share/backgrounds")
SUFFIXES = {".jpg", ".jpeg"}
LONGEST_SIDE = 900  # pixels: enough for windows of any scale, small in memory; the rest is cropped
SHORTEST_SIDE = 400
LARGEST_FILE = 1_500_000  # bytes: larger wallpapers take seconds to decode for the same windows


def find_photographs(folder: str | Path | None = None) -> list[npt.NDArray[np.uint8]]:
    """JPEG photographs in `folder` and below, or of the system's wallpapers if None, at most 900 pixels a side.

    Returns:
        uint8 (H, W, 3) RGB arrays in a fixed order; empty if the system has no wallpapers.

    Raises:
        DataError: no such folder, or no usable photograph in it.
    """
    folders = [Path(folder)] if folder is not None else [Path(name) for name in SYSTEM_FOLDERS]
    if folder is not None and not folders[0].is_dir():
        raise DataError(f"{folder}: no such folder of photographs")
    files = sorted(path for directory in folders for path in directory.rglob("*") if _is_usable(path))
    photographs, thumbnails = [], set()
    for path in files:
        try:
            with Image.open(path) as image:
                if min(image.size) < SHORTEST_SIDE:
                    continue
                image.draft("RGB", (SHORTEST_SIDE, SHORTEST_SIDE))  # scales while decoding, which saves seconds
                picture = np.asarray(image.convert("RGB"))[:LONGEST_SIDE, :LONGEST_SIDE]
        except (OSError, ValueError):  # damaged, or not an image
            continue
        # Packages have the same photograph in several sizes.
        thumbnail = np.asarray(cv2.resize(picture, (4, 4), interpolation=cv2.INTER_AREA), np.uint8) >> 4
        if thumbnail.tobytes() not in thumbnails:
            thumbnails.add(thumbnail.tobytes())
            photographs.append(picture)
    if folder is not None and not photographs:
        raise DataError(
            f"{folder}: no JPEG photograph of at least {SHORTEST_SIDE} pixels a side and at most {LARGEST_FILE} bytes"
        )
    return photographs


def _is_usable(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file() and path.stat().st_size <= LARGEST_FILE


def fingerprint(photographs: Sequence[npt.NDArray[np.uint8]]) -> str:
    """Short hash of the pixels, to record with a data set."""
    digest = hashlib.sha256()
    for photograph in photographs:
        digest.update(photograph.tobytes())
    return digest.hexdigest()[:12]
