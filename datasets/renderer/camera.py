"""Camera simulation: light, focus, motion, resolution, noise, compression."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from str_app.datasets.renderer.backgrounds import Picture, ramp
from str_app.datasets.renderer.style import Style

MIN_CAPITAL_HEIGHT = 7.0  # pixels, after the loss of resolution


def photograph(
    rng: np.random.Generator, picture: Picture, capital_height: float, style: Style
) -> npt.NDArray[np.uint8]:
    """The crop as a camera would record it.

    Args:
        rng: chooses the effects.
        picture: float32 (H, W, 3), 0 to 255.
        capital_height: height of a capital letter in pixels; blur and loss of resolution are relative to it.
        style: frequency of each effect.

    Returns:
        uint8 (H, W, 3).
    """
    height, width = picture.shape[:2]
    if rng.random() < style.light:
        picture = _light(rng, picture)
    if rng.random() < style.bloom and picture.mean() < 120:  # on a bright crop the letters would disappear
        picture = _bloom(rng, picture, capital_height)
    picture = _blur(rng, picture, capital_height, style)
    if rng.random() < style.low_resolution and capital_height > MIN_CAPITAL_HEIGHT * 1.2:
        factor = rng.uniform(max(0.3, MIN_CAPITAL_HEIGHT / capital_height), 0.9)
        small = cv2.resize(
            picture,
            (max(2, round(width * factor)), max(2, round(height * factor))),
            interpolation=cv2.INTER_AREA if rng.random() < 0.8 else cv2.INTER_LINEAR,
        )
        if rng.random() < 0.5:
            small = _noise(rng, np.asarray(small, np.float32))
        interpolations = (cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4, cv2.INTER_NEAREST)
        kind = int(rng.integers(len(interpolations))) if factor > 0.6 else int(rng.integers(4))
        picture = np.asarray(cv2.resize(small, (width, height), interpolation=interpolations[kind]), np.float32)
    if rng.random() < style.sharpen:  # as phones do: halos
        soft = cv2.GaussianBlur(picture, (0, 0), 1.2)
        picture = picture + (picture - soft) * np.float32(rng.uniform(0.4, 1.8))
    if rng.random() < style.noise:
        picture = _noise(rng, picture)
    if rng.random() < style.tone:
        picture = _tone(rng, picture)
    image = np.clip(picture + 0.5, 0, 255).astype(np.uint8)
    if rng.random() < style.jpeg:
        quality = int(rng.integers(25 if capital_height > 14 else 45, 80))
        _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        image = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    return image


def distort(
    rng: np.random.Generator, picture: Picture, ink: npt.NDArray[np.uint8], capital_height: float
) -> tuple[Picture, npt.NDArray[np.uint8]]:
    """Picture and ink shifted by a smooth random field, so small that boxes need not follow.

    The field's standard deviation is a few hundredths of `capital_height`.
    """
    height, width = picture.shape[:2]
    columns = max(2, round(width / capital_height / rng.uniform(0.4, 1.2)) + 1)
    rows = max(2, round(height / capital_height * 1.5) + 1)
    deviation = rng.uniform(0.02, 0.06) * capital_height
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32), copy=False)
    shifts = deviation * rng.standard_normal((2, rows, columns), np.float32)
    dx, dy = (cv2.resize(shift, (width, height), interpolation=cv2.INTER_CUBIC) for shift in shifts)
    moved = cv2.remap(picture, x + dx, y + dy, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    moved_ink = cv2.remap(ink, x + dx, y + dy, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return np.asarray(moved, np.float32), np.asarray(moved_ink, np.uint8)


def _light(rng: np.random.Generator, picture: Picture) -> Picture:
    """Uneven light: a gradient, the edge of a cast shadow, or the reflection of a lamp."""
    height, width = picture.shape[:2]
    kind = rng.random()
    if kind < 0.6:
        gain = 1 - np.float32(rng.uniform(0.1, 0.5)) * ramp(rng, height, width)
        return picture * gain[:, :, None]
    if kind < 0.8:
        edge = np.clip(
            (ramp(rng, height, width) - np.float32(rng.uniform(0.2, 0.8))) * np.float32(rng.uniform(4, 40)), 0, 1
        )
        return picture * (1 - np.float32(rng.uniform(0.15, 0.5)) * edge)[:, :, None]
    x = (np.arange(width, dtype=np.float32) - np.float32(rng.uniform(0, width))) / np.float32(
        rng.uniform(0.15, 0.6) * width
    )
    y = (np.arange(height, dtype=np.float32) - np.float32(rng.uniform(0, height))) / np.float32(
        rng.uniform(0.2, 0.8) * height
    )
    spot = np.exp(-(x[None, :] ** 2 + y[:, None] ** 2)) * np.float32(rng.uniform(0.15, 0.6))
    return picture + (255 - picture) * spot[:, :, None]


def _bloom(rng: np.random.Generator, picture: Picture, capital_height: float) -> Picture:
    """Illuminated letters at night: overexposed areas spread into their surroundings."""
    bright = picture * np.float32(rng.uniform(1.0, 1.8))
    threshold = np.float32(rng.uniform(140, 220))
    spread = cv2.GaussianBlur(np.maximum(bright - threshold, 0), (0, 0), capital_height * rng.uniform(0.05, 0.25) + 0.3)
    return np.minimum(bright + spread * np.float32(rng.uniform(0.5, 1.8)), 255)


def _blur(rng: np.random.Generator, picture: Picture, capital_height: float, style: Style) -> Picture:
    kind = rng.random()
    if kind < style.soft:
        # Rarely strong enough to notice, but a lens and a Bayer filter leave no crop perfectly sharp.
        sigma = capital_height * (0.03 * rng.beta(1, 2) if rng.random() < 0.8 else rng.uniform(0.03, 0.09)) + 0.15
        return np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma), np.float32) if sigma > 0.3 else picture
    kind -= style.soft
    if kind >= style.defocus + style.motion:
        return picture
    if kind < style.defocus:  # out of focus: a disc
        radius = max(1, round(capital_height * rng.uniform(0.04, 0.11)))
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1)).astype(np.float32)
        return np.asarray(cv2.filter2D(picture, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE), np.float32)
    length = max(2.0, capital_height * rng.uniform(0.06, 0.2))
    angle = rng.uniform(0, np.pi)
    half = int(np.ceil(length / 2))
    kernel = np.zeros((2 * half + 1, 2 * half + 1), np.float32)
    dx, dy = length / 2 * np.cos(angle), length / 2 * np.sin(angle)
    shift = 4  # fractional bits of cv2.line's coordinates
    start, end = ((round((half + s * dx) * 2**shift), round((half + s * dy) * 2**shift)) for s in (-1, 1))
    cv2.line(kernel, start, end, 1.0, 1, cv2.LINE_8, shift)
    return np.asarray(cv2.filter2D(picture, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE), np.float32)


def _noise(rng: np.random.Generator, picture: Picture) -> Picture:
    """Sensor noise: mostly grey, partly coloured."""
    height, width = picture.shape[:2]
    sigma = np.float32(rng.gamma(1.2, 2.0))
    if rng.random() < 0.6:
        return picture + rng.standard_normal((height, width, 1), dtype=np.float32) * sigma
    return picture + rng.standard_normal((height, width, 3), dtype=np.float32) * sigma


def _tone(rng: np.random.Generator, picture: Picture) -> Picture:
    """Exposure, contrast and colour cast."""
    gain = np.float32(np.exp(rng.normal(-0.06, 0.25))) * np.exp(rng.normal(0, 0.05, 3)).astype(np.float32)
    middle = np.float32(rng.uniform(90, 150))
    contrast = np.float32(np.exp(rng.normal(-0.05, 0.15)))
    return (picture * gain - middle) * contrast + middle
