"""Free text: greedy decoding, and a search where another text could be more probable."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from str_app.decoding.greedy import decoded_steps
from str_app.decoding.looks import further_looks
from str_app.decoding.result import Decoded
from str_app.decoding.scoring import Mask, Scorer, other_case_log_probs
from str_app.decoding.search import Extension, Frontier, Hypothesis, Look, search
from str_app.models.charset import Charset
from str_app.policy import DEFAULT_POLICY, SearchPolicy


class Prior(Protocol):
    """How likely texts are regardless of the picture; see `str_app.decoding.word_prior.WordPrior`.

    Attributes:
        max_bonus: the largest bonus of any text.
    """

    max_bonus: float

    def __call__(self, text: str) -> float:
        """The bonus: what is added to the log-probability of `text`, at least 0."""

    def upper_bound(self, prefix: str) -> float:
        """No less than the bonus of any text with this prefix."""


def beam_search(
    scorer: Scorer,
    canvases: npt.NDArray[np.uint8],
    widths: npt.NDArray[np.int64],
    prior: Prior | None = None,
    policy: SearchPolicy = DEFAULT_POLICY,
    allowed: Mask | None = None,
) -> list[Decoded]:
    """The most probable text of each crop that greedy decoding, or a beam search, finds.

    Only crops whose greedy text another one could beat are searched: without a prior, those whose greedy text has at
    most half of the probability. Texts that are still in doubt then (`SearchPolicy.doubted`, `SearchPolicy.faint`)
    are searched in the mean of three looks. With a prior its bonus is added to each log-probability.

    Args:
        scorer: of the engine that runs the network.
        canvases: uint8 (B, height, width, 3).
        widths: int64 (B,), columns that each crop covers.
        prior: bonus of each text.
        policy: beam and thresholds; a beam of 1 is greedy decoding alone, without prior and looks.
        allowed: bool (B, V), the classes that each text may have; None: all.

    Raises:
        ValueError: a beam below 1.
    """
    if policy.beam < 1:
        raise ValueError(f"beam width {policy.beam}: give 1 or more")
    if len(canvases) == 0:
        return []
    memory, state = scorer.encode(canvases, widths, allowed)
    greedy = decoded_steps(scorer.decode_greedy(memory, state), scorer.charset, scorer.max_length)
    if policy.beam == 1:
        return greedy
    beam = _Beam(scorer, prior, policy)
    candidates = [[_Candidate(decoded, prior(decoded.text) if prior else 0.0)] for decoded in greedy]
    unsure = [crop for crop, (only,) in enumerate(candidates) if beam.may_be_beaten(only)]
    floors = {
        crop: candidates[crop][0].total + policy.margin - beam.slack
        for crop in unsure
        if math.exp(candidates[crop][0].log_either) >= policy.faint
    }
    look = Look(memory, state, range(len(canvases)))
    for crop, searched in beam.search([look], floors).items():
        candidates[crop] += [candidate for candidate in searched if candidate.source.text != greedy[crop].text]
    decoded = [beam.best(choices) for choices in candidates]
    doubted = [crop for crop in unsure if crop not in floors or math.exp(decoded[crop].log_confidence) < policy.doubted]
    if doubted:
        looks = [look, *further_looks(scorer, canvases, widths, greedy, doubted, policy, allowed)]
        for crop, searched in beam.search(looks, dict.fromkeys(doubted, -math.inf)).items():
            decoded[crop] = beam.best(searched)
    return decoded


class _Candidate(NamedTuple):
    """A complete text that may be chosen."""

    source: Decoded | Hypothesis
    bonus: float

    @property
    def total(self) -> float:
        return self.source.log_prob + self.bonus

    @property
    def log_either(self) -> float:
        """Log-probability of the text in either case."""
        return sum(self.source.character_log_probs)


class _Beam:
    """The search of one batch."""

    def __init__(self, scorer: Scorer, prior: Prior | None, policy: SearchPolicy) -> None:
        self._scorer = scorer
        self._prior = prior
        self._policy = policy
        self._other_case = np.array(scorer.charset.other_case)
        self._characters = ["", *scorer.charset.characters]
        self._max_bonus = prior.max_bonus if prior else 0.0
        self.slack = policy.slack if prior else 0.0

    def search(self, looks: Sequence[Look], floors: Mapping[int, float]) -> dict[int, list[_Candidate]]:
        """The finished texts of the crops that have a floor."""
        if not floors:
            return {}
        width, hopeless = self._policy.beam, self._policy.hopeless
        roots = dict.fromkeys(floors)
        finished = search(self._scorer, looks, width, self._expand, roots, floors, self.slack, hopeless)
        # The bound of a text that has ended is its bonus.
        return {crop: [_Candidate(end, end.bonus) for end in ends] for crop, ends in finished.items()}

    def _expand(self, frontier: Frontier) -> Iterator[tuple[int, Extension]]:
        log_probs, width = frontier.log_probs, self._policy.beam
        if frontier.must_end:
            best = np.full((len(log_probs), 1), Charset.END)
        else:
            best = np.argpartition(-log_probs, min(width, log_probs.shape[1] - 1), axis=1)[:, :width]
        own = np.take_along_axis(log_probs, best, axis=1)
        rows, columns = np.nonzero(own + self._max_bonus > frontier.floors[:, None])
        tokens, own = best[rows, columns], own[rows, columns]
        others = other_case_log_probs(log_probs[rows], tokens[:, None], self._other_case)[:, 0]
        for row, token, log_prob, either in zip(
            rows.tolist(), tokens.tolist(), own.tolist(), np.logaddexp(own, others).tolist(), strict=True
        ):
            text, bonus = frontier.hypotheses[row].text + self._characters[token], 0.0
            if self._prior:
                bonus = self._prior(text) if token == Charset.END else self._prior.upper_bound(text)
            yield row, Extension(text, token, log_prob, either, bonus)

    def may_be_beaten(self, greedy: _Candidate) -> bool:
        """Whether all that the greedy text leaves of the probability could win, if it were one text's."""
        log_prob = greedy.log_either if self._max_bonus else greedy.source.log_prob
        if log_prob >= 0 or (self._max_bonus and log_prob > math.log(self._policy.sure)):
            return False
        return math.log(-math.expm1(log_prob)) + self._max_bonus > greedy.total

    def best(self, candidates: Sequence[_Candidate]) -> Decoded:
        """The candidate with the highest total, and its confidence: its own, or with a prior its share of all found.

        The first, which is the greedy text where that competes, unless another is better by `SearchPolicy.margin`.
        """
        best = max(candidates, key=lambda candidate: candidate.total)
        if best.total < candidates[0].total + self._policy.margin:
            best = candidates[0]
        source = best.source
        shares = _shares(best, candidates)
        confidence = best.log_either
        if self._prior:
            share = shares[source.text.lower()]
            confidence = math.log(share) if share else -math.inf  # 0 as where the longest text had to end
        attention = source.attention if isinstance(source, Decoded) else np.stack(source.attention)
        return Decoded(source.text, source.log_prob, confidence, list(source.character_log_probs), attention, shares)


def _shares(best: _Candidate, candidates: Sequence[_Candidate]) -> dict[str, float]:
    """Each text's share of the probability, in either case and weighed by its bonus."""
    masses: dict[str, tuple[float, float]] = {}  # of each text in either case: probability, and with its bonus
    for candidate in candidates:
        mass, text = math.exp(min(0.0, candidate.log_either)), candidate.source.text.lower()
        masses[text] = max(masses.get(text, (0.0, 0.0)), (mass, mass * math.exp(candidate.bonus)))
    # Texts that were not found are assumed to have half of the best's bonus.
    rest = max(0.0, 1 - sum(mass for mass, _ in masses.values())) * math.exp(best.bonus / 2)
    total = sum(weight for _, weight in masses.values()) + rest
    return {text: weight / total for text, (_, weight) in masses.items()}
