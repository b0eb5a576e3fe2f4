"""Every threshold of reading, each with where it was measured."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class SearchPolicy:
    """How hard a crop is looked at. A `Reader` passes one to views and decoding; nothing else holds a threshold.

    All were chosen on validation crops (official training splits) or on renderings, never on benchmarks; the sections
    named are those of docs/training.md.

    Attributes:
        beam: prefixes kept by the beam search ("Known words and numbers": 12 reads no better than 8).
        sure: a greedy reading with more than this probability is not searched, however unusual its text ("Which
            readings are searched, and which get more looks").
        doubted: a reading that is still below this confidence after a search is decoded again from three looks (same
            section).
        faint: a greedy reading below this probability goes straight to the three looks (same section: the same
            readings, one search less).
        slack: with a prior, texts whose log-probability is lower than the best's by at most this are kept, because
            confidences are shares of all texts found ("Known words and numbers").
        hopeless: prefixes whose log-probability is lower than the best's of the same step by more than this are dropped
            ("A second look: the negative": a sixth of the search's time, same readings).
        margin: a searched text must be better than the greedy one by this log-probability. Sums of float32 depend on
            the batch; readings must not.
        tall: from this height over width on, a crop is also read lying on either side ("Narrow and tall crops").
        lone_height: in a crop of this height over width, a single character …
        lone_confidence: … below this confidence gives way to the other turns ("Crops twice as tall as wide").
        squeeze: a line that the widest canvas holds only when squeezed by more than this is also read in parts ("Lines
            too long for the canvas").
        overlap: canvas columns that neighbouring parts share: three or four letters (same section).
        near: two parts mean the same character if its centres are this close, in heights of the crop: attention is
            imprecise where a part ends (same section).
        least_joined: characters from which on the joined parts may replace the whole line's reading (same section).
        steepest: slopes beyond this are clipped when a line is levelled: text on its side, or a guess ("A third look:
            levelled"; so are the next five).
        thinnest: a levelled line keeps at least this share of the crop's height.
        room: height kept around a levelled line; boxes are often too tight.
        least_bend: sag of a bent line, in heights of the crop, below which it is taken as straight.
        fewest_bent: characters from which on a line may bend.
        stiffness: weight of the squared sag beside the squared distances of the characters in the fit.
    """

    beam: int = 8
    sure: float = 0.95
    doubted: float = 0.8
    faint: float = 0.3
    slack: float = math.log(10)
    hopeless: float = math.log(100)
    margin: float = 1e-4
    tall: float = 1.4
    lone_height: float = 2.0
    lone_confidence: float = 0.85
    squeeze: float = 1.5
    overlap: int = 64
    near: float = 0.6
    least_joined: int = 16
    steepest: float = 1.2
    thinnest: float = 0.3
    room: float = 1.08
    least_bend: float = 0.05
    fewest_bent: int = 5
    stiffness: float = 0.5


DEFAULT_POLICY = SearchPolicy()
