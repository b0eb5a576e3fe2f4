"""Decoding within a lexicon: the most probable of given words."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from str_app.decoding.result import Decoded
from str_app.decoding.scoring import Scorer
from str_app.decoding.search import Extension, Frontier, Hypothesis, Look, search
from str_app.models.charset import Charset
from str_app.policy import DEFAULT_POLICY


class Trie:
    """A lexicon for constrained decoding, case-insensitive.

    Args:
        words: spelt as they shall be returned; of those that differ in case alone, or in whether their accents are
            characters of their own, the first is kept.
        charset: of the model that will read with it.
        max_length: most characters of a word, as in `Engine`; None: words of any length.

    Raises:
        ValueError: no word is left, `words` or a word is of the wrong type, or a word is empty, too long, or has a
            character that the model cannot read in either case.
    """

    def __init__(self, words: Iterable[str], charset: Charset, max_length: int | None = None) -> None:
        self._tokens: dict[str, list[int]] = {}
        for index, char in enumerate(charset.characters, 1):
            self._tokens.setdefault(char.lower(), []).append(index)
        self.root = _TrieNode()
        if isinstance(words, str):
            raise ValueError(f"the lexicon is the text {words[:40]!r}: give a list of words")
        for word in words:
            if not isinstance(word, str):
                raise ValueError(f"the lexicon has {word!r:.40}, a {type(word).__name__}: give texts only")
            folded = word.lower()
            if any(char not in self._tokens for char in folded):  # its accents may be characters of their own
                folded = unicodedata.normalize("NFC", word).lower()
            if not folded:
                raise ValueError("the lexicon has an empty word: remove it")
            unreadable = [char for char in folded if char not in self._tokens]
            if unreadable:
                raise ValueError(
                    f"lexicon word {word!r}: the model's charset has no {unreadable[0]!r}; remove the word"
                )
            if max_length is not None and len(folded) > max_length:
                raise ValueError(
                    f"lexicon word {word!r} has {len(folded)} characters, more than the {max_length} of the model; "
                    "remove it"
                )
            node = self.root
            for char in folded:
                node = node.children.setdefault(char, _TrieNode())
            if node.word is None:
                node.word = word
        if not self.root.children:
            raise ValueError("the lexicon is empty: give at least one word")

    def tokens(self, char: str) -> list[int]:
        """Classes of both cases of a folded character."""
        return self._tokens[char]


@dataclass
class _TrieNode:
    children: dict[str, _TrieNode] = field(default_factory=dict)
    word: str | None = None


def lexicon_search(
    scorer: Scorer,
    canvases: npt.NDArray[np.uint8],
    widths: npt.NDArray[np.int64],
    lexicon: Trie | Sequence[Trie],
    width: int = DEFAULT_POLICY.beam,
) -> list[Decoded]:
    """The most probable lexicon word among the `width` best prefixes kept at each step.

    Both cases of a letter count: their probabilities are added, the likelier one is fed to the next step. Texts are
    spelt as in the lexicon. Words longer than the engine's `max_length` are never found.

    Args:
        scorer, canvases, widths: as for `str_app.decoding.beam.beam_search`.
        lexicon: one for all crops, or one a crop.
        width: prefixes kept.

    Raises:
        ValueError: not one lexicon a crop, or no word of a crop's lexicon is short enough.
    """
    tries = [lexicon] * len(canvases) if isinstance(lexicon, Trie) else list(lexicon)
    if len(tries) != len(canvases):
        raise ValueError(f"{len(tries)} lexicons for {len(canvases)} crops: give one, or one a crop")

    def expand(frontier: Frontier) -> Iterator[tuple[int, Extension]]:
        for index, (prefix, log_probs) in enumerate(zip(frontier.hypotheses, frontier.log_probs, strict=True)):
            node: _TrieNode = prefix.node
            if node.word is not None:
                end = float(log_probs[Charset.END])
                yield index, Extension(prefix.text, Charset.END, end, end, node=node)
            for char, child in () if frontier.must_end else node.children.items():
                tokens = tries[prefix.crop].tokens(char)
                likelier = max(tokens, key=lambda token: float(log_probs[token]))
                either = float(np.logaddexp.reduce(log_probs[tokens]))
                yield index, Extension(prefix.text + char, likelier, either, either, node=child)

    if len(canvases) == 0:
        return []
    memory, state = scorer.encode(canvases, widths)
    roots = {crop: trie.root for crop, trie in enumerate(tries)}
    looks = [Look(memory, state, range(len(canvases)))]
    ends = search(scorer, looks, width, expand, roots, dict.fromkeys(roots, -math.inf))
    return [_best_word(crop, hypotheses, scorer.max_length) for crop, hypotheses in ends.items()]


def _best_word(crop: int, hypotheses: list[Hypothesis], max_length: int) -> Decoded:
    if not hypotheses:
        raise ValueError(f"crop {crop}: no lexicon word has at most {max_length} characters")
    best = max(hypotheses, key=lambda hypothesis: hypothesis.log_prob)
    node: _TrieNode = best.node
    assert node.word is not None
    characters = list(best.character_log_probs)
    return Decoded(node.word, best.log_prob, sum(characters), characters, np.stack(best.attention))
