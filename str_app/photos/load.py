"""From a detector's name to a detector, and to a reader of photographs."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from str_app.engines.options import EngineOptions, is_whole
from str_app.errors import StrAppError
from str_app.photos import LEAST_LONGEST_SIDE, LONGEST_SIDE
from str_app.photos.detector import Detector
from str_app.photos.photo_reader import PhotoPipeline
from str_app.photos.separator import GapNetwork


def load_pipeline(
    detector: str = "auto", threads: int | None = None, longest_side: int = LONGEST_SIDE
) -> PhotoPipeline:
    """What photographs are read with, except the reader of words.

    Args:
        detector: a name of `DETECTORS`, or the file of a word detector of ours.
        threads: CPU threads, see `EngineOptions`; all usable cores if None.
        longest_side: larger photographs are shrunk to it to find the words, which are then cut from the whole picture.
            At least `LEAST_LONGEST_SIDE`.

    Raises:
        StrAppError: no such detector, one that is not installed, or a value that an option cannot have.
    """
    EngineOptions(threads=threads)  # checks the number before anything starts so many
    if not is_whole(longest_side, LEAST_LONGEST_SIDE):
        least = f"at least {LEAST_LONGEST_SIDE}"
        raise StrAppError(f"longest_side {longest_side!r}: must be a whole number of pixels, {least}")
    longest_side = int(longest_side)
    if detector in DETECTORS:
        loaded = DETECTORS[detector](threads, longest_side)
    elif Path(detector).is_file():
        from str_app.photos.word_detector import WordDetector

        loaded = WordDetector(detector, threads, longest_side)
    else:
        raise StrAppError(f"detector {detector!r} is not one of {', '.join(DETECTORS)}, nor a file")
    return PhotoPipeline(loaded, GapNetwork(threads=threads) if loaded.unit == "line" else None)


def installed() -> bool:
    """Whether any detector is."""
    return find_spec("rapidocr") is not None


def _pp_ocr(threads: int | None, longest_side: int) -> Detector:
    from str_app.photos.pp_ocr import PpOcrDetector

    return PpOcrDetector(threads, longest_side)


# Detectors by name. A new one is a line here; see docs/how-to/extending.md.
DETECTORS: dict[str, Callable[[int | None, int], Detector]] = {"auto": _pp_ocr, "pp-ocrv6-small": _pp_ocr}
