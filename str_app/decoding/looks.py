"""Further looks at crops whose text is in doubt: in negative, and levelled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from str_app.buckets import padded_size
from str_app.decoding.result import Decoded
from str_app.decoding.scoring import Mask, Scorer
from str_app.decoding.search import Look
from str_app.policy import SearchPolicy
from str_app.views.levelling import levelled_canvas


def further_looks(
    scorer: Scorer,
    canvases: npt.NDArray[np.uint8],
    widths: npt.NDArray[np.int64],
    decoded: Sequence[Decoded],
    crops: Sequence[int],
    policy: SearchPolicy,
    allowed: Mask | None = None,
) -> list[Look]:
    """Encode some crops of a batch in negative, and sheared until their line of characters is level.

    The network makes other mistakes on them than on the crops as they are. docs/log/reading.md, "A second look:
    the negative" and "A third look: levelled".

    Args:
        scorer: encodes them.
        canvases: uint8 (B, height, width, 3), of the batch.
        widths: int64 (B,).
        decoded: the greedy text of each crop of the batch; its attention tells where the line runs.
        crops: which crops of the batch.
        policy: how lines are levelled.
        allowed: of the batch; see `ScoredMemory`.
    """
    chosen = list(crops)
    chosen_allowed = None if allowed is None else allowed[chosen]
    negative = _encoded(scorer, 255 - canvases[chosen], widths[chosen], crops, chosen_allowed)
    preprocessing = scorer.preprocessing
    # On the widest canvas: one shape, whatever else is in the batch.
    levelled = np.empty((len(crops), preprocessing.height, preprocessing.width, 3), np.uint8)
    covered = np.empty(len(crops), np.int64)
    for row, crop in enumerate(crops):
        attention = decoded[crop].attention[: len(decoded[crop].text)]
        levelled[row], covered[row] = levelled_canvas(
            canvases[crop], int(widths[crop]), attention, preprocessing, policy
        )
    return [negative, _encoded(scorer, levelled, covered, crops, chosen_allowed, in_place=False)]


def _encoded(
    scorer: Scorer,
    canvases: npt.NDArray[np.uint8],
    widths: npt.NDArray[np.int64],
    crops: Sequence[int],
    allowed: Mask | None,
    in_place: bool = True,
) -> Look:
    """Encode the canvases, one a crop, filled up to a bucket by copies of the first."""
    filled = [*range(len(crops)), *[0] * (padded_size(len(crops)) - len(crops))]
    memory, state = scorer.encode(canvases[filled], widths[filled], None if allowed is None else allowed[filled])
    return Look(memory, state, {crop: row for row, crop in enumerate(crops)}, in_place)
