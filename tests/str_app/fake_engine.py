"""An engine that reads text painted as coloured stripes: exact, fast, and without a network."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from str_app.engines.base import GreedySteps, Step
from str_app.models.charset import Charset
from str_app.models.preprocessing import Preprocessing
from str_app.policy import SearchPolicy

CELL = 8  # canvas columns per character
CELLS = 16
PAPER = 250
AS_PAINTED = SearchPolicy(unsettled=0.0)  # without variants, in which a painted letter is another one


def paint(text: str, probability: float | list[float] = 0.99, scale: int = 1) -> np.ndarray:
    """A crop that `FakeEngine` reads as `text`: red holds the character, green its probability in 255ths.

    Returns:
        uint8 (32 · scale, 8 · scale · (len(text) + 1), 3): one cell per character and one of paper.
    """
    charset = Charset()
    chances = [probability] * len(text) if isinstance(probability, float) else probability
    cells = np.full((32, len(text) + 1, 3), PAPER, dtype=np.uint8)
    for place, (char, chance) in enumerate(zip(text, chances, strict=True)):
        cells[:, place] = (charset.encode(char)[0] * 2, round(chance * 255), 0)
    return np.repeat(np.repeat(cells, CELL * scale, axis=1), scale, axis=0)


class Painted(NamedTuple):
    """Classes and probabilities per cell, (B, CELLS); the number of characters, (B,)."""

    classes: np.ndarray
    chances: np.ndarray
    lengths: np.ndarray


class FakeEngine:
    """Implements `str_app.engines.base.Engine`; a character's likeliest mistake is the next one of the charset."""

    name = "fake"
    max_length = CELLS
    caches_shapes = True

    def __init__(self) -> None:
        self.charset = Charset()
        self.preprocessing = Preprocessing(height=32, widths=(CELL * CELLS,), widen_below=0)  # cells keep their width
        self.info = {"name": "fake", "parameters": 0}
        self.batches: list[int] = []

    def encode(self, canvases: np.ndarray, widths: np.ndarray) -> tuple[Painted, np.ndarray]:
        self.batches.append(len(canvases))
        cells = canvases[:, 16, CELL // 2 :: CELL].astype(np.int64)
        cells = np.where(np.isin(cells[:, :1, 2:], (255, 255 - PAPER)), 255 - cells, cells)  # reads negatives as well
        covered = (np.arange(CELLS) * CELL + CELL // 2)[None] < widths[:, None]
        is_character = (cells[:, :, 2] < PAPER // 2) & covered
        lengths = np.where(is_character.all(1), CELLS, np.argmin(is_character, axis=1))
        classes = np.clip((cells[:, :, 0] + 1) // 2, 1, len(self.charset))
        return Painted(classes, cells[:, :, 1] / 255.0, lengths), np.zeros(len(canvases), dtype=np.int64)

    def step(
        self, memory: Painted, state: np.ndarray, tokens: np.ndarray, crops: np.ndarray, parents: np.ndarray
    ) -> Step:
        return self._advance(Painted(*(part[crops] for part in memory)), state[parents])

    def decode_greedy(self, memory: Painted, state: np.ndarray) -> GreedySteps:
        steps = [self._advance(memory, state + place) for place in range(int(memory.lengths.max()) + 1)]
        return GreedySteps(np.stack([s.logits for s in steps], 1), np.stack([s.attention for s in steps], 1))

    def _advance(self, memory: Painted, state: np.ndarray) -> Step:
        batch = np.arange(len(state))
        place = np.minimum(state, CELLS - 1)
        ended = state >= memory.lengths
        right = np.where(ended, 0, memory.classes[batch, place])
        chance = np.where(ended, 0.99, memory.chances[batch, place])
        rival = right % len(self.charset) + 1
        probs = np.full((len(state), self.charset.num_classes), 1e-9)
        probs[batch, rival] = 1.0 - chance + 1e-9
        probs[batch, right] = chance
        attention = np.zeros((len(state), 1, CELLS), dtype=np.float32)
        attention[batch, 0, place] = 1.0
        return Step(np.log(probs / probs.sum(1, keepdims=True)).astype(np.float32), state + 1, attention)

    def use_threads(self, count: int) -> None:
        """It computes nothing worth a thread."""
