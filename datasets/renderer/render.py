"""Draws one crop from a seed and an index."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt

from str_app.datasets.renderer import patterns
from str_app.datasets.renderer.backgrounds import Picture, TexturePool, blend, make_background
from str_app.datasets.renderer.camera import distort, photograph
from str_app.datasets.renderer.colours import Palette, choose_palette
from str_app.datasets.renderer.effects import make_layers, paint
from str_app.datasets.renderer.fonts import FontError
from str_app.datasets.renderer.geometry import View, choose_view
from str_app.datasets.renderer.glyphs import CAP_HEIGHT
from str_app.datasets.renderer.layout import Line, add_rule, set_word
from str_app.datasets.renderer.picture_source import PictureSource
from str_app.datasets.renderer.words import MAX_LENGTH, letter_case
from str_app.datasets.sample import Sample

MAX_ATTEMPTS = 6
MAX_TEXTS = 100  # drawn until a font can write one
JPEG_QUALITY = 88
# If ink and surroundings differ by less than this in every channel, the crop is drawn again.
MIN_DIFFERENCE = 14.0


class Renderer(PictureSource):
    """Draws word crops; see `PictureSource`."""

    version = 3

    @cached_property
    def _pool(self) -> TexturePool:
        return TexturePool(self.photographs)

    def render(self, index: int) -> Sample:
        """Crop `index` ≥ 0, with a box for each character, clipped to the crop.

        Raises:
            FontError: no font has the glyphs of any of 100 texts.
        """
        rng = np.random.Generator(np.random.PCG64([self.seed, index]))
        for _ in range(MAX_TEXTS):
            before, text, after = self._choose_text(rng)
            if self.fonts.can_write(text):
                break
        else:
            raise FontError(
                f"none of the {len(self.fonts)} fonts has all the glyphs of {text!r}, nor of {MAX_TEXTS - 1} texts "
                "before: add a font with these characters, or leave out the words that have them"
            )
        for attempt in range(MAX_ATTEMPTS + 1):
            plain = attempt == MAX_ATTEMPTS  # black on white, undistorted: legible in any font
            try:
                image, boxes, legible = self._draw(rng, text, plain, ("", "") if plain else (before, after))
            except FontError:  # an empty glyph at this size: try another font
                if plain:
                    raise
                continue
            if legible or plain:
                break
        return Sample(image, text, boxes)

    def _choose_text(self, rng: np.random.Generator) -> tuple[str, str, str]:
        """What is written left of the crop, in the crop (the label), and right of it."""
        style = self.style
        text = self.texts.draw(rng)
        # An effect that is off draws no random number: crops without these effects are those of the same version.
        if style.contextless and rng.random() < style.contextless:
            text = letter_case(rng, patterns.contextless(rng))
        if style.confused and rng.random() < style.confused:
            text = patterns.confused(rng, text)[:MAX_LENGTH]
        if not style.fragment or rng.random() >= style.fragment or len(text) < 4:
            return "", text, ""
        most = len(text) // 3
        first, last = ((1, 0), (0, 1), (1, 1))[int(rng.integers(3))]
        start = first * int(rng.integers(1, most + 1))
        end = len(text) - last * int(rng.integers(1, most + 1))
        return text[:start], text[start:end], text[end:]

    def _draw(
        self, rng: np.random.Generator, text: str, plain: bool, hidden: tuple[str, str]
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32], bool]:
        style = self.style
        before, after = map(len, hidden)
        written = hidden[0] + text + hidden[1]
        if before or after:  # rotated or curved, hidden letters would come back into view
            style = replace(style, rotation=0.0, curve=0.0, stacked=0.0)
        font = self.fonts.choose(rng, written)
        stacked = not plain and 2 < len(text) < 11 and text.isalnum() and rng.random() < style.stacked
        no_neighbours = plain or stacked or rng.random() >= style.neighbours
        neighbours = [] if no_neighbours else [self._neighbour(rng, font.glyphs) for _ in range(3)]
        line = set_word(rng, self._faces.get(font), written, neighbours, style, stacked)
        view = choose_view(rng, line.boxes, line.baseline, style, plain, (before, after))
        boxes = view.boxes(line.boxes[before : len(written) - after])
        size = np.array([view.width, view.height] * 2, np.float32)
        clipped = np.clip(boxes, 0, size)
        palette = choose_palette(rng)
        if plain:
            palette = Palette(np.zeros(3, np.float32), np.full(3, 255, np.float32), np.zeros(3, np.float32), 255.0)
        background = make_background(rng, self._pool, palette, view.height, view.width, style)
        if not plain and rng.random() < style.plate:
            background = self._add_plate(rng, palette, background, line, view)
        if not plain and rng.random() < style.rule:
            line = add_rule(rng, line)
        layers = make_layers(rng, line, view.scale, palette, style)
        picture, ink = paint(rng, self._pool, palette, layers, view, background, clipped, style)
        if style.elastic and not plain and rng.random() < style.elastic:
            picture, ink = distort(rng, picture, ink, CAP_HEIGHT * view.scale)
        image = photograph(rng, picture, CAP_HEIGHT * view.scale, style)
        return image, clipped, _is_legible(image, ink, clipped)

    def _neighbour(self, rng: np.random.Generator, glyphs: frozenset[str]) -> str:
        text = self.texts.draw(rng)
        return text if glyphs.issuperset(text) else "".join(char for char in text if char in glyphs) or "A"

    def _add_plate(
        self, rng: np.random.Generator, palette: Palette, background: Picture, line: Line, view: View
    ) -> Picture:
        """Turn the background into a plate around the word, with something else around the plate."""
        left, top = line.boxes[:, :2].min(axis=0)
        right, bottom = line.boxes[:, 2:].max(axis=0)
        pads = rng.uniform(0.08, 0.5, 4).astype(np.float32) * CAP_HEIGHT
        x = np.linspace(left - pads[0], right + pads[2], 9, dtype=np.float32)
        xs = np.concatenate([x, x[::-1]])
        ys = np.repeat(np.array([top - pads[1], bottom + pads[3]], np.float32), 9)
        corners = np.round(view.project(xs, ys) * 16).astype(np.int32)
        plate = np.zeros(background.shape[:2], np.uint8)
        cv2.fillPoly(plate, [corners], 255, cv2.LINE_AA, 4)
        if rng.random() < 0.5:
            surroundings = self._pool.scene(rng, view.height, view.width)
        else:
            surroundings = np.broadcast_to(palette.second, background.shape)
        picture = blend(surroundings, plate.astype(np.float32) * np.float32(1 / 255), background)
        if rng.random() < 0.5:
            rim = palette.ink if rng.random() < 0.5 else palette.second
            thick = max(1, round(view.scale * float(rng.uniform(1, 4))))
            picture = np.ascontiguousarray(picture)
            cv2.polylines(picture, [corners], True, [float(value) for value in rim], thick, cv2.LINE_AA, 4)
        return picture


def _is_legible(image: npt.NDArray[np.uint8], ink: npt.NDArray[np.uint8], boxes: npt.NDArray[np.float32]) -> bool:
    """Whether ink and background differ within the word's box, and every character is inside the crop."""
    if ((boxes[:, 2] - boxes[:, 0] < 0.7) | (boxes[:, 3] - boxes[:, 1] < 0.7)).any():
        return False
    x0, y0 = (max(0, int(value) - 1) for value in boxes[:, :2].min(axis=0))
    x1, y1 = (int(np.ceil(value)) + 1 for value in boxes[:, 2:].max(axis=0))
    area, coverage = image[y0:y1, x0:x1], ink[y0:y1, x0:x1]
    inside, outside = (coverage > 150).astype(np.uint8), (coverage < 30).astype(np.uint8)
    if not inside.any() or not outside.any():
        # Hairlines cover no pixel completely; a solid character fills its box.
        return bool(image.reshape(-1, 3).std(axis=0).max() > MIN_DIFFERENCE)
    ink_colour, background_colour = cv2.mean(area, inside)[:3], cv2.mean(area, outside)[:3]
    differences = [abs(a - b) for a, b in zip(ink_colour, background_colour, strict=True)]
    return bool(max(differences) >= MIN_DIFFERENCE)


def encode(image: npt.NDArray[np.uint8], quality: int = JPEG_QUALITY) -> bytes:
    """JPEG bytes of a uint8 (H, W, 3) RGB image."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    if not done:
        raise ValueError(f"cannot encode an image of shape {image.shape}")
    return data.tobytes()
