"""Beam search over the steps of a network; what may follow a prefix is the caller's to say."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from str_app.buckets import padded_size
from str_app.decoding.scoring import ScoredMemory, Scorer
from str_app.engines.base import State
from str_app.models.charset import Charset


class Look(NamedTuple):
    """One way in which the crops of a batch have been seen.

    Attributes:
        memory, state: from `Scorer.encode`.
        rows: crop → its row in `memory`.
        in_place: whether characters stand where they do in the batch, so that the attention of this look may be used.
    """

    memory: ScoredMemory
    state: State
    rows: Mapping[int, int] | Sequence[int]
    in_place: bool = True


class Hypothesis(NamedTuple):
    """A prefix of one crop's text.

    Attributes:
        crop: its index in the batch.
        log_prob: of its characters, as they are spelt.
        text: without the end.
        token: the last class; 0 after the end, and before the first character.
        character_log_probs: of each character in either case, the end's included.
        attention: (H', W') of each.
        bonus: see `Extension`.
        node: the caller's own state, such as a node of a trie.
    """

    crop: int
    log_prob: float = 0.0
    text: str = ""
    token: int = Charset.END
    character_log_probs: tuple[float, ...] = ()
    attention: tuple[npt.NDArray[np.float32], ...] = ()
    bonus: float = 0.0
    node: Any = None


class Extension(NamedTuple):
    """A class that may follow a hypothesis.

    Attributes:
        text: of the hypothesis and the new character.
        token: the class.
        log_prob: added to the hypothesis's.
        character_log_prob: of the character in either case.
        bonus: upper bound of what a prior adds to a text with this prefix; exactly what it adds once the text has
            ended.
        node: the caller's own state after it.
    """

    text: str
    token: int
    log_prob: float
    character_log_prob: float
    bonus: float = 0.0
    node: Any = None


class Frontier(NamedTuple):
    """The hypotheses that are extended next.

    Attributes:
        hypotheses: R.
        log_probs: float32 (R, V), of each class that may follow.
        floors: (R,); extensions whose `log_prob + bonus` is not above may be left out.
        must_end: the texts are as long as they may get.
    """

    hypotheses: Sequence[Hypothesis]
    log_probs: npt.NDArray[np.float32]
    floors: npt.NDArray[np.float64]
    must_end: bool


# Extensions of a frontier: index of the hypothesis, and what may follow it.
Expand = Callable[[Frontier], Iterable[tuple[int, Extension]]]


def search(
    scorer: Scorer,
    looks: Sequence[Look],
    width: int,
    expand: Expand,
    roots: Mapping[int, Any],
    floors: Mapping[int, float],
    slack: float = 0.0,
    hopeless: float = math.inf,
) -> dict[int, list[Hypothesis]]:
    """Search some crops of a batch; the finished hypotheses of each.

    Args:
        scorer: runs the steps.
        looks: the mean of their probabilities counts, and of the attention of those that are in place.
        width: prefixes kept for each crop.
        expand: what may follow a prefix.
        roots: the crops to search, and the caller's state at the beginning of each.
        floors: what `log_prob + bonus` of a text must exceed, by crop.
        slack: a finished text may be worse than the best finished one by this much.
        hopeless: a prefix may be worse than the best one of its step by this much.
    """
    running = [Hypothesis(crop, node=node) for crop, node in roots.items()]
    parents: list[int] = []
    states = [look.state for look in looks]
    finished: dict[int, list[Hypothesis]] = {crop: [] for crop in roots}
    to_beat = dict(floors)
    for position in range(scorer.max_length + 1):
        # Rows that nobody reads fill up to a bucket: engines take memory for every size that they meet.
        rows = np.zeros((3, padded_size(len(running))), dtype=np.int64)
        used = rows[:, : len(running)]
        used[0] = [hypothesis.token for hypothesis in running]
        steps = []
        for look, state in zip(looks, states, strict=True):
            used[1] = [look.rows[hypothesis.crop] for hypothesis in running]
            used[2] = parents or used[1]
            steps.append(scorer.step(look.memory, state, *rows))
        states = [step.state for step in steps]
        # The mean of probabilities reads validation crops better than the mean of their logarithms.
        log_probs = np.logaddexp.reduce([step.log_probs[: len(running)] for step in steps]) - math.log(len(steps))
        in_place = [step.attention for look, step in zip(looks, steps, strict=True) if look.in_place]
        attention = np.mean(in_place, axis=0)
        step_floors = np.array([to_beat[hypothesis.crop] - hypothesis.log_prob for hypothesis in running])
        frontier = Frontier(running, log_probs, step_floors, must_end=position == scorer.max_length)
        candidates: dict[int, list[tuple[float, int, Extension]]] = {}
        for index, extension in expand(frontier):
            # Log-probabilities and bounds of bonuses only fall: what is not above the floor now never will be.
            if extension.log_prob + extension.bonus > step_floors[index]:
                total = running[index].log_prob + extension.log_prob + extension.bonus
                candidates.setdefault(running[index].crop, []).append((total, index, extension))
        parents = []
        longer: list[Hypothesis] = []
        for crop, choices in candidates.items():
            choices.sort(key=lambda choice: -choice[0])
            # Finished hypotheses compete for a place in the beam, then leave it.
            for total, index, extension in choices[:width]:
                if total <= to_beat[crop] or total < choices[0][0] - hopeless:
                    break
                hypothesis = _extended(running[index], extension, attention[index])
                if extension.token == Charset.END:
                    finished[crop].append(hypothesis)
                    to_beat[crop] = max(to_beat[crop], total - slack)
                else:
                    parents.append(index)
                    longer.append(hypothesis)
        if not longer:
            break
        running = longer
    return finished


def _extended(prefix: Hypothesis, extension: Extension, attention: npt.NDArray[np.float32]) -> Hypothesis:
    return Hypothesis(
        prefix.crop,
        prefix.log_prob + extension.log_prob,
        extension.text,
        extension.token,
        (*prefix.character_log_probs, extension.character_log_prob),
        (*prefix.attention, attention),
        extension.bonus,
        extension.node,
    )
