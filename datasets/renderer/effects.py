"""What sign makers do to letters: weight, outline, shadow, depth, glow, relief, wear, colours."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from str_app.datasets.renderer.backgrounds import Picture, TexturePool, blend, ramp
from str_app.datasets.renderer.colours import Palette, colour
from str_app.datasets.renderer.geometry import View
from str_app.datasets.renderer.layout import Line
from str_app.datasets.renderer.style import Style

Plane = npt.NDArray[np.uint8]


class Layers(NamedTuple):
    """Coverage of everything the word lays on the ground, uint8 (H, W) each, None where there is none.

    Attributes:
        fill: the letters' faces.
        edge: below them: outline or depth, larger than the fill.
        shade: below both: shadow or glow.
        relief: signed shading, 128 for none.
        second: the part of the fill that has another colour.
        hollow: the edge carries the letters, the fill has the ground's colour.
        glow: the shade is light of the ink's colour.
        neon: so is the edge, and the fill is nearly white.
        emboss: the letters are their relief, hardly coloured.
    """

    fill: Plane
    edge: Plane | None = None
    shade: Plane | None = None
    relief: Plane | None = None
    second: Plane | None = None
    hollow: bool = False
    glow: bool = False
    neon: bool = False
    emboss: bool = False


def make_layers(rng: np.random.Generator, line: Line, scale: float, palette: Palette, style: Style) -> Layers:
    """Random effects on a set line; `scale`, crop pixels per plane pixel, keeps them visible and the letters open."""
    fill = _weigh(rng, line.mask, scale)
    edge: Plane | None = None
    shade: Plane | None = None
    relief: Plane | None = None
    hollow = glow = False
    depth, emboss = style.outline + style.depth, style.outline + style.depth + style.emboss
    kind = rng.random()
    if kind < style.outline:
        size = int(rng.integers(1, max(2, min(6, round(1.6 / scale) + 3))))
        edge = np.asarray(cv2.dilate(fill, _disc(size)), np.uint8)
        hollow = bool(rng.random() < 0.22) and size >= 2
    elif kind < depth:
        edge = _depth(rng, fill)
        if rng.random() < 0.27:
            edge = np.asarray(cv2.dilate(edge, _disc(int(rng.integers(1, 3)))), np.uint8)
    elif kind < emboss:
        return Layers(fill, relief=_relief(rng, fill), emboss=True)
    elif kind < emboss + style.neon and palette.ink.mean() > palette.ground.mean():
        edge = np.asarray(cv2.dilate(fill, _disc(int(rng.integers(1, 3)))), np.uint8)
        halo = cv2.GaussianBlur(edge, (0, 0), float(rng.uniform(3, 9)))
        return Layers(fill, edge, np.asarray(halo, np.uint8), glow=True, neon=True)
    kind = rng.random()
    base = fill if edge is None else edge
    if kind < style.shadow:
        dx, dy = rng.uniform(-5, 5, 2)
        moved = cv2.warpAffine(base, np.array([[1, 0, dx], [0, 1, dy]]), (base.shape[1], base.shape[0]))
        if rng.random() < 0.7:
            moved = cv2.GaussianBlur(moved, (0, 0), float(rng.uniform(0.8, 5)))
        shade = np.asarray(moved, np.uint8)
    elif kind < style.shadow + style.halo:
        halo = cv2.GaussianBlur(cv2.dilate(base, _disc(3)), (0, 0), float(rng.uniform(2, 8)))
        shade = np.asarray(halo, np.uint8)
        glow = bool(rng.random() < 0.75)
    second = _second(rng, fill, line, style)
    if second is None and rng.random() < style.relief:
        relief = _relief(rng, fill)
    return Layers(fill, edge, shade, relief, second, hollow, glow)


def paint(
    rng: np.random.Generator,
    pool: TexturePool,
    palette: Palette,
    layers: Layers,
    view: View,
    ground: Picture,
    boxes: npt.NDArray[np.float32],
    style: Style,
) -> tuple[Picture, Plane]:
    """Lay the word on the ground as the view shows it.

    Args:
        rng: draws colours and strengths.
        pool: textures for the letters' faces.
        palette: colours.
        layers: from `make_layers`, in the plane.
        view: from plane to crop.
        ground: (H, W, 3), the crop without the word.
        boxes: float32 (n, 4) of the characters in the crop, for letters of several colours.
        style: how often.

    Returns:
        The crop and the coverage, uint8 (H, W), of what makes the letters readable.
    """
    names = [name for name in ("fill", "edge", "shade", "relief", "second") if getattr(layers, name) is not None]
    planes = [getattr(layers, name) for name in names]
    seen = view.sample(cv2.merge(planes) if len(planes) > 1 else planes[0])
    if seen.ndim == 2:
        seen = seen[:, :, None]
    alpha = {name: seen[:, :, i].astype(np.float32) * np.float32(1 / 255) for i, name in enumerate(names)}
    picture = ground
    if "shade" in alpha:
        tone = palette.ink if layers.glow else palette.ground * np.float32(rng.uniform(0.1, 0.7))
        picture = blend(picture, alpha["shade"] * np.float32(rng.uniform(0.35, 0.95)), tone)
    ink: npt.NDArray[np.float32] = palette.ink
    if "edge" in alpha:
        rim = palette.ink if layers.hollow or layers.neon else _rim(rng, palette, alpha["edge"].shape)
        picture = blend(picture, alpha["edge"], rim)
        if layers.hollow:
            ink = palette.ground
    face: npt.NDArray[np.float32]
    if layers.neon:
        face = ink + (255 - ink) * np.float32(rng.uniform(0.3, 0.9))
    else:
        face = _face(rng, pool, palette, ink, alpha["fill"].shape, boxes, style)
    if "second" in alpha:
        face = blend(np.broadcast_to(face, ground.shape), alpha["second"], _other_ink(rng, palette, ink))
    cover = alpha["fill"]
    if layers.emboss:
        raised = (alpha["relief"] - np.float32(128 / 255)) * np.float32(rng.uniform(150, 400))
        picture = blend(picture, cover * np.float32(rng.uniform(0, 0.3)), face) + raised[:, :, None]
        return np.clip(picture, 0, 255), np.zeros(cover.shape, np.uint8)
    if "relief" in alpha:
        strength = np.float32(rng.uniform(60, 200))
        face = np.clip(face + ((alpha["relief"] - np.float32(128 / 255)) * strength)[:, :, None], 0, 255)
    if rng.random() < style.faded:
        cover = cover * np.float32(rng.uniform(0.6, 0.95))  # letters behind glass, faded print
    if rng.random() < style.worn:
        cover = cover * np.clip(pool.surface(rng, *cover.shape) * 3 + np.float32(rng.uniform(1.0, 2.2)), 0.15, 1)
    picture = blend(picture, cover, face)
    carrier = seen[:, :, names.index("edge")] - seen[:, :, 0] if layers.hollow else seen[:, :, 0]
    return picture, np.ascontiguousarray(carrier)


def _weigh(rng: np.random.Generator, mask: Plane, scale: float) -> Plane:
    """Bolder or thinner letters; hairlines that would vanish in the crop are thickened."""
    kind = rng.random()
    if kind < 0.05:
        return np.asarray(cv2.dilate(mask, _disc(2)), np.uint8)
    if kind < 0.22 or (scale < 0.4 and kind < 0.35):
        return np.asarray(cv2.dilate(mask, _disc(1)), np.uint8)
    if kind > 0.97 and scale > 0.7:
        return np.asarray(cv2.erode(mask, np.ones((2, 2), np.uint8)), np.uint8)
    return mask


def _disc(radius: int) -> Plane:
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1)), np.uint8)


def _depth(rng: np.random.Generator, mask: Plane) -> Plane:
    """The mask drawn out along a direction, as block letters are."""
    reach = int(rng.integers(2, 8))
    dx, dy = (int(value) for value in rng.integers(-reach, reach + 1, 2))
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.uint8)
    cv2.line(kernel, (reach, reach), (reach + dx, reach + dy), 1)
    return np.asarray(cv2.dilate(mask, kernel), np.uint8)


def _relief(rng: np.random.Generator, mask: Plane) -> Plane:
    """Light from a side on raised or sunken letters: 128 where the surface is level."""
    soft = cv2.GaussianBlur(mask, (0, 0), float(rng.uniform(1, 3))).astype(np.int16)
    dx, dy = int(rng.integers(-2, 3)), int(rng.choice([-2, -1, 1, 2]))
    return np.clip(128 + (np.roll(soft, (dy, dx), (0, 1)) - soft), 0, 255).astype(np.uint8)


def _second(rng: np.random.Generator, fill: Plane, line: Line, style: Style) -> Plane | None:
    """The lower part of the letters, or stripes across them."""
    kind = rng.random()
    if kind >= style.two_tone + style.stripes:
        return None
    second = fill.copy()
    top, bottom = float(line.boxes[:, 1].min()), float(line.boxes[:, 3].max())
    if kind < style.two_tone:
        second[: round(top + (bottom - top) * float(rng.uniform(0.35, 0.65)))] = 0
    else:
        period = int(rng.integers(4, 12))
        second[np.arange(len(second)) % period < period // 2] = 0
    return second


def _other_ink(rng: np.random.Generator, palette: Palette, ink: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Another colour of the letters, on the ink's side of the ground so that contrast stays."""
    away = 1.0 if float(palette.ink.mean()) > float(palette.ground.mean()) else -1.0
    shift = np.float32(away * rng.uniform(-0.35, 1.0) * palette.contrast * 0.6)
    return np.clip(ink + shift + rng.normal(0, 20, 3), 0, 255).astype(np.float32)


def _rim(rng: np.random.Generator, palette: Palette, size: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Colour of outline or depth: white, black, darker ink, or the second colour; now and then shaded."""
    rim = _rim_colour(rng, palette)
    if rng.random() < 0.75:
        return rim
    shade = 1 + np.float32(rng.uniform(-0.6, 0.6)) * ramp(rng, size[0], size[1])
    return np.clip(rim * shade[:, :, None], 0, 255)


def _rim_colour(rng: np.random.Generator, palette: Palette) -> npt.NDArray[np.float32]:
    kind = rng.random()
    if kind < 0.2:
        return np.full(3, 255, np.float32)
    if kind < 0.4:
        return np.full(3, rng.uniform(0, 40), np.float32)
    if kind < 0.7:
        return palette.ink * np.float32(rng.uniform(0.3, 0.7))
    return palette.second


def _face(
    rng: np.random.Generator,
    pool: TexturePool,
    palette: Palette,
    ink: npt.NDArray[np.float32],
    size: tuple[int, ...],
    boxes: npt.NDArray[np.float32],
    style: Style,
) -> npt.NDArray[np.float32]:
    """Colour of the letters' faces: a colour (3,) or a picture (H, W, 3)."""
    height, width = size
    kind = rng.random()
    if kind < style.gradient:
        end = _other_ink(rng, palette, ink)
        return blend(np.broadcast_to(ink, (height, width, 3)), ramp(rng, height, width), end)
    kind -= style.gradient
    if kind >= style.texture + style.many_colours:
        return ink
    if kind < style.texture:
        strength = np.float32(palette.contrast * rng.uniform(0.08, 0.35))
        return np.clip(ink + pool.surface(rng, height, width)[:, :, None] * strength, 0, 255)
    luma = float(np.clip(ink.mean() + (10 if ink.mean() > palette.ground.mean() else -10), 5, 250))
    face = np.empty((height, width, 3), np.float32)
    face[:] = ink
    for x0, _, x1, _ in boxes:  # every letter its own colour
        left, right = max(0, int(x0)), max(0, int(np.ceil(x1)))
        face[:, left:right] = colour(luma, float(rng.random()), float(rng.uniform(0.3, 1)))
    return face
