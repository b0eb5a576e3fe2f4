"""Surroundings of a scene without text: walls, windows, fences, foliage, shelves, cables, stripes, scribbles."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from str_app.datasets.renderer.backgrounds import Picture, TexturePool, blend, ramp
from str_app.datasets.renderer.colours import Colour, choose_palette

Clutter = Callable[[np.random.Generator, TexturePool, Picture], None]


def make_surroundings(rng: np.random.Generator, pool: TexturePool, height: int, width: int) -> Picture:
    """A whole picture without text, float32 (height, width, 3), 0 to 255."""
    kind = rng.random()
    if pool.photographs and kind < 0.45:
        picture = pool.photograph(rng, height, width)
    elif kind < 0.58:
        picture = pool.scene(rng, height, width)
    elif kind < 0.75:
        picture = _street(rng, pool, height, width)
    else:
        picture = _wall(rng, pool, height, width)
    for _ in range(int(rng.integers(0, 4))):
        CLUTTER[int(rng.integers(len(CLUTTER)))](rng, pool, picture)
    # Drawn edges and areas are too clean: soften, stain and shade them.
    picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.4, 2.2))), np.float32)
    if rng.random() < 0.6:
        picture += pool.surface(rng, height, width)[:, :, None] * np.float32(rng.uniform(3, 25))
    if rng.random() < 0.5:
        picture *= 1 - np.float32(rng.uniform(0.1, 0.45)) * ramp(rng, height, width)[:, :, None]
    return np.clip(picture, 0, 255)


def _colour(rng: np.random.Generator) -> Colour:
    palette = choose_palette(rng)
    grey = np.float32(rng.uniform(0, 0.7))
    return np.asarray(palette.background * (1 - grey) + palette.background.mean() * grey, np.float32)


def _scalar(colour: npt.NDArray[np.float32]) -> tuple[float, ...]:
    """A colour as OpenCV wants it: a tuple, with the channels in the order of the picture."""
    return tuple(float(value) for value in np.clip(colour, 0, 255))


def _wall(rng: np.random.Generator, pool: TexturePool, height: int, width: int) -> Picture:
    picture = np.empty((height, width, 3), np.float32)
    picture[:] = _colour(rng)
    if rng.random() < 0.5:
        picture = blend(picture, ramp(rng, height, width), _colour(rng))
    for _ in range(int(rng.integers(1, 3))):
        picture += pool.surface(rng, height, width)[:, :, None] * np.float32(rng.uniform(5, 60))
    return np.clip(picture, 0, 255)


def _street(rng: np.random.Generator, pool: TexturePool, height: int, width: int) -> Picture:
    """Sky, house fronts with windows, a pavement."""
    picture = np.empty((height, width, 3), np.float32)
    picture[:] = np.array([170, 195, 225], np.float32) * np.float32(rng.uniform(0.3, 1.1))
    x = 0
    ground = int(height * rng.uniform(0.65, 1.0))
    while x < width:
        w = int(width * rng.uniform(0.15, 0.6))
        top = int(height * rng.uniform(-0.3, 0.4))
        front = picture[max(0, top) : ground, x : x + w]
        if front.size:
            front[:] = _colour(rng)
            front += pool.surface(rng, *front.shape[:2])[:, :, None] * np.float32(rng.uniform(4, 40))
            _windows(rng, pool, front)
        x += w
    picture[ground:] = _colour(rng) * np.float32(0.7)
    if ground < height:
        picture[ground:] += pool.surface(rng, height - ground, width)[:, :, None] * np.float32(rng.uniform(5, 30))
    return np.clip(picture, 0, 255)


def _area(rng: np.random.Generator, picture: Picture, low: float = 0.15, high: float = 0.7) -> Picture:
    """A random part of the picture; drawing on it draws on the picture."""
    height, width = picture.shape[:2]
    h, w = (max(8, int(side * rng.uniform(low, high))) for side in (height, width))
    y, x = int(rng.integers(0, max(1, height - h + 1))), int(rng.integers(0, max(1, width - w + 1)))
    return picture[y : y + h, x : x + w]


def _windows(rng: np.random.Generator, pool: TexturePool, picture: Picture) -> None:
    height, width = picture.shape[:2]
    step_x, step_y = rng.uniform(25, 140), rng.uniform(30, 180)
    w, h = int(step_x * rng.uniform(0.4, 0.8)), int(step_y * rng.uniform(0.4, 0.8))
    glass, frame = _colour(rng) * np.float32(0.5), _colour(rng)
    bars, thick = int(rng.integers(0, 3)), int(rng.integers(1, 5))
    for y in np.arange(rng.uniform(0, step_y), height, step_y).astype(int):
        for x in np.arange(rng.uniform(0, 0.3) * step_x, width, step_x).astype(int):
            pane = _scalar(glass * np.float32(rng.uniform(0.6, 1.6)))
            cv2.rectangle(picture, (x, y), (x + w, y + h), pane, -1)
            cv2.rectangle(picture, (x, y), (x + w, y + h), _scalar(frame), thick)
            for i in range(bars):
                at = x + (i + 1) * w // (bars + 1)
                cv2.line(picture, (at, y), (at, y + h), _scalar(frame), max(1, thick - 1))


def _window_grid(rng: np.random.Generator, pool: TexturePool, picture: Picture) -> None:
    _windows(rng, pool, _area(rng, picture))


def _fence(rng: np.random.Generator, pool: TexturePool, picture: Picture) -> None:
    """Bars, boards or a grid, some of them slanted: at a distance they look like I, l and H."""
    area = _area(rng, picture)
    height, width = area.shape[:2]
    colour = _scalar(_colour(rng))
    step, thick = rng.uniform(5, 50), int(rng.integers(1, 9))
    slant = rng.normal(0, 0.15) if rng.random() < 0.6 else rng.uniform(-1, 1)
    for x in np.arange(-abs(slant) * height, width + abs(slant) * height, step):
        cv2.line(area, (int(x), 0), (int(x + slant * height), height), colour, thick, cv2.LINE_AA)
    if rng.random() < 0.6:
        rails = rng.uniform(0, height, int(rng.integers(1, 4))) if rng.random() < 0.6 else np.arange(0, height, step)
        for y in rails:
            cv2.line(area, (0, int(y)), (width, int(y)), colour, thick, cv2.LINE_AA)


def _foliage(rng: np.random.Generator, pool: TexturePool, picture: Picture) -> None:
    area = _area(rng, picture, 0.2, 0.8)
    height, width = area.shape[:2]
    size = rng.uniform(3, 16)
    base = np.array([rng.uniform(30, 140), rng.uniform(70, 150), rng.uniform(20, 80)], np.float32)
    n = min(1200, int(height * width / (size * size * 6)))
    centres = rng.normal(0.5, 0.22, (n, 2)) * (width, height)
    for (x, y), angle, light in zip(centres, rng.uniform(0, 180, n), rng.uniform(0.3, 1.5, n), strict=True):
        axes = (max(1, int(size * rng.uniform(0.6, 1.4))), max(1, int(size * rng.uniform(0.2, 0.6))))
        cv2.ellipse(
            area, (int(x), int(y)), axes, float(angle), 0, 360, _scalar(base * np.float32(light)), -1, cv2.LINE_AA
        )


def _shelf(rng: np.random.Generator, pool: TexturePool, picture: Picture) -> None:
    """Rows of boxes, books or bottles without lettering."""
    area = _area(rng, picture, 0.3, 0.9)
    height, width = area.shape[:2]
    y, row = 0, int(rng.integers(40, 160))
    while y < height:
        x = 0
        while x < width:
            w = int(rng.uniform(0.1, 0.8) * row) + 2
            h = int(row * rng.uniform(0.5, 0.95))
            cv2.rectangle(area, (x, y + row - h), (x + w, y + row - 4), _scalar(_colour(rng)), -1)
            if rng.random() < 0.5:
                cv2.rectangle(area, (x + w // 5, y + row - h // 2), (x + 4 * w // 5, y + row - h // 4),
                              _scalar(_colour(rng)), -1)  # fmt: skip
            x += w + int(rng.integers(0, 4))
        cv2.line(area, (0, y + row), (width, y + row), _scalar(_colour(rng) * np.float32(0.5)), int(rng.integers(2, 8)))
        y += row


def _cables(rng: np.random.Generator, pool: TexturePool, picture: Picture) -> None:
    """Cables, poles, branches."""
    height, width = picture.shape[:2]
    colour = _scalar(_colour(rng) * np.float32(rng.uniform(0.2, 1)))
    for _ in range(int(rng.integers(1, 7))):
        t = np.linspace(0, 1, 20)
        start, end = rng.uniform(-0.2, 1.2, 2), rng.uniform(-0.2, 1.2, 2)
        sag = rng.uniform(-0.2, 0.3)
        x, y = start[0] + t * (end[0] - start[0]), start[1] + t * (end[1] - start[1]) + sag * t * (1 - t)
        points = np.stack([x * width, y * height], axis=1).astype(np.int32)
        cv2.polylines(picture, [points], False, colour, int(rng.integers(1, 6)), cv2.LINE_AA)


def _stripes(rng: np.random.Generator, pool: TexturePool, picture: Picture) -> None:
    """Rows of short strokes, like a line of text without letters: zebra crossings, bar codes, radiators, tyres."""
    area = _area(rng, picture, 0.03, 0.25)
    height, width = area.shape[:2]
    if rng.random() < 0.5:
        area[:] = _colour(rng)
    colour = _scalar(_colour(rng))
    regular, x, step = rng.random() < 0.5, 0.0, rng.uniform(3, 24)
    while x < width:
        w = step * (0.5 if regular else rng.uniform(0.1, 0.8))
        cv2.rectangle(area, (int(x), 0), (int(x + w), height), colour, -1)
        x += step if regular else w + rng.uniform(0.1, 0.8) * step


def _shapes(rng: np.random.Generator, pool: TexturePool, picture: Picture) -> None:
    """Discs, arrows, triangles, crosses: traffic signs and icons."""
    height, width = picture.shape[:2]
    for _ in range(int(rng.integers(1, 6))):
        x, y, r = int(rng.integers(width)), int(rng.integers(height)), int(rng.uniform(6, 60))
        first, second = _scalar(_colour(rng)), _scalar(_colour(rng))
        kind = int(rng.integers(4))
        if kind == 0:
            cv2.circle(picture, (x, y), r, first, -1, cv2.LINE_AA)
            cv2.circle(picture, (x, y), max(1, int(r * 0.8)), second, max(1, r // 6), cv2.LINE_AA)
        elif kind == 1:
            cv2.arrowedLine(picture, (x - r, y), (x + r, y), first, max(1, r // 4), cv2.LINE_AA, 0, 0.5)
        elif kind == 2:
            corners = np.array([(x, y - r), (x + r, y + r), (x - r, y + r)], np.int32)
            cv2.fillPoly(picture, [corners], first, cv2.LINE_AA)
            cv2.polylines(picture, [corners], True, second, max(1, r // 6), cv2.LINE_AA)
        else:
            cv2.line(picture, (x - r, y), (x + r, y), first, max(1, r // 2), cv2.LINE_AA)
            cv2.line(picture, (x, y - r), (x, y + r), first, max(1, r // 2), cv2.LINE_AA)


def _scribble(rng: np.random.Generator, pool: TexturePool, picture: Picture) -> None:
    """Graffiti, cracks, scratches: strokes that are no letters."""
    height, width = picture.shape[:2]
    at = rng.uniform(0, 1, 2) * (width, height)
    steps = rng.normal(0, rng.uniform(4, 40), (int(rng.integers(5, 40)), 2))
    points = (at + np.cumsum(steps, axis=0)).astype(np.int32)
    cv2.polylines(picture, [points], False, _scalar(_colour(rng)), int(rng.integers(1, 7)), cv2.LINE_AA)


def _tiles(rng: np.random.Generator, pool: TexturePool, picture: Picture) -> None:
    """Tiles or bricks in perspective-free rows with joints."""
    area = _area(rng, picture, 0.2, 0.9)
    height, width = area.shape[:2]
    h = int(rng.integers(6, 70))
    w = int(h * rng.uniform(1, 3.5))
    brick, joint, shift = _colour(rng), _scalar(_colour(rng)), int(rng.integers(2)) * w // 2
    thick = int(rng.integers(1, 4))
    for row, y in enumerate(range(0, height, h)):
        for x in range(-(row % 2) * shift, width, w):
            shade = _scalar(brick * np.float32(rng.uniform(0.8, 1.15)))
            cv2.rectangle(area, (x, y), (x + w, y + h), shade, -1)
            cv2.rectangle(area, (x, y), (x + w, y + h), joint, thick)


def _pieces(rng: np.random.Generator, pool: TexturePool, picture: Picture) -> None:
    """A part of another scene, for instance a poster, a car or a shop window."""
    area = _area(rng, picture, 0.1, 0.6)
    area[:] = pool.scene(rng, *area.shape[:2])


CLUTTER: tuple[Clutter, ...] = (
    *(_window_grid, _fence, _foliage, _shelf, _cables, _stripes),
    *(_shapes, _scribble, _tiles, _pieces),
)
