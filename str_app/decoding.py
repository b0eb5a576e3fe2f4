"""From an engine's steps to text: greedy, beam, and beam within a lexicon. Knows nothing but the engine boundary."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from str_app.engines.base import Engine, Memory, State
from str_app.models.charset import Charset
from str_app.models.preprocessing import widen
from str_app.passes import padded_size
from str_app.views import levelling

BEAM = 8  # wider finds little more on validation crops
# What has more than this probability is not searched, however unlikely a text it is.
SURE = 0.95
# What is less sure than this once it has been searched is looked at three times; for the rest it would cost as much and
# change nothing.
DOUBTED = 0.8
# What greedy decoding gives less than this hardly ever becomes sure by a search, so that waits for the three looks.
FAINT = 0.3
# With a prior, readings a tenth as probable as the best are found too: confidences are shares.
SLACK = math.log(10)
# Prefixes a hundredth as probable as the best are given up: a sixth of a search's time, and nothing on validation.
HOPELESS = math.log(100)
# By so much must a searched reading be more probable: sums of float32 depend on the batch, readings must not.
MARGIN = 1e-4


@dataclass(frozen=True)
class Decoded:
    """One reading.

    Attributes:
        text: without the end token.
        log_prob: natural log-probability of the text as it is spelt, end token included; of a lexicon's word, in
            either case.
        log_confidence: natural log of the probability that this text, in either case, is what the crop says: by the
            network alone the sum of `character_log_probs`; with a prior its share among the readings found.
        character_log_probs: log-probabilities of each character, in either case, and, last, of the end token.
        attention: float32 (len(text) + 1, H', W'), where the network looked for each of them.
    """

    text: str
    log_prob: float
    log_confidence: float
    character_log_probs: list[float]
    attention: npt.NDArray[np.float32]


def greedy(engine: Engine, canvases: npt.NDArray[np.uint8], widths: npt.NDArray[np.int64]) -> list[Decoded]:
    """The most probable character at each step, until every sequence of the batch has ended.

    Args:
        engine: see `str_app.engines.base.Engine`.
        canvases: uint8 (B, height, width, 3).
        widths: int64 (B,).
    """
    if len(canvases) == 0:
        return []
    return _greedy(engine, *engine.encode(canvases, widths))


def _greedy(engine: Engine, memory: Memory, state: State) -> list[Decoded]:
    log_probs, attention = engine.follow(memory, state)
    tokens = log_probs.argmax(axis=2)
    # A sequence that is as long as it may get ends there, at whatever probability the end has.
    tokens[:, engine.max_length :] = Charset.END
    own = np.take_along_axis(log_probs, tokens[:, :, None], axis=2)
    others = other_case_log_probs(log_probs, tokens[:, :, None], np.array(engine.charset.other_case))
    either_case = np.logaddexp(own, others)
    readings = []
    for row, length in enumerate((tokens == Charset.END).argmax(axis=1).tolist()):
        text = engine.charset.decode(tokens[row].tolist())
        steps = slice(length + 1)
        characters = either_case[row, steps, 0].tolist()
        readings.append(Decoded(text, float(own[row, steps].sum()), sum(characters), characters, attention[row, steps]))
    return readings


def other_case_log_probs(
    log_probs: npt.NDArray[np.float32], tokens: npt.NDArray[np.int64], other_case: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """Log-probabilities of the same letters in their other case; -inf where there is none.

    Args:
        log_probs: (..., V).
        tokens: (..., k), of each distribution.
        other_case: (V,), `Charset.other_case`.

    Returns:
        (..., k).
    """
    other = other_case[tokens]
    return np.where(other == tokens, -np.inf, np.take_along_axis(log_probs, other, axis=-1))


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


class _Hypothesis(NamedTuple):
    """A prefix of one image's reading.

    Attributes:
        image: its place in the batch.
        log_prob: of its characters, as they are spelt.
        text: without the end.
        token: the last; 0 after the end, and before the first.
        character_log_probs: of each in either case, the end's included.
        attention: (H', W') of each.
        outlook: see `_Option`.
        node: of the trie, where it stands.
    """

    image: int
    log_prob: float = 0.0
    text: str = ""
    token: int = Charset.END
    character_log_probs: tuple[float, ...] = ()
    attention: tuple[npt.NDArray[np.float32], ...] = ()
    outlook: float = 0.0
    node: _TrieNode | None = None


class _Option(NamedTuple):
    """A token that may follow a hypothesis.

    Attributes:
        text: the hypothesis's and the character.
        token: its index.
        log_prob: what it adds to the log-probability.
        character_log_prob: of the character in either case.
        outlook: the most that the prior may add to a text that begins so; what it does add once the text has ended.
        node: of the trie that it leads to.
    """

    text: str
    token: int
    log_prob: float
    character_log_prob: float
    outlook: float = 0.0
    node: _TrieNode | None = None


class _Front(NamedTuple):
    """Where a search stands.

    Attributes:
        hypotheses: R.
        log_probs: float32 (R, V), of what may follow each.
        least: (R,); options of lower log-probability and outlook together may be left out.
        must_end: no text may grow any longer.
    """

    hypotheses: Sequence[_Hypothesis]
    log_probs: npt.NDArray[np.float32]
    least: npt.NDArray[np.float64]
    must_end: bool


# What may follow: places among the hypotheses, and options.
_Expand = Callable[[_Front], Iterable[tuple[int, _Option]]]


class Prior(Protocol):
    """How likely a text is before anybody has looked; see `str_app.word_prior.WordPrior`."""

    most: float

    def __call__(self, text: str) -> float:
        """What is added to the log-probability of `text`."""

    def outlook(self, beginning: str) -> float:
        """No less than what is added to any text that begins so."""


def beam_search(
    engine: Engine,
    canvases: npt.NDArray[np.uint8],
    widths: npt.NDArray[np.int64],
    width: int = BEAM,
    prior: Prior | None = None,
) -> list[Decoded]:
    """The most probable reading that greedy decoding, or a search among the `width` best prefixes, finds.

    With a prior its bonus is added to each log-probability. Only the greedy readings that another one could beat are
    searched: without a prior, those with at most half of the probability. What is found with a confidence below
    `DOUBTED`, or given less than `FAINT` greedily, is looked at in negative and laid level as well, and searched in the
    mean of the three looks. Width 1 is greedy, without any of this.

    Args:
        engine, canvases, widths: as for `greedy`.
        width: prefixes kept.
        prior: bonus of a text.
    """
    if width < 1:
        raise ValueError(f"beam width {width}: give 1 or more")
    if len(canvases) == 0:
        return []
    memory, state = engine.encode(canvases, widths)
    readings = _greedy(engine, memory, state)
    if width == 1:
        return readings
    look = _Look(memory, state, range(len(canvases)))
    other_case = np.array(engine.charset.other_case)
    characters = ["", *engine.charset.characters]

    def expand(front: _Front) -> Iterator[tuple[int, _Option]]:
        log_probs = front.log_probs
        if front.must_end:
            best = np.full((len(log_probs), 1), Charset.END)
        else:
            best = np.argpartition(-log_probs, min(width, log_probs.shape[1] - 1), axis=1)[:, :width]
        own = np.take_along_axis(log_probs, best, axis=1)
        places, columns = np.nonzero(own + most > front.least[:, None])
        tokens, own = best[places, columns], own[places, columns]
        others = other_case_log_probs(log_probs[places], tokens[:, None], other_case)[:, 0]
        for place, token, log_prob, either in zip(
            places.tolist(), tokens.tolist(), own.tolist(), np.logaddexp(own, others).tolist(), strict=True
        ):
            text, outlook = front.hypotheses[place].text + characters[token], 0.0
            if prior:
                outlook = prior(text) if token == Charset.END else prior.outlook(text)
            yield place, _Option(text, token, log_prob, either, outlook)

    def search(looks: Sequence[_Look], floors: Mapping[int, float]) -> dict[int, list[_Candidate]]:
        if not floors:
            return {}
        finished = _search(engine, looks, width, expand, dict.fromkeys(floors), floors, slack, HOPELESS)
        # The outlook of a text that has ended is its bonus.
        return {row: [_Candidate(one, one.outlook) for one in ends] for row, ends in finished.items()}

    most, slack = (prior.most, SLACK) if prior else (0.0, 0.0)
    found = [[_Candidate(reading, prior(reading.text) if prior else 0.0)] for reading in readings]
    unsure = [row for row, (greedily,) in enumerate(found) if _may_be_beaten(greedily, most)]
    floors = {
        row: found[row][0].total + MARGIN - slack for row in unsure if math.exp(found[row][0].log_either) >= FAINT
    }
    for row, others in search([look], floors).items():
        found[row] += [one for one in others if one.source.text != readings[row].text]
    decoded = [_most_probable(candidates, bool(prior)) for candidates in found]
    doubted = [row for row in unsure if row not in floors or math.exp(decoded[row].log_confidence) < DOUBTED]
    if doubted:
        looks = [
            look,
            _look_again(engine, 255 - canvases[doubted], widths[doubted], doubted),
            _look_again(engine, *_levelled(engine, canvases, widths, readings, doubted), doubted, placed=False),
        ]
        for row, others in search(looks, dict.fromkeys(doubted, -math.inf)).items():
            decoded[row] = _most_probable(others, bool(prior))
    return decoded


class _Look(NamedTuple):
    """One way to see a batch.

    Attributes:
        memory, state: after `encode`.
        places: of each image of the batch among those seen so.
        placed: whether characters stand where they do in the batch.
    """

    memory: Memory
    state: State
    places: Mapping[int, int] | Sequence[int]
    placed: bool = True


def _look_again(
    engine: Engine,
    canvases: npt.NDArray[np.uint8],
    widths: npt.NDArray[np.int64],
    rows: Sequence[int],
    placed: bool = True,
) -> _Look:
    """Some rows of a batch on canvases that show them otherwise: what the network makes of them errs elsewhere."""
    filled = [*range(len(rows)), *[0] * (padded_size(len(rows)) - len(rows))]
    memory, state = engine.encode(canvases[filled], widths[filled])
    return _Look(memory, state, {row: place for place, row in enumerate(rows)}, placed)


def _levelled(
    engine: Engine,
    canvases: npt.NDArray[np.uint8],
    widths: npt.NDArray[np.int64],
    readings: Sequence[Decoded],
    rows: Sequence[int],
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Some rows of a batch laid level, on the widest canvas: one size, whatever else is there."""
    preprocessing = engine.preprocessing
    levelled = np.empty((len(rows), preprocessing.height, preprocessing.width, 3), np.uint8)
    covered = np.empty(len(rows), np.int64)
    for place, row in enumerate(rows):
        line = levelling.fit_line(readings[row].attention[: len(readings[row].text)], canvases.shape[1:3])
        canvas, covered[place] = preprocessing(levelling.level(canvases[row, :, : widths[row]], line))
        levelled[place] = widen(canvas, preprocessing.width)
    return levelled, covered


class _Candidate(NamedTuple):
    """A complete reading that may be chosen."""

    source: Decoded | _Hypothesis
    bonus: float

    @property
    def total(self) -> float:
        return self.source.log_prob + self.bonus

    @property
    def log_either(self) -> float:
        """Log-probability of the text in either case."""
        return sum(self.source.character_log_probs)


def _may_be_beaten(greedily: _Candidate, most: float) -> bool:
    """Whether what the greedy reading leaves of the probability could win, if all of it were one reading's."""
    log_prob = greedily.log_either if most else greedily.source.log_prob
    if log_prob >= 0 or (most and log_prob > math.log(SURE)):
        return False
    return math.log(-math.expm1(log_prob)) + most > greedily.total


def _most_probable(candidates: Sequence[_Candidate], share_confidence: bool) -> Decoded:
    """The one with the highest total, and how sure it is: by itself, or as its share among all that was found.

    The first, which is the greedy reading where that competes, unless another is better by a margin.
    """
    best = max(candidates, key=lambda candidate: candidate.total)
    if best.total < candidates[0].total + MARGIN:
        best = candidates[0]
    confidence = best.log_either
    if share_confidence:
        masses: dict[str, tuple[float, float]] = {}  # of each text in either case: probability, and with its bonus
        for one in candidates:
            mass, text = math.exp(min(0.0, one.log_either)), one.source.text.lower()
            masses[text] = max(masses.get(text, (0.0, 0.0)), (mass, mass * math.exp(one.bonus)))
        # What was not found is taken for half as favoured as the best.
        rest = max(0.0, 1 - sum(mass for mass, _ in masses.values())) * math.exp(best.bonus / 2)
        weighed = masses[best.source.text.lower()][1]
        confidence = math.log(weighed / (sum(weight for _, weight in masses.values()) + rest))
    source = best.source
    attention = source.attention if isinstance(source, Decoded) else np.stack(source.attention)
    return Decoded(source.text, source.log_prob, confidence, list(source.character_log_probs), attention)


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

    def expand(front: _Front) -> Iterator[tuple[int, _Option]]:
        for place, (hypothesis, chances) in enumerate(zip(front.hypotheses, front.log_probs, strict=True)):
            node, text = hypothesis.node, hypothesis.text
            assert node is not None
            if node.word is not None:
                end = float(chances[Charset.END])
                yield place, _Option(text, Charset.END, end, end, node=node)
            for char, child in () if front.must_end else node.children.items():
                tokens = tries[hypothesis.image].tokens(char)
                likelier = max(tokens, key=lambda token: float(chances[token]))
                either = float(np.logaddexp.reduce(chances[tokens]))
                yield place, _Option(text + char, likelier, either, either, node=child)

    if len(canvases) == 0:
        return []
    memory, state = engine.encode(canvases, widths)
    roots = {image: trie.root for image, trie in enumerate(tries)}
    looks = [_Look(memory, state, range(len(canvases)))]
    ends = _search(engine, looks, width, expand, roots, dict.fromkeys(roots, -math.inf))
    return [_as_word(image, hypotheses, engine.max_length) for image, hypotheses in ends.items()]


def _as_word(place: int, hypotheses: list[_Hypothesis], max_length: int) -> Decoded:
    if not hypotheses:
        raise ValueError(f"crop {place}: no lexicon word has at most {max_length} characters")
    best = max(hypotheses, key=lambda hypothesis: hypothesis.log_prob)
    assert best.node is not None
    assert best.node.word is not None
    characters = list(best.character_log_probs)
    return Decoded(best.node.word, best.log_prob, sum(characters), characters, np.stack(best.attention))


def _search(
    engine: Engine,
    looks: Sequence[_Look],
    width: int,
    expand: _Expand,
    roots: Mapping[int, _TrieNode | None],
    floors: Mapping[int, float],
    slack: float = 0.0,
    hopeless: float = math.inf,
) -> dict[int, list[_Hypothesis]]:
    """Beam search of some images of a batch: the finished hypotheses of each.

    Args:
        engine: runs the steps.
        looks: ways to see each image; their probabilities are averaged, and the attention of those that are placed.
        width: prefixes kept.
        expand: what may follow a prefix.
        roots: the images to search, and where each one's first prefix stands.
        floors: what a log-probability and its outlook must exceed, from the beginning.
        slack: by so much less than the best that has finished may another have.
        hopeless: by so much less than the best of a step may another have.
    """
    running = [_Hypothesis(image, node=root) for image, root in roots.items()]
    parents: list[int] = []
    states = [look.state for look in looks]
    finished: dict[int, list[_Hypothesis]] = {image: [] for image in roots}
    to_beat = dict(floors)
    for position in range(engine.max_length + 1):
        # Rows that nobody reads fill up to a usual size: the engine takes memory for every size it meets.
        rows = np.zeros((3, padded_size(len(running))), dtype=np.int64)
        own = rows[:, : len(running)]
        own[0] = [one.token for one in running]
        steps = []
        for look, state in zip(looks, states, strict=True):
            own[1] = [look.places[one.image] for one in running]
            own[2] = parents or own[1]
            steps.append(engine.step(look.memory, state, *rows))
        states = [step.state for step in steps]
        # The mean of probabilities: better than that of their logarithms on validation crops.
        log_probs = np.logaddexp.reduce([step.log_probs[: len(running)] for step in steps]) - math.log(len(steps))
        placed = [step.attention for look, step in zip(looks, steps, strict=True) if look.placed]
        attention = np.mean(placed, axis=0)
        least = np.array([to_beat[one.image] - one.log_prob for one in running])
        front = _Front(running, log_probs, least, must_end=position == engine.max_length)
        candidates: dict[int, list[tuple[float, int, _Option]]] = {}
        for place, option in expand(front):
            # Log-probabilities and outlooks only fall, so what has no chance already never has one.
            if option.log_prob + option.outlook > least[place]:
                total = running[place].log_prob + option.log_prob + option.outlook
                candidates.setdefault(running[place].image, []).append((total, place, option))
        parents = []
        longer: list[_Hypothesis] = []
        for image, choices in candidates.items():
            choices.sort(key=lambda choice: -choice[0])
            # Finished hypotheses compete for a place, then leave.
            for total, place, option in choices[:width]:
                if total <= to_beat[image] or total < choices[0][0] - hopeless:
                    break
                parent = running[place]
                one = _Hypothesis(
                    image,
                    parent.log_prob + option.log_prob,
                    option.text,
                    option.token,
                    (*parent.character_log_probs, option.character_log_prob),
                    (*parent.attention, attention[place]),
                    option.outlook,
                    option.node,
                )
                if option.token == Charset.END:
                    finished[image].append(one)
                    to_beat[image] = max(to_beat[image], total - slack)
                else:
                    parents.append(place)
                    longer.append(one)
        if not longer:
            break
        running = longer
    return finished
