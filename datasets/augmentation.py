"""Random changes of training crops: geometry, which the character boxes follow, then colour, then camera effects.

Geometry is one homography by `cv2.warpPerspective`, colour tables and conversions of OpenCV: on one thread a crop of 32
to 64 rows with boxes takes 0.25 / 0.43 ms (`light` / `strong`, medians of 3 rounds over 400 crops). With colour by
`torchvision.transforms.v2.functional` it was 0.53 / 1.05 ms, with the same values to one level (hue: six); v2's
`RandomAffine` and `RandomPerspective` with boxes take several milliseconds. No global random generator is touched.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt

from str_app.datasets.sample import Sample

Strength = Literal["none", "light", "strong"]
Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class _Ranges:
    """Probabilities, in [0, 1], and magnitudes; lengths are fractions of the crop's height."""

    geometry: float  # probability of a homography
    cut: float  # of each side; left and right at most 0.15 of the height, about a quarter of a letter
    stretch: float  # maximum factor of the width, or its inverse
    degrees: float  # standard deviation of the rotation
    growth: float  # maximum increase of the crop's height by rotation, which limits long words
    shear: float  # horizontal shift of the top relative to the bottom
    perspective: float  # shift of each corner
    tone: float  # probability of brightness and of contrast, each by up to `tone_factor` or its inverse
    tone_factor: float
    colour: float  # probability of a saturation and of a hue change
    grey: float  # probability
    invert: float  # probability
    low_resolution: float  # probability of downscaling to no fewer than `lowest` rows
    lowest: int
    blur: float  # probability
    sigma: float  # maximum, of the blur
    noise: float  # probability
    noise_level: float  # maximum standard deviation in grey levels
    jpeg: float  # probability
    quality: int  # minimum


_RANGES = {
    "light": _Ranges(
        geometry=0.75, cut=0.08, stretch=1.25, degrees=2.5, growth=0.4, shear=0.2, perspective=0.06,
        tone=0.3, tone_factor=1.4, colour=0.1, grey=0.05, invert=0.03,
        low_resolution=0.1, lowest=12, blur=0.1, sigma=0.04, noise=0.1, noise_level=10.0, jpeg=0.1, quality=35,
    ),
    "strong": _Ranges(
        geometry=0.9, cut=0.08, stretch=1.25, degrees=6.0, growth=0.8, shear=0.4, perspective=0.15,
        tone=0.5, tone_factor=1.8, colour=0.25, grey=0.1, invert=0.08,
        low_resolution=0.25, lowest=8, blur=0.25, sigma=0.07, noise=0.25, noise_level=20.0, jpeg=0.25, quality=15,
    ),
}  # fmt: skip


class Augmentation:
    """Random augmentation of a sample, reproducible: the same seed gives the same result in any process.

    Args:
        strength: `"none"` returns samples unchanged; `"light"` suits rendered crops, which have blur and noise already;
            `"strong"` suits long runs and few real crops.

    Raises:
        ValueError: unknown strength.
    """

    def __init__(self, strength: Strength = "light") -> None:
        if strength not in get_args(Strength):
            raise ValueError(f"unknown augmentation strength {strength!r}: one of {', '.join(get_args(Strength))}")
        self.strength = strength

    def __call__(self, sample: Sample, rng_seed: int | tuple[int, ...]) -> Sample:
        """A new sample. Image size and boxes change with the geometry; the text does not.

        Args:
            sample: not modified.
            rng_seed: one or more non-negative integers, e.g. (seed, position).
        """
        if self.strength == "none":
            return sample
        ranges = _RANGES[self.strength]
        rng = np.random.default_rng(rng_seed)
        image, boxes = sample.image, sample.boxes
        if rng.random() < ranges.geometry:
            homography, size = _draw_homography(image.shape[0], image.shape[1], ranges, rng)
            image = _warp(image, homography, size)
            boxes = None if boxes is None else map_boxes(boxes, homography, size)
        image = _colour(image, ranges, rng)
        image = _degrade(image, ranges, rng)
        return Sample(np.ascontiguousarray(image), sample.text, boxes)


def map_boxes(
    boxes: npt.NDArray[np.float32], homography: npt.NDArray[np.float64], size: tuple[int, int]
) -> npt.NDArray[np.float32]:
    """Axis-aligned bounding boxes of `boxes` after `homography`, clipped to `size`.

    Args:
        boxes: (n, 4): x0, y0, x1, y1.
        homography: (3, 3), from the old to the new coordinates.
        size: width and height in pixels.

    Returns:
        float32 (n, 4).
    """
    if len(boxes) == 0:
        return boxes.astype(np.float32)
    corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 1, 2).astype(np.float64)
    mapped = cv2.perspectiveTransform(corners, homography).reshape(-1, 4, 2)
    bounds = np.concatenate([mapped.min(axis=1), mapped.max(axis=1)], axis=1)
    return np.clip(bounds, 0, [*size, *size]).astype(np.float32)


def _draw_homography(
    height: int, width: int, ranges: _Ranges, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float64], tuple[int, int]]:
    """A homography from the crop to a new one that just encloses the part kept, and the new width and height."""
    left, top, right, bottom = rng.random(4) * ranges.cut
    max_cut = min(width, 0.15 / ranges.cut * height)  # a fraction of a long word would be a whole letter
    x0, x1 = left * max_cut, width - right * max_cut
    y0, y1 = top * height, height - bottom * height
    old = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])

    new = (old - old.mean(axis=0)) * [math.exp(rng.uniform(-1, 1) * math.log(ranges.stretch)), 1.0]
    new[:, 0] -= rng.uniform(-ranges.shear, ranges.shear) * new[:, 1]
    new += rng.uniform(-ranges.perspective, ranges.perspective, (4, 2)) * [min(height, width), height]
    max_angle = math.asin(min(1.0, ranges.growth * height / width))
    angle = float(np.clip(rng.normal(0.0, math.radians(ranges.degrees)), -max_angle, max_angle))
    cos, sin = math.cos(angle), math.sin(angle)
    new = new @ np.array([[cos, sin], [-sin, cos]])
    new -= new.min(axis=0)
    size = np.maximum(np.rint(new.max(axis=0)), 2)
    homography = cv2.getPerspectiveTransform(old.astype(np.float32), new.astype(np.float32))
    return np.asarray(homography, dtype=np.float64), (int(size[0]), int(size[1]))


def _warp(image: Image, homography: npt.NDArray[np.float64], size: tuple[int, int]) -> Image:
    # The homography has pixel edges as coordinates, as boxes do; warpPerspective has pixel centres.
    to_edges = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]])
    matrix = np.linalg.inv(to_edges) @ homography @ to_edges
    return np.asarray(
        cv2.warpPerspective(image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.uint8
    )


def _colour(image: Image, ranges: _Ranges, rng: np.random.Generator) -> Image:
    draws = rng.random(6)
    if not (draws < [ranges.tone, ranges.tone, ranges.colour, ranges.colour, ranges.grey, ranges.invert]).any():
        return image
    factors = np.exp(rng.uniform(-1, 1, 3) * math.log(ranges.tone_factor))
    if draws[0] < ranges.tone:
        image = _stretch(image, float(factors[0]), 0.0)  # brightness
    if draws[1] < ranges.tone:
        image = _stretch(image, float(factors[1]), cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0])  # contrast
    if draws[2] < ranges.colour:  # saturation
        factor = float(factors[2])
        image = np.asarray(cv2.addWeighted(image, factor, _grey(image), 1 - factor, 0), np.uint8)
    if draws[3] < ranges.colour:
        hsv = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL), np.uint8)
        hsv[:, :, 0] += np.uint8(rng.integers(256))  # hue, in 256ths of a turn, wraps around
        image = np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL), np.uint8)
    if draws[4] < ranges.grey:
        image = _grey(image)
    if draws[5] < ranges.invert:
        image = 255 - image
    return image


def _stretch(image: Image, factor: float, middle: float) -> Image:
    """Multiply each value's distance from `middle` by `factor`."""
    table = np.clip(np.rint(middle + factor * (np.arange(256) - middle)), 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(image, table), np.uint8)


def _grey(image: Image) -> Image:
    return np.asarray(cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB), np.uint8)


def _degrade(image: Image, ranges: _Ranges, rng: np.random.Generator) -> Image:
    height, width = image.shape[:2]
    draws = rng.random(4)
    if draws[0] < ranges.low_resolution and height > ranges.lowest:
        rows = int(rng.integers(ranges.lowest, max(ranges.lowest + 1, height * 3 // 4)))
        small = cv2.resize(image, (max(2, width * rows // height), rows), interpolation=cv2.INTER_AREA)
        image = np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
    if draws[1] < ranges.blur:
        sigma = max(0.3, rng.uniform(0.2, 1.0) * ranges.sigma * height)
        # Defocus is the same in all directions, motion blur is not.
        sigma_x, sigma_y = (sigma, sigma) if rng.random() < 0.5 else (0.3, sigma)[:: int(rng.choice([-1, 1]))]
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), sigma_x, sigmaY=sigma_y), np.uint8)
    if draws[2] < ranges.noise:
        grain = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(
            rng.uniform(0.2, 1) * ranges.noise_level
        )
        image = np.clip(np.rint(image + grain), 0, 255).astype(np.uint8)
    if draws[3] < ranges.jpeg:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(ranges.quality, 85))]
        _, encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), quality)
        image = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR_RGB), np.uint8)
    return image
