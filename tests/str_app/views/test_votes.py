"""Which text is chosen among a reading and those of its crop's variants."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from str_app.policy import DEFAULT_POLICY
from str_app.reading import Character, Reading
from str_app.views import Canvas
from str_app.views.variants import elected

VIEW = Canvas(np.zeros((32, 96, 3), np.uint8), 96, (40, 100))


def reading(text: str, confidence: float) -> Reading:
    return Reading(text, confidence, tuple(Character(c, 0.9, (0.0, 0.0, 9.0, 40.0)) for c in text))


def choose(own: Reading, *others: Reading) -> Reading:
    return elected(own, [(VIEW, other) for other in others], DEFAULT_POLICY)


def test_the_largest_sum_wins_whatever_the_case() -> None:
    own = reading("HOTEI", 0.1)
    chosen = choose(own, reading("HOTEL", 0.2), reading("Hotel", 0.5), reading("HOTTER", 0.4))
    assert chosen.text == "Hotel"  # the surest spelling
    assert chosen.confidence == pytest.approx((0.7 / 4.5) ** 0.5)


def test_the_reading_itself_counts_one_and_a_half_times() -> None:
    own = reading("HOTEI", 0.4)
    assert choose(own, reading("HOTEL", 0.55)).text == "HOTEI"
    assert choose(own, reading("HOTEL", 0.65)).text == "HOTEL"


def test_every_text_that_was_found_counts() -> None:
    own = replace(reading("HOTEI", 0.4), shares={"hotei": 0.4, "hotel": 0.3})
    posed = replace(reading("HOTEI", 0.4), shares={"hotei": 0.4, "hotel": 0.38})
    seen = replace(reading("hotel", 0.5), shares={"hotel": 0.5, "hotei": 0.1})
    chosen = choose(own, posed, seen)
    assert chosen.text == "hotel"
    assert chosen.confidence == pytest.approx((1.33 / 3.5) ** 0.5)
    assert choose(own, posed, posed).text == "HOTEI"  # nothing is chosen that no view is read as


def test_one_variant_alone_needs_three_characters() -> None:
    own = reading("", 0.0)
    assert choose(own, reading("IT", 0.9)) == own
    assert choose(own, reading("IT", 0.9), reading("it", 0.1)).text == "IT"
    assert choose(own, reading("ITS", 0.9)).text == "ITS"


def test_confidence_rises_only_if_a_variant_is_read_alike() -> None:
    own = reading("HOTEL", 0.3)
    assert choose(own, reading("hotel", 0.1)).confidence == pytest.approx((0.55 / 2.5) ** 0.5)
    assert choose(own, reading("HOTEI", 0.1)).confidence == 0.3  # the root of 0.45 / 2.5 is more
    assert choose(own, *[reading("", 0.0)] * 9).confidence == pytest.approx((0.45 / 10.5) ** 0.5)


def test_a_variant_that_is_hardly_seen_has_no_vote() -> None:
    own, faint = reading("HOTEI", 0.1), reading("HOTEL", 0.9)
    faint = replace(faint, characters=tuple(replace(c, confidence=0.5) for c in faint.characters))
    assert choose(own, faint, faint) == own


def test_boxes_and_attention_of_a_variant_are_returned_to_the_crop() -> None:
    """Of one that shows the left half of the crop."""
    half = replace(VIEW, region=(0.0, 0.0, 0.5, 1.0))
    attention = np.zeros((5, 8, 24), np.float32)
    attention[:, :, 12] = 1 / 8
    seen = replace(reading("LEFT", 0.9), attention=attention)
    chosen = elected(reading("", 0.0), [(half, seen)], DEFAULT_POLICY)
    assert chosen.characters[0].box == (0.0, 0.0, 4.5, 40.0)
    assert chosen.attention is not None
    assert chosen.attention[0].sum(axis=0).argmax() == 6
