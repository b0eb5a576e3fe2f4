"""Boxes follow the geometry; the same seed gives the same crop; nothing outside is touched."""

from __future__ import annotations

import colorsys
import dataclasses
import math
import random
from collections.abc import Callable
from typing import get_args

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from str_app.datasets.augmentation import _RANGES, Augmentation, Strength, _colour, _degrade, map_boxes
from str_app.datasets.sample import Sample
from tests.datasets.pictures import picture

Change = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]
CENTRES = (20, 50, 80)


def marked(height: int = 40, width: int = 100) -> Sample:
    """Three discs, told apart by their colour channel, with their boxes."""
    image = np.zeros((height, width, 3), dtype=np.uint8)
    for channel, x in enumerate(CENTRES):
        colour = [0, 0, 0]
        colour[channel] = 255
        cv2.circle(image, (x, height // 2), 6, colour, -1)
    boxes = np.array([[x - 6, height // 2 - 6, x + 7, height // 2 + 7] for x in CENTRES], dtype=np.float32)
    return Sample(image, "abc", boxes)


def geometry_only(strength: Strength, seed: int, sample: Sample, monkeypatch: pytest.MonkeyPatch) -> Sample:
    monkeypatch.setattr("str_app.datasets.augmentation._colour", lambda image, ranges, rng: image)
    monkeypatch.setattr("str_app.datasets.augmentation._degrade", lambda image, ranges, rng: image)
    return Augmentation(strength)(sample, seed)


@pytest.mark.parametrize("strength", ["light", "strong"])
def test_boxes_follow_the_geometry(strength: Strength, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = 0
    for seed in range(60):
        sample = geometry_only(strength, seed, marked(), monkeypatch)
        assert sample.boxes is not None
        moved += sample.image.shape != marked().image.shape
        for channel, (x0, y0, x1, y1) in enumerate(sample.boxes):
            rows, columns = np.nonzero(sample.image[..., channel] > 127)
            # The box around a warped box is never tighter than the disc and has its centre; a pixel is its whole area.
            assert x0 - 0.6 <= columns.min() <= (x0 + x1) / 2 <= columns.max() + 1 <= x1 + 0.6
            assert y0 - 0.6 <= rows.min() <= (y0 + y1) / 2 <= rows.max() + 1 <= y1 + 0.6
            assert abs((columns.min() + columns.max() + 1) / 2 - (x0 + x1) / 2) < 1.5
            assert abs((rows.min() + rows.max() + 1) / 2 - (y0 + y1) / 2) < 1.5
    assert moved > 30


def test_mapped_boxes_are_exact() -> None:
    shift = np.array([[2.0, 0, 5], [0, 1, -3], [0, 0, 1]])
    boxes = np.array([[1, 4, 6, 9], [90, 0, 99, 20]], dtype=np.float32)
    assert np.array_equal(map_boxes(boxes, shift, (150, 15)), [[7, 1, 17, 6], [150, 0, 150, 15]])
    assert map_boxes(np.zeros((0, 4), dtype=np.float32), shift, (150, 15)).shape == (0, 4)


@given(
    st.sampled_from(get_args(Strength)),
    st.integers(1, 70),
    st.integers(1, 200),
    st.integers(0, 2**32),
    st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_any_size_comes_out_usable(strength: Strength, height: int, width: int, seed: int, has_boxes: bool) -> None:
    boxes = np.array([[0, 0, width, height]] * 2, dtype=np.float32) if has_boxes else None
    sample = Augmentation(strength)(Sample(picture(1, height, width), "ab", boxes), (seed, 3))
    assert sample.text == "ab"
    assert sample.image.dtype == np.uint8
    assert sample.image.shape[2] == 3
    assert min(sample.image.shape) >= 1
    assert sample.image.flags.c_contiguous
    if sample.boxes is None:
        assert not has_boxes
        return
    assert sample.boxes.shape == (2, 4)
    assert np.all(sample.boxes[:, :2] <= sample.boxes[:, 2:])
    assert np.all(sample.boxes >= 0)
    assert np.all(sample.boxes[:, 2:] <= [sample.image.shape[1], sample.image.shape[0]])


@pytest.mark.parametrize("strength", ["light", "strong"])
def test_the_seed_decides_and_nothing_else_is_touched(strength: Strength) -> None:
    augmentation, original = Augmentation(strength), Sample(picture(height=32, width=100), "a")
    before = original.image.copy()
    generators = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy())  # type: ignore[union-attr]
    first = [augmentation(original, (7, position)).image for position in range(40)]
    assert torch.equal(generators[0], torch.get_rng_state())
    assert generators[1] == random.getstate()
    assert np.array_equal(generators[2], np.random.get_state()[1])  # type: ignore[arg-type]
    torch.manual_seed(99)
    np.random.seed(99)
    again = [Augmentation(strength)(original, (7, position)).image for position in range(40)]
    assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True))
    assert len({image.tobytes() for image in first}) > 30
    assert np.array_equal(original.image, before)


class FixedDraws:
    """In place of a generator: the change at `index` is drawn, with the factor 1.5 and a third of a turn of hue."""

    def __init__(self, index: int) -> None:
        self.draws = np.where(np.arange(6) == index, 0.0, 1.0)

    def random(self, size: int) -> npt.NDArray[np.float64]:
        return self.draws

    def uniform(self, low: float, high: float, size: int) -> npt.NDArray[np.float64]:
        return np.full(size, math.log(1.5) / math.log(2.0))

    def integers(self, high: int) -> int:
        return round(high / 3)


def turned_hue(pixel: npt.NDArray[np.float64]) -> list[float]:
    hue, saturation, value = colorsys.rgb_to_hsv(*pixel / 255)
    return [255 * part for part in colorsys.hsv_to_rgb((hue + 1 / 3) % 1, saturation, value)]


def grey(image: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return (image @ [0.299, 0.587, 0.114])[..., None].repeat(3, axis=2)  # ITU-R BT.601


@pytest.mark.parametrize(
    ("index", "expected", "tolerance"),
    [
        (0, lambda image: 1.5 * image, 1.0),
        (1, lambda image: 1.5 * image + (1 - 1.5) * grey(image).mean(), 1.0),
        (2, lambda image: 1.5 * image + (1 - 1.5) * grey(image), 1.5),
        (3, lambda image: np.apply_along_axis(turned_hue, 2, image), 6.0),
        (4, grey, 1.0),
        (5, lambda image: 255 - image, 0.0),
    ],
    ids=["brightness", "contrast", "saturation", "hue", "grey", "invert"],
)
def test_colour_is_the_literal_equation(index: int, expected: Change, tolerance: float) -> None:
    ranges = dataclasses.replace(_RANGES["light"], tone=0.5, tone_factor=2.0, colour=0.5, grey=0.5, invert=0.5)
    image = np.random.default_rng(5).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    before = image.copy()
    changed = _colour(image, ranges, FixedDraws(index))  # type: ignore[arg-type]
    assert changed.dtype == np.uint8
    assert np.abs(changed - np.clip(expected(image.astype(np.float64)), 0, 255)).max() <= tolerance
    assert np.array_equal(image, before)


def test_cut_sides_never_take_a_letter_of_a_long_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """8 % of a word of 20 letters would be more than one of them."""
    height, width = 32, 640
    boxes = np.array([[x, 4, x + 32, 28] for x in range(0, width, 32)], dtype=np.float32)
    for seed in range(60):
        sample = geometry_only("strong", seed, Sample(picture(1, height, width), "x" * 20, boxes), monkeypatch)
        assert sample.boxes is not None
        assert (sample.boxes[:, 2] - sample.boxes[:, 0]).min() > 8


def test_rotation_makes_a_long_word_little_higher(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line turned by 10 degrees would become lower letters on the canvas."""
    for seed in range(60):
        sample = geometry_only("strong", seed, Sample(picture(1, 32, 640), "x"), monkeypatch)
        assert sample.image.shape[0] < 2.4 * 32


@pytest.mark.parametrize("effect", ["low_resolution", "blur", "noise", "jpeg"])
def test_a_degradation_changes_the_picture_and_keeps_its_colour(effect: str) -> None:
    none = dict.fromkeys(("low_resolution", "blur", "noise", "jpeg"), 0.0)
    ranges = dataclasses.replace(_RANGES["strong"], **(none | {effect: 1.0}))
    generator = np.random.default_rng(5)
    image = np.clip(generator.normal((170, 90, 60), 20, (32, 90, 3)), 0, 255).astype(np.uint8)
    for seed in range(5):
        changed = _degrade(image, ranges, np.random.default_rng(seed))
        assert (changed.shape, changed.dtype) == (image.shape, np.uint8)
        assert not np.array_equal(changed, image)
        assert np.abs(changed.mean(axis=(0, 1)) - image.mean(axis=(0, 1))).max() < 5


def test_none_changes_nothing() -> None:
    sample = marked()
    assert Augmentation("none")(sample, 1) is sample


def test_unknown_strength() -> None:
    with pytest.raises(ValueError, match="'wild': one of none, light, strong"):
        Augmentation("wild")  # type: ignore[arg-type]
