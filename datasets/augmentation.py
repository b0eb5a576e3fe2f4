"""Random changes of training crops: geometry that the character boxes follow, then what cameras and encoders do.

Geometry is one homography, applied by one `cv2.warpPerspective` and to the boxes by hand, and not a chain of
`torchvision.transforms.v2`: there an affine and a perspective step with `tv_tensors.BoundingBoxes` cost 0.6 ms on a
32×100 crop and 0.8 ms on 48×160 (one core), as much as all the rest together, against 0.03 ms. Chained steps would
also resample the crop again and again. Colour is v2's, with parameters drawn here, so no global generator is touched.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt

from str_app.datasets.sample import Sample
from str_app.datasets.torchvision_import import import_torchvision

Strength = Literal["none", "light", "strong"]
Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class _Ranges:
    """How often and how far. Chances in [0, 1]; lengths as fractions of the crop's height."""

    geometry: float  # chance that the crop is warped at all
    cut: float  # of each side; left and right at most 0.15 of the height, about a quarter of a letter
    stretch: float  # width changes by a factor up to this, or its inverse
    degrees: float  # of rotation, standard deviation
    growth: float  # rotation of a long word may make the crop higher by at most this
    shear: float  # horizontal shift of the top against the bottom
    perspective: float  # shift of each corner
    tone: float  # chance of brightness and contrast, each by a factor up to `tone_factor` or its inverse
    tone_factor: float
    colour: float  # chance of saturation and of hue changes
    grey: float
    invert: float
    low_resolution: float  # chance of losing pixels, down to `lowest` rows
    lowest: int
    blur: float
    sigma: float  # of the blur, at most
    noise: float
    noise_level: float  # grey levels, standard deviation, at most
    jpeg: float
    quality: int  # at least


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
    """Changes a sample at random, the same way for the same seed in any process.

    Args:
        strength: `"none"` returns samples as they are; `"light"` suits renderings that already carry blur and noise;
            `"strong"` suits long runs and few real crops.

    Raises:
        ValueError: another strength.
    """

    def __init__(self, strength: Strength = "light") -> None:
        if strength not in get_args(Strength):
            raise ValueError(f"unknown strength of augmentation {strength!r}: one of {', '.join(get_args(Strength))}")
        self.strength = strength

    def __call__(self, sample: Sample, rng_seed: int | tuple[int, ...]) -> Sample:
        """The changed sample; image sides and boxes change with the geometry, the text never.

        Args:
            sample: left as it is.
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
    """Upright boxes around the images of `boxes` under `homography`, clipped to `size`.

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
    around = np.concatenate([mapped.min(axis=1), mapped.max(axis=1)], axis=1)
    return np.clip(around, 0, [*size, *size]).astype(np.float32)


def _draw_homography(
    height: int, width: int, ranges: _Ranges, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float64], tuple[int, int]]:
    """A homography from the crop to a new one that just holds what was not cut, and the new width and height."""
    left, top, right, bottom = rng.random(4) * ranges.cut
    sideways = min(width, 0.15 / ranges.cut * height)  # a share of a long word would be a whole letter
    x0, x1 = left * sideways, width - right * sideways
    y0, y1 = top * height, height - bottom * height
    old = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])

    new = (old - old.mean(axis=0)) * [math.exp(rng.uniform(-1, 1) * math.log(ranges.stretch)), 1.0]
    new[:, 0] -= rng.uniform(-ranges.shear, ranges.shear) * new[:, 1]
    new += rng.uniform(-ranges.perspective, ranges.perspective, (4, 2)) * [min(height, width), height]
    steepest = math.asin(min(1.0, ranges.growth * height / width))
    angle = float(np.clip(rng.normal(0.0, math.radians(ranges.degrees)), -steepest, steepest))
    cos, sin = math.cos(angle), math.sin(angle)
    new = new @ np.array([[cos, sin], [-sin, cos]])
    new -= new.min(axis=0)
    size = np.maximum(np.rint(new.max(axis=0)), 2)
    homography = cv2.getPerspectiveTransform(old.astype(np.float32), new.astype(np.float32))
    return np.asarray(homography, dtype=np.float64), (int(size[0]), int(size[1]))


def _warp(image: Image, homography: npt.NDArray[np.float64], size: tuple[int, int]) -> Image:
    # The matrix maps pixel edges, as boxes are measured; warpPerspective counts from pixel centres.
    centre = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]])
    matrix = np.linalg.inv(centre) @ homography @ centre
    return np.asarray(
        cv2.warpPerspective(image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.uint8
    )


def _colour(image: Image, ranges: _Ranges, rng: np.random.Generator) -> Image:
    chances = rng.random(6)
    if not (chances < [ranges.tone, ranges.tone, ranges.colour, ranges.colour, ranges.grey, ranges.invert]).any():
        return image
    import torch

    v2: Any = import_torchvision("transforms.v2.functional")
    tensor = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)  # (3, H, W)
    factors = np.exp(rng.uniform(-1, 1, 3) * math.log(ranges.tone_factor))
    if chances[0] < ranges.tone:
        tensor = v2.adjust_brightness(tensor, float(factors[0]))
    if chances[1] < ranges.tone:
        tensor = v2.adjust_contrast(tensor, float(factors[1]))
    if chances[2] < ranges.colour:
        tensor = v2.adjust_saturation(tensor, float(factors[2]))
    if chances[3] < ranges.colour:
        tensor = v2.adjust_hue(tensor, float(rng.uniform(-0.5, 0.5)))
    if chances[4] < ranges.grey:
        tensor = v2.rgb_to_grayscale(tensor, num_output_channels=3)
    if chances[5] < ranges.invert:
        tensor = v2.invert(tensor)
    return np.asarray(tensor.permute(1, 2, 0).numpy(), np.uint8)


def _degrade(image: Image, ranges: _Ranges, rng: np.random.Generator) -> Image:
    height, width = image.shape[:2]
    chances = rng.random(4)
    if chances[0] < ranges.low_resolution and height > ranges.lowest:
        rows = int(rng.integers(ranges.lowest, max(ranges.lowest + 1, height * 3 // 4)))
        few = cv2.resize(image, (max(2, width * rows // height), rows), interpolation=cv2.INTER_AREA)
        image = np.asarray(cv2.resize(few, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
    if chances[1] < ranges.blur:
        sigma = max(0.3, rng.uniform(0.2, 1.0) * ranges.sigma * height)
        # Out of focus is alike in all directions, a moved camera is not.
        across, along = (sigma, sigma) if rng.random() < 0.5 else (0.3, sigma)[:: int(rng.choice([-1, 1]))]
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), across, sigmaY=along), np.uint8)
    if chances[2] < ranges.noise:
        grain = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(
            rng.uniform(0.2, 1) * ranges.noise_level
        )
        image = np.clip(np.rint(image + grain), 0, 255).astype(np.uint8)
    if chances[3] < ranges.jpeg:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(ranges.quality, 85))]
        _, encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), quality)
        image = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR_RGB), np.uint8)
    return image
