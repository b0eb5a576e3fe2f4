"""Probes have exactly the length, height, rotation and contrast that were asked for."""

from __future__ import annotations

import string
from pathlib import Path

import numpy as np
import pytest

from str_app.datasets.renderer import FontSet, WordList, find_fonts
from str_app.datasets.renderer.fonts import FontError
from str_app.datasets.renderer.probes import MARGIN, Probe, ProbeSource
from tests.datasets.renderer_fonts import write_font

WORDS = WordList(["hi", "there", "market", "station", "it's", "x1"], [4, 2, 2, 1, 1, 1])


@pytest.fixture(scope="module")
def fonts(tmp_path_factory: pytest.TempPathFactory) -> FontSet:
    folder = tmp_path_factory.mktemp("fonts")
    write_font(folder / "plain.ttf")
    return find_fonts(folder, cache=folder / "cache.json")


def first(fonts: FontSet, probe: Probe, seed: int = 0) -> np.ndarray:
    return ProbeSource(fonts, WORDS, probe, 1, seed)[0].image


def test_the_same_seed_draws_the_same_bytes_in_any_order(fonts: FontSet) -> None:
    one, other = (ProbeSource(fonts, WORDS, Probe(), 6, seed=3) for _ in range(2))
    forwards = [one[k].image for k in range(6)]
    backwards = [other[k].image for k in reversed(range(6))][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(forwards, backwards, strict=True))
    assert [one.label(k) for k in range(6)] == [one[k].text for k in range(6)]
    assert [one.label(k) for k in range(6)] != [
        ProbeSource(fonts, WORDS, Probe(), 6, seed=4).label(k) for k in range(6)
    ]


def test_fonts_without_the_glyphs_are_an_error_of_ours(tmp_path: Path) -> None:
    write_font(tmp_path / "poor.ttf", without=string.ascii_lowercase)
    poor = find_fonts(tmp_path, cache=tmp_path / "cache.json")
    source = ProbeSource(poor, WORDS, Probe(length=(5, 5)), 20)  # some of them in small letters
    with pytest.raises(FontError, match=r"no font has all the glyphs of '.*': install more fonts"):
        list(map(source.__getitem__, range(20)))


@pytest.mark.parametrize("length", [1, 2, 5, 26, 40])
@pytest.mark.parametrize("text", ["words", "letters"])
def test_texts_have_the_length(fonts: FontSet, length: int, text: str) -> None:
    source = ProbeSource(fonts, WORDS, Probe(length=(length, length), text=text), 5)  # type: ignore[arg-type]
    labels = [source.label(k) for k in range(5)]
    assert {len(label) for label in labels} == {length}
    assert all(label.isalpha() for label in labels)


def test_words_are_preferred_to_joined_ones(fonts: FontSet) -> None:
    source = ProbeSource(fonts, WORDS, Probe(length=(5, 7)), 20)
    assert {source.label(k).lower() for k in range(20)} == {"there", "market", "station"}


@pytest.mark.parametrize("height", [8, 20, 48])
def test_capitals_have_the_height(fonts: FontSet, height: int) -> None:
    words = WordList(["HIHI"], [1])
    source = ProbeSource(fonts, words, Probe(length=(4, 4), letter_height=height, contrast=1.0), 8)
    image = next(source[k].image for k in range(8) if source.label(k).isupper())
    paper = int(image[0, 0, 0])
    rows = np.flatnonzero((np.abs(image[..., 0].astype(int) - paper) > 100).any(axis=1))
    assert rows[-1] + 1 - rows[0] == pytest.approx(height, abs=1)
    assert rows[0] == pytest.approx(MARGIN * height, abs=1)


def test_rotation_turns_counter_clockwise_and_keeps_the_word_inside(fonts: FontSet) -> None:
    flat, quarter = (first(fonts, Probe(rotation=degrees)) for degrees in (0, 90))
    assert quarter.shape[0] == pytest.approx(flat.shape[1], abs=2)
    # Noise aside, a quarter turn counter-clockwise is NumPy's rot90.
    turned = np.rot90(flat).astype(int)
    height, width = min(turned.shape[0], quarter.shape[0]), min(turned.shape[1], quarter.shape[1])
    difference = np.abs(turned[:height, :width] - quarter[:height, :width].astype(int)).mean()
    opposite = np.abs(np.rot90(flat, -1).astype(int)[:height, :width] - quarter[:height, :width].astype(int)).mean()
    assert difference < 0.5 * opposite


@pytest.mark.parametrize("contrast", [0.1, 0.5, 1.0])
def test_contrast_is_the_difference_of_paper_and_ink(fonts: FontSet, contrast: float) -> None:
    image = first(fonts, Probe(contrast=contrast)).astype(float)
    paper = np.median(image[:3])
    ink = np.percentile(image, 2) if paper > 127 else np.percentile(image, 98)
    assert abs(paper - ink) / 255 == pytest.approx(contrast, abs=0.03)


def test_other_properties_leave_the_text_alone(fonts: FontSet) -> None:
    probes = [Probe(), Probe(letter_height=8), Probe(rotation=45), Probe(contrast=0.1)]
    assert len({ProbeSource(fonts, WORDS, probe, 3).label(2) for probe in probes}) == 1


def test_an_index_outside_is_refused(fonts: FontSet) -> None:
    with pytest.raises(IndexError, match="probe 3 of 3"):
        ProbeSource(fonts, WORDS, Probe(), 3)[3]
