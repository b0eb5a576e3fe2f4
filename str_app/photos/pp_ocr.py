"""The detector of PP-OCRv6, a file of the package rapidocr, run by ONNX Runtime. It finds lines."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
from onnxruntime import InferenceSession

from str_app.engines.onnx_session import SessionOfProcess, open_session
from str_app.errors import StrAppError
from str_app.photos import LONGEST_SIDE
from str_app.photos.denormals import without_denormals
from str_app.photos.detector import Detection, shrink_ratio
from str_app.photos.probability_map import MapPolicy, detections_of

FILE = "PP-OCRv6_det_small.onnx"
SHA256 = "090f04abcd9d9a7498bc4ebf677e4cb9bdce1fe4197ddb7e529f1ef44e1ff94f"
# Another 3.x satisfies `str-app[photo]`, so installing that would change nothing.
ADVICE = "pip install --force-reinstall --no-deps rapidocr==3.10.0"
STRIDE = 32  # sides of the network's input are multiples of it


class PpOcrDetector:
    """PP-OCRv6-small's detector (Apache-2.0) with our own post-processing.

    Only the file is taken from the package rapidocr: its Python objects keep options of one call for the next.

    Args:
        threads: CPU threads; all usable cores if None.
        longest_side: larger photographs are shrunk to it for detection. Smaller ones are not enlarged.

    Raises:
        StrAppError: the package is not installed, or its file is another one than this version knows.
    """

    name = "pp-ocrv6-small"
    unit: Literal["word", "line"] = "line"

    def __init__(self, threads: int | None = None, longest_side: int = LONGEST_SIDE) -> None:
        self._session = SessionOfProcess(_open, threads)
        self._input = self._session().get_inputs()[0].name
        self.longest_side = longest_side
        self.policy = MapPolicy()
        self._arguments = (threads, longest_side)

    def __reduce__(self) -> tuple[Any, ...]:
        # A session cannot be pickled: another process opens the file itself.
        return type(self), self._arguments

    def find(self, photo: npt.NDArray[np.uint8]) -> list[Detection]:
        """See `Detector.find`."""
        height, width = photo.shape[:2]
        ratio = shrink_ratio(height, width, self.longest_side)
        size = tuple(max(STRIDE, round(side * ratio / STRIDE) * STRIDE) for side in (width, height))
        shrinks = size[0] * size[1] < width * height
        resized = cv2.resize(photo, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        # The network was trained on BGR, scaled to −1 … 1.
        pixels = resized[None, :, :, ::-1].transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1.0
        (maps,) = self._session().run(None, {self._input: np.ascontiguousarray(pixels)})
        return detections_of(maps[0, 0], (width / size[0], height / size[1]), self.policy)


def _open(threads: int | None) -> InferenceSession:
    path = _installed_file()
    network = path.read_bytes()
    if hashlib.sha256(network).hexdigest() != SHA256:
        raise StrAppError(f"{path} is not the file that this version was tested with: {ADVICE}")
    return open_session(without_denormals(network), threads, arena=False)  # 2.6 times as fast


def _installed_file() -> Path:
    package = find_spec("rapidocr")  # finds it without importing it
    if package is None or not package.submodule_search_locations:
        raise StrAppError("the detector pp-ocrv6-small is a file of rapidocr: pip install 'str-app[photo]'")
    path = Path(package.submodule_search_locations[0]) / "models" / FILE
    if not path.is_file():
        raise StrAppError(f"{path}: no such file in the installed rapidocr: {ADVICE}")
    return path
