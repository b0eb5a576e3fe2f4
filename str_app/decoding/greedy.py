"""Greedy decoding: the most probable character at each step."""

from __future__ import annotations

import numpy as np

from str_app.decoding.result import Decoded
from str_app.decoding.scoring import ScoredGreedy, other_case_log_probs
from str_app.models.charset import Charset


def decoded_steps(steps: ScoredGreedy, charset: Charset, max_length: int) -> list[Decoded]:
    """The text of each crop from the steps of greedy decoding.

    Args:
        steps: of B crops.
        charset: of the model.
        max_length: most characters of a text; a longer one is cut there, its end at whatever probability it has.
    """
    tokens = steps.log_probs.argmax(axis=2)
    tokens[:, max_length:] = Charset.END
    own = np.take_along_axis(steps.log_probs, tokens[:, :, None], axis=2)
    others = other_case_log_probs(steps.log_probs, tokens[:, :, None], np.array(charset.other_case))
    either_case = np.logaddexp(own, others)
    decoded = []
    for row, length in enumerate((tokens == Charset.END).argmax(axis=1).tolist()):
        text = charset.decode(tokens[row].tolist())
        upto = slice(length + 1)
        characters = either_case[row, upto, 0].tolist()
        log_prob = float(own[row, upto].sum())
        decoded.append(Decoded(text, log_prob, sum(characters), characters, steps.attention[row, upto]))
    return decoded
