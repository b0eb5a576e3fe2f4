"""Our own detector of words, run by ONNX Runtime."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from str_app.engines.onnx_session import SessionOfProcess, open_session
from str_app.errors import StrAppError
from str_app.models.detectors.word_maps import MULTIPLE
from str_app.photos import LONGEST_SIDE
from str_app.photos.detector import Detection, shrink_ratio
from str_app.photos.word_maps import WordMapPolicy, words_of

FORMAT = "str-app-detector/1"
METADATA_KEY = "str_app_detector"
GREY = 127  # beyond the edge of a picture


class WordDetector:
    """Finds words, each with its direction, with a graph that `str_app.export.detector_graph` wrote.

    Args:
        file: the graph.
        threads: CPU threads; all usable cores if None.
        longest_side: larger photographs are shrunk to it. Smaller ones are not enlarged.
        policy: thresholds; None is the default.

    Raises:
        StrAppError: the file is missing, damaged, or another graph.
    """

    unit: Literal["word", "line"] = "word"

    def __init__(
        self,
        file: str | Path,
        threads: int | None = None,
        longest_side: int = LONGEST_SIDE,
        policy: WordMapPolicy | None = None,
    ) -> None:
        try:
            self._session = SessionOfProcess(partial(open_session, file, arena=False), threads)
            header = json.loads(self._session().get_modelmeta().custom_metadata_map[METADATA_KEY])
            self.name = str(header["name"])
        except Exception as error:  # ONNX Runtime raises various types
            raise StrAppError(f"{file}: not a word detector that ONNX Runtime can run ({error})") from error
        if header.get("format") != FORMAT:
            raise StrAppError(f"{file}: format {header.get('format')!r}; this version reads {FORMAT!r}")
        self.longest_side = longest_side
        self.policy = policy or WordMapPolicy()
        self._arguments = (file, threads, longest_side, self.policy)

    def __reduce__(self) -> tuple[Any, ...]:
        # A session cannot be pickled: another process opens the file itself.
        return type(self), self._arguments

    def find(self, photo: npt.NDArray[np.uint8]) -> list[Detection]:
        """See `str_app.photos.detector.Detector.find`."""
        height, width = photo.shape[:2]
        ratio = shrink_ratio(height, width, self.longest_side)
        rows, columns = max(1, round(height * ratio)), max(1, round(width * ratio))
        padded = np.full((1, -(-rows // MULTIPLE) * MULTIPLE, -(-columns // MULTIPLE) * MULTIPLE, 3), GREY, np.uint8)
        padded[0, :rows, :columns] = (
            cv2.resize(photo, (columns, rows), interpolation=cv2.INTER_AREA) if ratio < 1 else photo
        )
        scores, edges = self._session().run(None, {"pictures": padded})
        scale = np.array([width / columns, height / rows], np.float32)
        found = words_of(scores[0], edges[0], self.policy)
        return [
            Detection(np.clip(word.quad * scale, 0, (width, height)).astype(np.float32), word.score) for word in found
        ]
