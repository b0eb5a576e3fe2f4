"""Effects on letters: weight, outline, shadow, depth, glow, relief, wear, colours."""

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
    """Coverage masks of the word, uint8 (H, W) each, or None.

    Attributes:
        fill: the faces of the letters.
        edge: below the fill and larger: outline or depth.
        shade: below edge and fill: shadow or glow.
        relief: shading around 128, which is none.
        second: the part of the fill in a second colour.
        hollow: only the outline has the ink's colour; the fill has the background's.
        glow: the shade is light in the ink's colour.
        neon: the edge glows too, and the fill is almost white.
        emboss: the letters are visible by their relief only.
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
    """Random effects on a line of text. `scale`, crop pixels per plane pixel, keeps thin strokes visible."""
    fill = _change_weight(rng, line.mask, scale)
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
        edge = _extrude(rng, fill)
        if rng.random() < 0.27:
            edge = np.asarray(cv2.dilate(edge, _disc(int(rng.integers(1, 3)))), np.uint8)
    elif kind < emboss:
        return Layers(fill, relief=_relief(rng, fill), emboss=True)
    elif kind < emboss + style.neon and palette.ink.mean() > palette.background.mean():
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
    second = _second_mask(rng, fill, line, style)
    if second is None and rng.random() < style.relief:
        relief = _relief(rng, fill)
    return Layers(fill, edge, shade, relief, second, hollow, glow)


def paint(
    rng: np.random.Generator,
    pool: TexturePool,
    palette: Palette,
    layers: Layers,
    view: View,
    background: Picture,
    boxes: npt.NDArray[np.float32],
    style: Style,
) -> tuple[Picture, Plane]:
    """Draw the word on the background as the view projects it.

    Args:
        rng: chooses colours and strengths.
        pool: textures for the faces.
        palette: colours.
        layers: from `make_layers`, in plane coordinates.
        view: from plane to crop.
        background: float32 (H, W, 3), the crop without the word.
        boxes: float32 (n, 4) of the characters in the crop, for letters in several colours.
        style: frequency of each effect.

    Returns:
        The crop, and the coverage mask, uint8 (H, W), of the part that makes the letters legible.
    """
    names = [name for name in ("fill", "edge", "shade", "relief", "second") if getattr(layers, name) is not None]
    planes = [getattr(layers, name) for name in names]
    warped = view.sample(cv2.merge(planes) if len(planes) > 1 else planes[0])
    if warped.ndim == 2:
        warped = warped[:, :, None]
    alpha = {name: warped[:, :, i].astype(np.float32) * np.float32(1 / 255) for i, name in enumerate(names)}
    picture = background
    if "shade" in alpha:
        tone = palette.ink if layers.glow else palette.background * np.float32(rng.uniform(0.1, 0.7))
        picture = blend(picture, alpha["shade"] * np.float32(rng.uniform(0.35, 0.95)), tone)
    ink: npt.NDArray[np.float32] = palette.ink
    if "edge" in alpha:
        rim = palette.ink if layers.hollow or layers.neon else _rim(rng, palette, alpha["edge"].shape)
        picture = blend(picture, alpha["edge"], rim)
        if layers.hollow:
            ink = palette.background
    face: npt.NDArray[np.float32]
    if layers.neon:
        face = ink + (255 - ink) * np.float32(rng.uniform(0.3, 0.9))
    else:
        face = _face(rng, pool, palette, ink, alpha["fill"].shape, boxes, style)
    if "second" in alpha:
        face = blend(np.broadcast_to(face, background.shape), alpha["second"], _related_ink(rng, palette, ink))
    cover = alpha["fill"]
    if layers.emboss:
        raised = (alpha["relief"] - np.float32(128 / 255)) * np.float32(rng.uniform(150, 400))
        picture = blend(picture, cover * np.float32(rng.uniform(0, 0.3)), face) + raised[:, :, None]
        return np.clip(picture, 0, 255), np.zeros(cover.shape, np.uint8)
    if "relief" in alpha:
        strength = np.float32(rng.uniform(60, 200))
        face = np.clip(face + ((alpha["relief"] - np.float32(128 / 255)) * strength)[:, :, None], 0, 255)
    if rng.random() < style.faded:
        cover = cover * np.float32(rng.uniform(0.6, 0.95))  # text behind glass, faded print
    if rng.random() < style.worn:
        cover = cover * np.clip(pool.surface(rng, *cover.shape) * 3 + np.float32(rng.uniform(1.0, 2.2)), 0.15, 1)
    picture = blend(picture, cover, face)
    carrier = warped[:, :, names.index("edge")] - warped[:, :, 0] if layers.hollow else warped[:, :, 0]
    return picture, np.ascontiguousarray(carrier)


def _change_weight(rng: np.random.Generator, mask: Plane, scale: float) -> Plane:
    """Bolder or thinner letters; hairlines that would disappear in a small crop become bolder."""
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


def _extrude(rng: np.random.Generator, mask: Plane) -> Plane:
    """The mask extruded in a random direction, as block letters are."""
    reach = int(rng.integers(2, 8))
    dx, dy = (int(value) for value in rng.integers(-reach, reach + 1, 2))
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.uint8)
    cv2.line(kernel, (reach, reach), (reach + dx, reach + dy), 1)
    return np.asarray(cv2.dilate(mask, kernel), np.uint8)


def _relief(rng: np.random.Generator, mask: Plane) -> Plane:
    """Shading of raised or engraved letters lit from a side; 128 where the surface is flat."""
    soft = cv2.GaussianBlur(mask, (0, 0), float(rng.uniform(1, 3))).astype(np.int16)
    dx, dy = int(rng.integers(-2, 3)), int(rng.choice([-2, -1, 1, 2]))
    return np.clip(128 + (np.roll(soft, (dy, dx), (0, 1)) - soft), 0, 255).astype(np.uint8)


def _second_mask(rng: np.random.Generator, fill: Plane, line: Line, style: Style) -> Plane | None:
    """The mask of the second colour: the lower part of the letters, or stripes across them."""
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


def _related_ink(rng: np.random.Generator, palette: Palette, ink: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Another ink, lighter or darker than the background like the first, so that the contrast stays."""
    direction = 1.0 if float(palette.ink.mean()) > float(palette.background.mean()) else -1.0
    shift = np.float32(direction * rng.uniform(-0.35, 1.0) * palette.contrast * 0.6)
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
        end = _related_ink(rng, palette, ink)
        return blend(np.broadcast_to(ink, (height, width, 3)), ramp(rng, height, width), end)
    kind -= style.gradient
    if kind >= style.texture + style.many_colours:
        return ink
    if kind < style.texture:
        strength = np.float32(palette.contrast * rng.uniform(0.08, 0.35))
        return np.clip(ink + pool.surface(rng, height, width)[:, :, None] * strength, 0, 255)
    luma = float(np.clip(ink.mean() + (10 if ink.mean() > palette.background.mean() else -10), 5, 250))
    face = np.empty((height, width, 3), np.float32)
    face[:] = ink
    for x0, _, x1, _ in boxes:  # every letter its own colour
        left, right = max(0, int(x0)), max(0, int(np.ceil(x1)))
        face[:, left:right] = colour(luma, float(rng.random()), float(rng.uniform(0.3, 1)))
    return face
