"""Takes lines apart into words with a small network of ours, run by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from str_app.engines.onnx_session import SessionOfProcess, open_session
from str_app.models.detectors.gap_columns import HEIGHT, STRIDE
from str_app.photos.words import WordBox

FILE = Path(__file__).parents[1] / "models" / "weights" / "word_gaps.onnx"
MAX_WIDTH = 4096  # pixels of the scaled line: more than 128 heights are no line


class GapPolicy(NamedTuple):
    """Thresholds, chosen on composed scenes; see docs/how-to/photographs.md.

    Attributes:
        inside: columns with a higher probability belong to a word.
        least_gap: narrower gaps are no gaps; in heights of the line. So are the next two.
        least_word: narrower words are dropped.
        least_height: where a word seems lower, as a share of the line's height, it gets all of it.
        margin: added on the left and right of a word.
    """

    inside: float = 0.3
    least_gap: float = 0.0625
    least_word: float = 0.1
    least_height: float = 0.2
    margin: float = 0.04


DEFAULT_GAPS = GapPolicy()


class GapNetwork:
    """Our network of words and gaps, as exported to ONNX.

    Args:
        threads: CPU threads; all usable cores if None.
        policy: thresholds.
    """

    def __init__(self, threads: int | None = None, policy: GapPolicy = DEFAULT_GAPS) -> None:
        self._session = SessionOfProcess(partial(open_session, FILE, arena=False), threads)
        self.policy = policy
        self._arguments = (threads, policy)

    def __reduce__(self) -> tuple[Any, ...]:
        # A session cannot be pickled: another process opens the file itself.
        return type(self), self._arguments

    def words(self, lines: Sequence[npt.NDArray[np.uint8]]) -> list[list[WordBox]]:
        """See `WordSeparator.words`."""
        run = self._session().run
        return [words_of(run(None, {"lines": scale(line)[None]})[0][0], self.policy) for line in lines]


def scale(line: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """A line at the height and a width that the network takes."""
    height, width = line.shape[:2]
    scaled_width = STRIDE * int(np.clip(round(width * HEIGHT / height / STRIDE), 4, MAX_WIDTH // STRIDE))
    method = cv2.INTER_AREA if height > HEIGHT else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(line, (scaled_width, HEIGHT), interpolation=method), dtype=np.uint8)


def words_of(columns: npt.NDArray[np.float32], policy: GapPolicy) -> list[WordBox]:
    """The words of a line; the whole line as one word if there are none.

    Args:
        columns: of the network, float32 (3, W / STRIDE): logit of lying within a word, top, bottom.
        policy: thresholds.
    """
    per_height = HEIGHT / STRIDE
    inside = columns[0] > np.log(policy.inside / (1 - policy.inside))
    edges = np.flatnonzero(np.diff(np.concatenate([[False], inside, [False]]).astype(np.int8)))
    joined: list[list[int]] = []
    for start, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        if joined and start - joined[-1][1] < policy.least_gap * per_height:
            joined[-1][1] = end
        else:
            joined.append([start, end])
    count, margin = columns.shape[1], policy.margin * per_height
    words = []
    for start, end in joined:
        if end - start >= policy.least_word * per_height:
            top, bottom = (float(np.median(columns[row, start:end])) for row in (1, 2))
            if bottom - top < policy.least_height:
                top, bottom = 0.0, 1.0
            left, right = max(0.0, (start - margin) / count), min(1.0, (end + margin) / count)
            words.append((left, right, max(0.0, top), min(1.0, bottom)))
    return words or [(0.0, 1.0, 0.0, 1.0)]
