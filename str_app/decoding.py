"""From an engine's steps to text: greedy, beam, and beam within a lexicon. Knows nothing but the engine boundary."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from models.charset import Charset
from str_app.engine import Engine


@dataclass(frozen=True)
class Decoded:
    """One reading.

    Attributes:
        text: without the end token.
        character_log_probs: natural log-probabilities of each character and, last, of the end token.
        attention: float32 (len(text) + 1, H', W'), where the network looked for each of them.
    """

    text: str
    character_log_probs: list[float]
    attention: npt.NDArray[np.float32]

    @property
    def log_prob(self) -> float:
        """Log-probability of the whole reading, end token included."""
        return float(sum(self.character_log_probs))


def greedy(
    engine: Engine, canvases: npt.NDArray[np.uint8], widths: npt.NDArray[np.int64], *, stop_early: bool = True
) -> list[Decoded]:
    """The most probable character at each step, until every sequence of the batch has ended.

    Args:
        engine: see `str_app.engine.Engine`.
        canvases: uint8 (B, height, width, 3).
        widths: int64 (B,).
        stop_early: False runs all `max_length + 1` steps; the readings are the same.
    """
    batch = len(canvases)
    if batch == 0:
        return []
    memory, state = engine.encode(canvases, widths)
    tokens = np.zeros(batch, dtype=np.int64)
    ended = np.zeros(batch, dtype=bool)
    chosen: list[npt.NDArray[np.int64]] = []
    log_probs: list[npt.NDArray[np.float32]] = []
    attention: list[npt.NDArray[np.float32]] = []
    for position in range(engine.max_length + 1):
        step = engine.step(memory, state, tokens)
        state = step.state
        # A sequence that is as long as it may get ends here, at whatever probability the end has.
        tokens = step.log_probs.argmax(axis=1) if position < engine.max_length else np.zeros_like(tokens)
        chosen.append(tokens)
        log_probs.append(step.log_probs[np.arange(batch), tokens])
        attention.append(step.attention)
        ended |= tokens == Charset.END
        if stop_early and ended.all():
            break
    text_ids = np.stack(chosen, axis=1)
    readings = []
    for row in range(batch):
        length = int(np.argmax(text_ids[row] == Charset.END))
        readings.append(
            Decoded(
                engine.charset.decode(text_ids[row].tolist()),
                [float(step[row]) for step in log_probs[: length + 1]],
                np.stack([step[row] for step in attention[: length + 1]]),
            )
        )
    return readings


class Trie:
    """A lexicon for constrained decoding, case-insensitive.

    Args:
        words: spelt as they shall be returned; of words that differ in case alone the first is kept.
        charset: of the model that will read with it.

    Raises:
        ValueError: no word is left, or a word is empty or has a character that the model cannot read in either case.
    """

    def __init__(self, words: Iterable[str], charset: Charset) -> None:
        self._tokens: dict[str, list[int]] = {}
        for index, char in enumerate(charset.characters, 1):
            self._tokens.setdefault(char.lower(), []).append(index)
        self.root = _TrieNode()
        for word in words:
            folded = word.lower()
            if not folded:
                raise ValueError("the lexicon has an empty word: remove it")
            unreadable = [char for char in folded if char not in self._tokens]
            if unreadable:
                raise ValueError(f"lexicon word {word!r}: the model's charset has no {unreadable[0]!r}")
            node = self.root
            for char in folded:
                node = node.children.setdefault(char, _TrieNode())
            if node.word is None:
                node.word = word
        if not self.root.children:
            raise ValueError("the lexicon is empty: give at least one word")

    def tokens(self, char: str) -> list[int]:
        """Indices of both cases of a folded character."""
        return self._tokens[char]


@dataclass
class _TrieNode:
    children: dict[str, _TrieNode] = field(default_factory=dict)
    word: str | None = None


@dataclass(frozen=True)
class _Hypothesis:
    """A prefix: the row of the running batch that holds its state, its characters' log-probabilities and maps."""

    row: int
    score: float
    tokens: tuple[int, ...] = ()
    log_probs: tuple[float, ...] = ()
    attention: tuple[npt.NDArray[np.float32], ...] = ()
    node: _TrieNode | None = None


class _Expand(Protocol):
    """Which tokens may follow a hypothesis, with their log-probabilities and the trie node they lead to."""

    def __call__(
        self, image: int, hypothesis: _Hypothesis, log_probs: npt.NDArray[np.float32], must_end: bool
    ) -> list[tuple[int, float, _TrieNode | None]]: ...


def beam_search(
    engine: Engine, canvases: npt.NDArray[np.uint8], widths: npt.NDArray[np.int64], width: int = 5
) -> list[Decoded]:
    """The most probable reading among the `width` best prefixes kept at each step; width 1 is greedy."""
    if width < 1:
        raise ValueError(f"beam width {width}: give 1 or more")

    def expand(
        image: int, hypothesis: _Hypothesis, log_probs: npt.NDArray[np.float32], must_end: bool
    ) -> list[tuple[int, float, _TrieNode | None]]:
        if must_end:
            return [(Charset.END, float(log_probs[Charset.END]), None)]
        best = np.argsort(-log_probs, kind="stable")[:width]
        return [(int(token), float(log_probs[token]), None) for token in best]

    roots: list[_TrieNode | None] = [None] * len(canvases)
    found = _search(engine, canvases, widths, width, expand, roots)
    return [
        Decoded(engine.charset.decode(best.tokens), list(best.log_probs), np.stack(best.attention)) for best in found
    ]


def lexicon_search(
    engine: Engine,
    canvases: npt.NDArray[np.uint8],
    widths: npt.NDArray[np.int64],
    lexicon: Trie | Sequence[Trie],
    width: int = 8,
) -> list[Decoded]:
    """The most probable lexicon word among the `width` best prefixes kept at each step.

    Both cases of a letter count: their probabilities are added, the likelier one is fed to the next step. Texts are
    spelt as in the lexicon. Words longer than the engine's `max_length` are never found.

    Args:
        engine, canvases, widths: as for `greedy`.
        lexicon: one for all crops, or one a crop.
        width: prefixes kept.

    Raises:
        ValueError: not one lexicon a crop, or no word of a crop's lexicon is short enough.
    """
    tries = [lexicon] * len(canvases) if isinstance(lexicon, Trie) else list(lexicon)
    if len(tries) != len(canvases):
        raise ValueError(f"{len(tries)} lexicons for {len(canvases)} crops: give one, or one a crop")

    def expand(
        image: int, hypothesis: _Hypothesis, log_probs: npt.NDArray[np.float32], must_end: bool
    ) -> list[tuple[int, float, _TrieNode | None]]:
        node = hypothesis.node
        assert node is not None
        options: list[tuple[int, float, _TrieNode | None]] = []
        if node.word is not None:
            options.append((Charset.END, float(log_probs[Charset.END]), node))
        if not must_end:
            for char, child in node.children.items():
                tokens = tries[image].tokens(char)
                likelier = max(tokens, key=lambda token: float(log_probs[token]))
                options.append((likelier, float(np.logaddexp.reduce(log_probs[tokens])), child))
        return options

    found = _search(engine, canvases, widths, width, expand, [trie.root for trie in tries])
    return [_as_word(best) for best in found]


def _as_word(best: _Hypothesis) -> Decoded:
    assert best.node is not None
    assert best.node.word is not None
    return Decoded(best.node.word, list(best.log_probs), np.stack(best.attention))


def _search(
    engine: Engine,
    canvases: npt.NDArray[np.uint8],
    widths: npt.NDArray[np.int64],
    width: int,
    expand: _Expand,
    roots: Sequence[_TrieNode | None],
) -> list[_Hypothesis]:
    """Beam search of a batch: every image's best finished hypothesis."""
    if len(canvases) == 0:
        return []
    memory, state = engine.encode(canvases, widths)
    live = [[_Hypothesis(row, 0.0, node=root)] for row, root in enumerate(roots)]
    finished: list[_Hypothesis | None] = [None] * len(canvases)
    tokens = np.zeros(len(canvases), dtype=np.int64)
    for position in range(engine.max_length + 1):
        step = engine.step(memory, state, tokens)
        for image, hypotheses in enumerate(live):
            candidates = [
                _Hypothesis(
                    hypothesis.row,
                    hypothesis.score + log_prob,
                    (*hypothesis.tokens, token),
                    (*hypothesis.log_probs, log_prob),
                    (*hypothesis.attention, step.attention[hypothesis.row]),
                    node,
                )
                for hypothesis in hypotheses
                for token, log_prob, node in expand(
                    image, hypothesis, step.log_probs[hypothesis.row], position == engine.max_length
                )
            ]
            # Finished hypotheses compete for a place, then leave; scores only fall, so what cannot win is dropped.
            candidates = sorted(candidates, key=lambda candidate: -candidate.score)
            kept: list[_Hypothesis] = []
            for candidate in candidates[:width]:
                best = finished[image]
                if best is not None and candidate.score <= best.score:
                    continue
                if candidate.tokens[-1] == Charset.END:
                    finished[image] = candidate
                else:
                    kept.append(candidate)
            best = finished[image]
            live[image] = [one for one in kept if best is None or one.score > best.score]
        running = [(image, hypothesis) for image, hypotheses in enumerate(live) for hypothesis in hypotheses]
        if not running:
            break
        memory, state = engine.select(memory, step.state, np.array([one.row for _, one in running], dtype=np.int64))
        tokens = np.array([one.tokens[-1] for _, one in running], dtype=np.int64)
        live = [[] for _ in live]
        for row, (image, one) in enumerate(running):
            moved = _Hypothesis(row, one.score, one.tokens, one.log_probs, one.attention, one.node)
            live[image].append(moved)
    if any(best is None for best in finished):
        place = next(image for image, best in enumerate(finished) if best is None)
        raise ValueError(f"crop {place}: no lexicon word has at most {engine.max_length} characters")
    return [best for best in finished if best is not None]
