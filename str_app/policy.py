"""The thresholds of views and search, each with where it was measured."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple


class TurnWeights(NamedTuple):
    """Weights of a conditional logit over a crop's turns; docs/log/reading.md, "Which way up".

    Attributes:
        confidence: of log c, where c is the reading's confidence.
        certainty: of −log(1 − c).
        letters: of −log(1 − p), where p is the product of the characters' confidences.
        length: of log(1 + characters).
        turned: added for every turn but the upright one.
        lone: added if such a turn reads a single character.
    """

    confidence: float = 0.70
    certainty: float = 0.20
    letters: float = 0.67
    length: float = 3.29
    turned: float = -1.42
    lone: float = -3.33


@dataclass(frozen=True)
class SearchPolicy:
    """How hard a crop is looked at. A `Reader` passes one to views and decoding.

    All were chosen on validation crops (official training splits) or on renderings, never on benchmarks; the sections
    named are those of docs/log/reading.md.

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
        turns: what makes a turn probable where a crop is read in several ("Which way up").
        squeeze: a line that the widest canvas holds only when squeezed by more than this is also read in parts ("Lines
            too long for the canvas").
        overlap: canvas columns that neighbouring parts share: three or four letters (same section).
        seam_reach: at a seam, characters up to this many pitches beyond the overlap are aligned too (same section; so
            are the next eight).
        seam_skip: cost of a character that only one part has, where both see it well; of one that both read differently
            it is 1.
        seam_move: cost of a shift by one pitch, squared, between two parts' places of the same character.
        sight: a character this many pitches from its part's edge is seen in full.
        seam_floor: how well a character at the very edge is seen.
        disputed: share of the confidence lost where parts that see well dispute a character, or agree on none.
        doubled: confidence kept per pair of equal digits in a line that is also read in parts.
        blank_end: a line that ends more than this many pitches before its crop does …
        cut_short: … keeps this share of its confidence: its end was not read.
        blank: return no text where there is too little evidence of any ("Pictures without text"; so are the next
            five).
        evidence_from: so many first characters of a reading …
        least_evidence: … must have this mean confidence;
        lone_evidence: a single character this one;
        improbable: a reading below this confidence …
        improbable_evidence: … must have this mean confidence.
        steepest: slopes beyond this are clipped when a line is levelled: text on its side, or a guess ("A third look:
            levelled"; so are the next five).
        thinnest: a levelled line keeps at least this share of the crop's height.
        room: height kept around a levelled line; boxes are often too tight.
        least_bend: sag of a bent line, in heights of the crop, below which it is taken as straight.
        fewest_bent: characters from which on a line may bend.
        stiffness: weight of the squared sag beside the squared distances of the characters in the fit.
        unsettled: a reading that is still below this confidence is read again in variants of its crop ("Variants of
            what can hardly be read"; so are the next nine), …
        short: … if the crop is less than this many times as wide as high:
        tilts: levelled as if its line rose or fell by these shares of its height;
        widening: continued by this share of its height at all sides;
        squeezed: to this share of its width.
        lost: below this confidence, by all `tilts` instead of the first, and in negative and …
        cuts: … cut by these shares of its height at the top and bottom, and of its width at either end. Texts are
            chosen by the sum of their confidences, …
        own_votes: … where those of the reading itself count so many times;
        fewest_alone: a text that one variant alone has needs so many characters, …
        clear: … and any variant's reading this mean confidence of its first `evidence_from` characters.
    """

    beam: int = 8
    sure: float = 0.95
    doubted: float = 0.8
    faint: float = 0.3
    slack: float = math.log(10)
    hopeless: float = math.log(100)
    margin: float = 1e-4
    tall: float = 1.4
    turns: TurnWeights = field(default_factory=TurnWeights)
    squeeze: float = 1.5
    overlap: int = 64
    seam_reach: float = 0.8
    seam_skip: float = 2.0
    seam_move: float = 0.025
    sight: float = 1.5
    seam_floor: float = 0.1
    disputed: float = 0.5
    doubled: float = 0.9
    blank_end: float = 2.5
    cut_short: float = 0.1
    blank: bool = True
    evidence_from: int = 5
    least_evidence: float = 0.4
    lone_evidence: float = 0.25
    improbable: float = 0.001
    improbable_evidence: float = 0.5
    steepest: float = 1.2
    thinnest: float = 0.3
    room: float = 1.08
    least_bend: float = 0.05
    fewest_bent: int = 5
    stiffness: float = 0.5
    unsettled: float = 0.8
    short: float = 5.0
    tilts: tuple[float, ...] = (0.2, 0.4)
    widening: float = 0.3
    squeezed: float = 0.7
    lost: float = 0.4
    cuts: tuple[tuple[float, float], ...] = ((0.12, 0.0), (0.08, 0.04))
    own_votes: float = 1.5
    fewest_alone: int = 3
    clear: float = 0.6


DEFAULT_POLICY = SearchPolicy()
