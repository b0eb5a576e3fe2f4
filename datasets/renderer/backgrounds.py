"""Backgrounds: flat colours, gradients, textures, cluttered scenes, photographs."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from str_app.datasets.renderer.colours import Colour, Palette
from str_app.datasets.renderer.style import Style

Picture = npt.NDArray[np.float32]  # (H, W, 3), RGB, 0 to 255, before it is rounded to an image
TEXTURE_SIZE = (200, 440)  # rows, columns; larger than almost any crop


class TexturePool:
    """Textures and scenes generated once per process from a fixed seed, so that all workers have the same.

    Attributes:
        surfaces: uint8 (H, W), mean ≈ 128: plaster, wood, brick, stripes …
        scenes: uint8 (H, W, 3): clutter that resembles photographs out of focus.
        photographs: uint8 (H, W, 3), as given.

    Args:
        photographs: for backgrounds.
        surfaces, scenes: their numbers.
        size: rows and columns of surfaces and scenes.
    """

    def __init__(
        self,
        photographs: Sequence[npt.NDArray[np.uint8]] = (),
        surfaces: int = 36,
        scenes: int = 28,
        size: tuple[int, int] = TEXTURE_SIZE,
    ) -> None:
        rng = np.random.Generator(np.random.PCG64(20_200))
        makers = (_plaster, _plaster, _wood, _bricks, _stripes, _blobs)
        self.surfaces = [_normalised(makers[i % len(makers)](rng, size)) for i in range(surfaces)]
        self.scenes = [_scene(rng, size) for _ in range(scenes)]
        self.photographs = tuple(photographs)

    def surface(self, rng: np.random.Generator, height: int, width: int) -> npt.NDArray[np.float32]:
        """A window of a random surface at a random scale, (height, width), mean ≈ 0, within about ±1."""
        texture = self.surfaces[int(rng.integers(len(self.surfaces)))]
        return (_window(rng, texture, height, width).astype(np.float32) - 128) * np.float32(1 / 110)

    def scene(self, rng: np.random.Generator, height: int, width: int) -> Picture:
        """A window of a random scene or photograph, if there are any, at a random scale."""
        if self.photographs and rng.random() < 0.5:
            return self.photograph(rng, height, width)
        return _window(rng, self.scenes[int(rng.integers(len(self.scenes)))], height, width).astype(np.float32)

    def photograph(self, rng: np.random.Generator, height: int, width: int) -> Picture:
        """A window of a photograph at a random scale."""
        source = self.photographs[int(rng.integers(len(self.photographs)))]
        return _window(rng, source, height, width).astype(np.float32)


def make_background(
    rng: np.random.Generator, pool: TexturePool, palette: Palette, height: int, width: int, style: Style
) -> Picture:
    """A background of about the palette's colour, with less texture where the contrast is low."""
    picture = np.empty((height, width, 3), np.float32)
    picture[:] = palette.background
    amplitude = palette.contrast / 255
    if pool.photographs and rng.random() < style.photographs:
        # Its own shading and colours, shifted to the background's brightness, with its contrast reduced.
        photo = pool.photograph(rng, height, width)
        mean = photo.mean(axis=(0, 1))
        gain = np.float32(min(1.0, palette.contrast * rng.uniform(0.1, 0.4) / max(1.0, float(photo.std()))))
        tint = np.float32(rng.uniform(0, 1))
        colour = mean * (float(palette.background.mean()) / max(1.0, float(mean.mean())))
        return picture + (colour - palette.background) * tint + (photo - mean) * gain
    kind = rng.random()
    if kind < 0.30:
        return picture
    if kind < 0.52:
        second = _similar_colour(rng, palette.background, 12 + 0.35 * palette.contrast)
        return blend(picture, ramp(rng, height, width), second)
    if kind < 0.80:
        strength = 255 * amplitude * rng.uniform(0.06, 0.42)
        picture += pool.surface(rng, height, width)[:, :, None] * np.float32(strength)
        return picture
    if kind < 0.92:
        share = np.float32(rng.uniform(0.12, 0.2 + 0.45 * amplitude))
        return picture * (1 - share) + pool.scene(rng, height, width) * share
    # two areas: a door beside a wall, the lower band of a sign
    second = _similar_colour(rng, palette.background, 10 + 0.4 * palette.contrast)
    edge = np.clip((ramp(rng, height, width) - np.float32(rng.uniform(0.1, 0.9))) * 40, 0, 1)
    return blend(picture, edge, second)


def ramp(rng: np.random.Generator, height: int, width: int) -> npt.NDArray[np.float32]:
    """A linear ramp from 0 to 1, (height, width), in a random direction, most often horizontal or vertical."""
    angle = rng.integers(4) * np.pi / 2 + (rng.normal(0, 0.3) if rng.random() < 0.5 else 0.0)
    x = np.linspace(-0.5, 0.5, width, dtype=np.float32) * np.float32(np.cos(angle))
    y = np.linspace(-0.5, 0.5, height, dtype=np.float32) * np.float32(np.sin(angle))
    slope = y[:, None] + x[None, :]
    return np.asarray((slope - slope.min()) / max(float(np.ptp(slope)), 1e-6), dtype=np.float32)


def blend(picture: Picture, alpha: npt.NDArray[np.float32], foreground: npt.NDArray[np.float32]) -> Picture:
    """Alpha blending: `foreground`, a colour (3,) or a picture, on `picture` with `alpha` (H, W) in [0, 1]."""
    return picture + (foreground - picture) * alpha[:, :, None]


def _similar_colour(rng: np.random.Generator, background: Colour, spread: float) -> Colour:
    shift = rng.normal(0, 0.6 * spread) + rng.normal(0, 0.35 * spread, 3)
    return np.clip(background + np.clip(shift, -1.3 * spread, 1.3 * spread), 0, 255).astype(np.float32)


def _window(rng: np.random.Generator, texture: npt.NDArray[np.uint8], height: int, width: int) -> npt.NDArray[np.uint8]:
    rows, columns = texture.shape[:2]
    zoom = min(rng.uniform(0.8, 3.0), rows / height, columns / width)
    h, w = max(1, int(height * zoom)), max(1, int(width * zoom))
    y, x = int(rng.integers(0, rows - h + 1)), int(rng.integers(0, columns - w + 1))
    piece = texture[y : y + h, x : x + w]
    if rng.random() < 0.5:
        piece = piece[:, ::-1]
    shrinking = h > height
    return np.asarray(
        cv2.resize(
            np.ascontiguousarray(piece),
            (width, height),
            interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR,
        ),
        np.uint8,
    )


def _normalised(texture: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    low, high = np.percentile(texture, [2, 98])
    scaled = (texture - texture.mean()) / max(float(high - low), 1e-6) * 200 + 128
    return np.clip(scaled, 0, 255).astype(np.uint8)


def _octaves(
    rng: np.random.Generator, size: tuple[int, int], cells: tuple[int, int], octaves: int, falloff: float
) -> npt.NDArray[np.float32]:
    rows, columns = size
    total = np.zeros(size, np.float32)
    for octave in range(octaves):
        grid = (min(columns, cells[0] << octave), min(rows, cells[1] << octave))
        noise = rng.standard_normal((grid[1], grid[0]), dtype=np.float32)
        total += cv2.resize(noise, (columns, rows), interpolation=cv2.INTER_CUBIC) * np.float32(falloff**octave)
    return total


def _plaster(rng: np.random.Generator, size: tuple[int, int]) -> npt.NDArray[np.float32]:
    cells = int(rng.integers(2, 9))
    return _octaves(rng, size, (2 * cells, cells), 6, float(rng.uniform(0.5, 0.95)))


def _wood(rng: np.random.Generator, size: tuple[int, int]) -> npt.NDArray[np.float32]:
    grain = _octaves(rng, size, (2, 24), 4, 0.8)
    return grain if rng.random() < 0.7 else np.asarray(cv2.resize(grain.T, size[::-1]), np.float32)


def _bricks(rng: np.random.Generator, size: tuple[int, int]) -> npt.NDArray[np.float32]:
    rows, columns = size
    wall = _octaves(rng, size, (30, 15), 3, 0.8) * 0.15
    brick_height = int(rng.integers(14, 40))
    brick_width = int(brick_height * rng.uniform(1.0, 3.0))
    joint = int(rng.integers(1, 4))
    for course, y in enumerate(range(0, rows, brick_height)):
        for x in range(-(course % 2) * brick_width // 2, columns, brick_width):
            wall[y : y + brick_height, max(0, x) : x + brick_width] += rng.normal(0, 0.25)
            cv2.rectangle(wall, (x, y), (x + brick_width, y + brick_height), float(rng.uniform(-1.5, -0.6)), joint)
    return wall


def _stripes(rng: np.random.Generator, size: tuple[int, int]) -> npt.NDArray[np.float32]:
    rows, columns = size
    angle, period = rng.uniform(0, np.pi), rng.uniform(6, 50)
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)
    wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * (2 * np.pi / period))
    return np.tanh(wave * rng.uniform(0.7, 6)).astype(np.float32) + _octaves(rng, size, (20, 10), 3, 0.8) * np.float32(
        0.1
    )


def _blobs(rng: np.random.Generator, size: tuple[int, int]) -> npt.NDArray[np.float32]:
    smooth = _octaves(rng, size, (int(rng.integers(6, 30)), int(rng.integers(4, 15))), 2, 0.5)
    return np.tanh((smooth - rng.uniform(-0.5, 0.8)) * 6).astype(np.float32)


def _scene(rng: np.random.Generator, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Rectangles, ellipses, lines and polygons in related colours, blurred: a street or shelf out of focus."""
    rows, columns = size
    light = rng.uniform(40, 235, 3)
    picture = np.clip(light + 40 * _octaves(rng, size, (4, 2), 5, 0.7)[:, :, None], 0, 255).astype(np.float32)
    for _ in range(int(rng.integers(15, 60))):
        colour = tuple(float(value) for value in np.clip(light * rng.uniform(0.2, 1.7) + rng.normal(0, 35, 3), 0, 255))
        x, y = int(rng.integers(columns)), int(rng.integers(rows))
        w, h = int(rng.integers(4, 120)), int(rng.integers(4, 90))
        kind = rng.random()
        if kind < 0.35:
            cv2.rectangle(picture, (x, y), (x + w, y + h), colour, -1)
        elif kind < 0.5:
            cv2.ellipse(picture, (x, y), (w // 2, h // 2), float(rng.uniform(0, 180)), 0, 360, colour, -1, cv2.LINE_AA)
        elif kind < 0.8:
            end = (x + int(rng.integers(-200, 200)), y + int(rng.integers(-90, 90)))
            cv2.line(picture, (x, y), end, colour, int(rng.integers(1, 7)), cv2.LINE_AA)
        else:
            corners = np.stack([rng.integers(x - 80, x + 80, 4), rng.integers(y - 60, y + 60, 4)], axis=1)
            cv2.fillPoly(picture, [corners.astype(np.int32)], colour, cv2.LINE_AA)
    soft = cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.6, 4)))
    return np.clip(soft + rng.normal(0, 4, soft.shape), 0, 255).astype(np.uint8)
