"""What decoding returns for one crop."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Decoded:
    """The text of one crop, before it becomes a `Reading` with boxes.

    Attributes:
        text: without the end token.
        log_prob: natural log-probability of the text as it is spelt, end token included; of a lexicon's word, in either
            case.
        log_confidence: natural log of the probability that this text, in either case, is what the crop says: by the
            network alone the sum of `character_log_probs`; with a prior its share among the texts found.
        character_log_probs: log-probability of each character, in either case, and, last, of the end token.
        attention: float32 (characters + 1, H', W'), where the network looked for each of them.
        shares: of each text that was found, in lower case, its share of the probability, prior included; empty if the
            beam is 1, and with a lexicon.
    """

    text: str
    log_prob: float
    log_confidence: float
    character_log_probs: list[float]
    attention: npt.NDArray[np.float32]
    shares: dict[str, float] = field(default_factory=dict)
