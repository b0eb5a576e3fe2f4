"""Composes whole pictures with many words at known places: signs, labels, pages, single words, and none."""

from __future__ import annotations

import string
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from str_app.datasets.renderer import patterns
from str_app.datasets.renderer.backgrounds import Picture, TexturePool, blend, make_background
from str_app.datasets.renderer.camera import photograph
from str_app.datasets.renderer.clutter import make_surroundings
from str_app.datasets.renderer.colours import Palette, choose_palette, palette_on
from str_app.datasets.renderer.effects import make_layers, paint
from str_app.datasets.renderer.fonts import Font, FontError
from str_app.datasets.renderer.geometry import Curve, View, choose_curve
from str_app.datasets.renderer.glyphs import CAP_HEIGHT
from str_app.datasets.renderer.layout import Line
from str_app.datasets.renderer.picture_source import PictureSource
from str_app.datasets.renderer.style import Style
from str_app.datasets.renderer.text_block import Align, Block, BlockWord, LineSetting, set_block
from str_app.datasets.renderer.words import letter_case

TEXTURE_SIZE = (480, 854)  # larger than those of crops: they cover a whole picture
SIDES = (640, 1280)  # pixels of the longer side
ASPECTS = (4 / 3, 4 / 3, 3 / 2, 16 / 9, 16 / 9, 1.0)
MARGIN = 44  # plane pixels around a block, for its effects
ILLEGIBLE = "###"  # the text of words that nobody could read, as in ICDAR 2015's labels
LEAST_CAPITALS = 7.0  # pixels: smaller words are labelled illegible
LEAST_DIFFERENCE = 14.0  # grey levels between ink and surroundings: with less, a block is labelled illegible
LEAST_VISIBLE = 0.75  # share of a word inside the picture: with less, it is labelled illegible
PADDING = 0.04  # of a word's quad around its ink, in heights
CELL = 8  # pixels of the map of what is occupied
RUNNING_TEXT = string.ascii_letters + ".,"  # what a font of paragraphs must have

Points = npt.NDArray[np.float32]
Kind = Literal["signs", "poster", "page", "single", "clutter"]
KINDS: tuple[tuple[Kind, float], ...] = (
    ("signs", 0.56),
    ("poster", 0.17),
    ("page", 0.15),
    ("single", 0.07),
    ("clutter", 0.05),
)


class SceneWord(NamedTuple):
    """A word of a scene.

    Attributes:
        text: its characters, or `"###"` if it is illegible.
        quad: float32 (4, 2), corners clockwise from the top left of its first letter, in pixels of the picture.
        line: words of the same number stand in one line, in reading order.
        character_quads: float32 (n, 4, 2), of its characters; empty if it is illegible.
    """

    text: str
    quad: Points
    line: int
    character_quads: Points


class Scene(NamedTuple):
    """A picture, uint8 (H, W, 3) RGB, and its words in reading order."""

    image: npt.NDArray[np.uint8]
    words: tuple[SceneWord, ...]


@dataclass
class _Canvas:
    """A scene in the making.

    Attributes:
        picture: float32 (H, W, 3), 0 to 255.
        ink: uint8 (H, W), coverage of the words.
        occupied: uint8, one cell for CELL × CELL pixels.
        words: so far.
        lines: number of lines so far.
        heights: of capitals, in pixels, one for each block.
    """

    picture: Picture
    ink: npt.NDArray[np.uint8]
    occupied: npt.NDArray[np.uint8]
    words: list[SceneWord]
    lines: int
    heights: list[float]


class SceneComposer(PictureSource):
    """Composes scenes; see `PictureSource`. Of the style, it uses the effects on letters and the camera's."""

    version = 2
    cached_faces = 500  # large faces: at most ≈ 1 MB each

    @cached_property
    def _pool(self) -> TexturePool:
        return TexturePool(self.photographs, surfaces=18, scenes=12, size=TEXTURE_SIZE)

    def compose(self, index: int) -> Scene:
        """Scene `index` ≥ 0."""
        canvas, camera = self._draw(index)
        # Blur and loss of resolution are relative to the small words: these stay legible.
        heights = canvas.heights or [24.0]
        capital_height = float(np.clip(np.quantile(heights, 0.25), 8, 26))
        image = photograph(camera, canvas.picture, capital_height, self.style)
        return Scene(image, tuple(canvas.words))

    def _draw(self, index: int) -> tuple[_Canvas, np.random.Generator]:
        """The scene before the camera, and the camera's random numbers."""
        rng = np.random.Generator(np.random.PCG64([self.seed, index]))
        camera = np.random.Generator(np.random.PCG64(int(rng.integers(2**62))))
        height, width = _choose_size(rng)
        picture = make_surroundings(rng, self._pool, height, width)
        if rng.random() < 0.12:  # night
            picture *= np.float32(rng.uniform(0.1, 0.5))
        cells = (-(-height // CELL), -(-width // CELL))
        canvas = _Canvas(picture, np.zeros((height, width), np.uint8), np.zeros(cells, np.uint8), [], 0, [])
        for plan in self._plan(rng, canvas):
            # Own random numbers: what happens in one block does not change the others.
            self._add_block(np.random.Generator(np.random.PCG64(int(rng.integers(2**62)))), canvas, plan)
        return canvas, camera

    def _plan(self, rng: np.random.Generator, canvas: _Canvas) -> list[_Plan]:
        height, width = canvas.ink.shape
        kind = _choose_kind(rng)
        if kind == "clutter":
            return []
        if kind == "single":
            size = float(rng.uniform(0.08, 0.35) * height)
            plans = [_Plan("word", min(size, 300.0))]
            plans += [_Plan("label", _small(rng)) for _ in range(int(rng.integers(0, 4)))]
            return plans
        if kind == "page":
            palette = _paper(rng) if rng.random() < 0.8 else choose_palette(rng)
            self._cover(rng, canvas, palette)
            size = float(rng.uniform(7.5, 18))
            columns = 2 if width > 500 and rng.random() < 0.4 else 1
            return [_Plan("page", size, palette, columns)]
        if kind == "poster":
            palette = choose_palette(rng)
            self._cover(rng, canvas, palette)
            turn = float(rng.normal(0, 3))
            sizes = np.exp(rng.uniform(np.log(10), np.log(0.14 * height), int(rng.integers(4, 16))))
            kinds = rng.random(len(sizes))
            return [
                _Plan("sign" if k < 0.7 else "label" if k < 0.93 else "paragraph", float(size), palette, turn=turn)
                for size, k in zip(sorted(sizes, reverse=True), kinds, strict=True)
            ]
        count = int(np.clip(rng.geometric(0.13), 1, 20))
        scale = float(np.exp(rng.normal(0, 0.35)))
        plans = []
        for k in rng.random(count):
            size = float(np.clip(np.exp(rng.normal(3.05, 0.6)) * scale, 8, 160))
            plans.append(_Plan("sign" if k < 0.6 else "label" if k < 0.92 else "paragraph", size))
        return sorted(plans, key=lambda plan: -plan.size)

    def _cover(self, rng: np.random.Generator, canvas: _Canvas, palette: Palette) -> None:
        """Turn most of the picture into one surface: paper, a menu, the front of a package."""
        height, width = canvas.ink.shape
        surface = make_background(rng, self._pool, palette, height, width, self.style)
        if rng.random() < 0.45:
            canvas.picture = surface
            return
        corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
        corners += rng.uniform(-0.06, 0.06, (4, 2)).astype(np.float32) * (width, height)
        mask = np.zeros((height, width), np.uint8)
        cv2.fillPoly(mask, [_fixed(corners)], 255, cv2.LINE_AA, 4)
        canvas.picture = blend(canvas.picture, mask.astype(np.float32) * np.float32(1 / 255), surface)

    def _add_block(self, rng: np.random.Generator, canvas: _Canvas, plan: _Plan) -> None:
        plane_cap = next((cap for cap in (CAP_HEIGHT, 72, 144) if cap >= 0.8 * plan.size), 144)
        try:
            if plan.kind == "page":
                return self._add_page(rng, canvas, plan)
            block = self._set_sign(rng, plan, plane_cap)
        except FontError:  # no font for running text, or an empty glyph at this size: the scene has one block less
            return None
        has_panel = plan.palette is None and rng.random() < (0.5 if plan.kind != "word" else 0.3)
        x0, y0, x1, y1 = block.bounds
        curve = Curve()
        if block.words[-1].line == 0 and plane_cap == CAP_HEIGHT:
            baseline = block.words[0].baseline
            curve = choose_curve(rng, (x0 + x1) / 2, baseline, x1 - x0, y1 - y0, self.style.curve * 0.8)
        pads = rng.uniform(0.15, 0.9, 4) * plane_cap if has_panel else np.full(4, 0.12 * plane_cap)
        frame = (x0 - pads[0], y0 - pads[1], x1 + pads[2], y1 + pads[3])
        for shrink in (1.0, 1.0, 1.0, 1.0, 0.7, 0.7, 0.5, 0.5):
            scale = plan.size * shrink / plane_cap
            homography = _choose_homography(rng, frame, scale, self.style, plan.turn)
            placed = _find_place(rng, canvas, View(curve, homography, 1, 1, scale), frame)
            if placed is not None:
                self._paint_block(rng, canvas, block, placed, frame if has_panel else None, plan.palette, self.style)
                return None
        return None

    def _add_page(self, rng: np.random.Generator, canvas: _Canvas, plan: _Plan) -> None:
        """Paragraphs in one or two columns, seen almost from the front, under one or two headings."""
        height, width = canvas.ink.shape
        style = replace(_without_letter_effects(self.style), rotation=0.0)
        font = self.fonts.choose(rng, RUNNING_TEXT)
        cap = 24
        scale = plan.size / cap
        plane_width, plane_height = 0.86 * width / scale, 0.86 * height / scale
        gutter = rng.uniform(1.5, 4) * cap
        column = (plane_width - gutter * (plan.columns - 1)) / plan.columns
        frame = (0.0, 0.0, plane_width, plane_height)
        homography = _choose_homography(rng, frame, scale, replace(style, slant=0, narrow=0), plan.turn, page=True)
        homography = np.array([[1, 0, width / 2], [0, 1, height / 2], [0, 0, 1]]) @ homography
        palette = plan.palette
        setting = _Paragraph(
            font=font,
            cap=cap,
            width=column,
            align=_choose_align(rng, page=True),
            leading=float(rng.uniform(1.55, 2.3)),
            gap=float(rng.uniform(0.26, 0.6) * cap),
            tracking=float(rng.normal(0.0, 0.02) * cap),
        )
        top = 0.0
        if rng.random() < 0.6:
            heading_cap = int(rng.choice([36, 48, 72]))
            heading_font = font if rng.random() < 0.5 else self.fonts.choose(rng, RUNNING_TEXT)
            align: Align = "centre" if rng.random() < 0.5 else "left"
            heading_setting = _Paragraph(
                heading_font, heading_cap, plane_width, align, 1.5, 0.4 * heading_cap, heading=True
            )
            heading = self._set_paragraph(rng, heading_setting, 1 + int(rng.integers(2)))
            self._place_on_page(rng, canvas, heading, homography, scale, (0.0, 0.0), plane_width, palette, style)
            top = heading.bounds[3] - heading.bounds[1] + rng.uniform(0.8, 2) * heading_cap
        room = int(rng.uniform(0.4, 1.0) * (plane_height - top) / (setting.leading * cap))
        for c in range(plan.columns):
            x, y, left = c * (column + gutter), top, max(2, room)
            while left > 1:
                lines = min(left, int(rng.integers(2, 14)))
                block = self._set_paragraph(rng, setting, lines)
                self._place_on_page(rng, canvas, block, homography, scale, (x, y), column, palette, style)
                y += block.bounds[3] - block.bounds[1] + rng.uniform(0.7, 2.0) * cap
                left -= lines + 1

    def _place_on_page(
        self,
        rng: np.random.Generator,
        canvas: _Canvas,
        block: Block,
        homography: npt.NDArray[np.float64],
        scale: float,
        at: tuple[float, float],
        column: float,
        palette: Palette | None,
        style: Style,
    ) -> None:
        """Paint a paragraph with its top left corner at a place of the page's plane."""
        dx, dy = at[0] - block.bounds[0], at[1] - block.bounds[1]
        if column > block.bounds[2] - block.bounds[0] + 1 and block.words[0].cap_height > 24 and rng.random() < 0.5:
            dx += (column - (block.bounds[2] - block.bounds[0])) / 2  # a centred heading
        view = View(Curve(), homography @ np.array([[1, 0, dx], [0, 1, dy], [0, 0, 1]]), 1, 1, scale)
        self._paint_block(rng, canvas, block, view, None, palette, style)

    def _set_paragraph(self, rng: np.random.Generator, setting: _Paragraph, lines: int) -> Block:
        face = self._faces.get(setting.font, setting.cap)
        gap, tracking = setting.gap, setting.tracking
        settings = []
        start = True
        for _ in range(lines):
            words: list[str] = []
            length = -gap
            while len(words) < 40:
                word = self._running_word(rng, setting, start)
                end = length + gap + sum(face.glyph(char).advance + tracking for char in word)
                if words and end > setting.width:
                    break
                words.append(word)
                length = end
                start = word[-1] in ".!?"
            settings.append(LineSetting(tuple(words), face, setting.cap, tracking, (gap,) * (len(words) - 1)))
        last = settings[-1]
        keep = int(rng.integers(1, len(last.words) + 1))
        settings[-1] = replace(last, words=last.words[:keep], gaps=last.gaps[: keep - 1])
        width = setting.width if setting.align == "justified" else None
        return set_block(settings, setting.align, setting.leading, 12, width)

    def _running_word(self, rng: np.random.Generator, setting: _Paragraph, start: bool) -> str:
        word = self.texts.words.draw(rng) if self.texts.only_words else self._varied_word(rng, setting, start)
        return "".join(char for char in word if char in setting.font.glyphs)[:32] or "a"

    def _varied_word(self, rng: np.random.Generator, setting: _Paragraph, start: bool) -> str:
        word = self.texts.words.draw(rng) if rng.random() < 0.95 else patterns.number(rng)
        if start or rng.random() < (0.4 if setting.heading else 0.08):
            word = word[:1].upper() + word[1:]
        if rng.random() < 0.12:
            word += ".,,.;:!?"[int(rng.integers(8))]
        return word

    def _set_sign(self, rng: np.random.Generator, plan: _Plan, cap: int) -> Block:
        if plan.kind == "paragraph":
            setting = _Paragraph(
                font=self.fonts.choose(rng, RUNNING_TEXT),
                cap=cap,
                width=float(rng.uniform(8, 24) * cap),
                align=_choose_align(rng, page=True),
                leading=float(rng.uniform(1.5, 2.2)),
                gap=float(rng.uniform(0.25, 0.6) * cap),
                heading=bool(rng.random() < 0.2),
            )
            return self._set_paragraph(rng, setting, int(rng.integers(2, 7)))
        many = plan.kind == "sign"
        texts = [self._sign_words(rng, many) for _ in range(int(rng.choice([1, 2, 3, 4], p=[0.45, 0.3, 0.16, 0.09])))]
        if not many:
            texts = texts[:1]
        fonts = [self.fonts.choose(rng, "".join("".join(words) for words in texts))]
        settings = []
        for i, words in enumerate(texts):
            if i and rng.random() < 0.25:
                fonts.append(self.fonts.choose(rng, "".join(words)))
            # Other lines are as large or smaller; few sizes, so that the cache of faces serves.
            size = round(cap * float(rng.choice([0.5, 0.67, 0.8]))) if i and rng.random() < 0.5 else cap
            tracking, gaps = _choose_spacing(rng, words, size)
            settings.append(LineSetting(words, self._faces.get(fonts[-1], size), size, tracking, gaps))
        if len(settings) > 1 and rng.random() < 0.3:  # the large line is not always the first
            settings = [settings[k] for k in rng.permutation(len(settings))]
        return set_block(settings, _choose_align(rng), float(rng.uniform(1.3, 2.1)), MARGIN)

    def _sign_words(self, rng: np.random.Generator, many: bool) -> tuple[str, ...]:
        count = int(rng.choice([1, 2, 3, 4, 5, 6], p=[0.3, 0.27, 0.2, 0.12, 0.07, 0.04])) if many else 1
        if self.texts.only_words or rng.random() < 0.35:
            return tuple(self.texts.draw(rng) for _ in range(count))
        case = rng.random()
        words = []
        for _ in range(count):
            kind = rng.random()
            if kind < 0.15:
                words.append(patterns.number(rng)[:32])
                continue
            word = self.texts.words.draw_short(rng) if kind < 0.35 else self.texts.words.draw(rng)
            if case < 0.5:
                word = word.upper()
            elif case < 0.85:
                word = word[:1].upper() + word[1:]
            elif case > 0.95:
                word = letter_case(rng, word)
            words.append(word)
        return tuple(words)

    def _paint_block(
        self,
        rng: np.random.Generator,
        canvas: _Canvas,
        block: Block,
        view: View,
        panel: tuple[float, float, float, float] | None,
        palette: Palette | None,
        style: Style,
    ) -> None:
        """Paint the block where the view puts it, and note its words."""
        height, width = canvas.ink.shape
        plane = (0.0, 0.0, float(block.mask.shape[1]), float(block.mask.shape[0]))
        outline = np.concatenate([_outline(view, plane), _outline(view, panel or plane)])
        x0, y0 = (max(0, int(value) - 2) for value in outline.min(axis=0))
        x1, y1 = (
            min(side, int(np.ceil(value)) + 2) for side, value in zip((width, height), outline.max(axis=0), strict=True)
        )
        if x1 - x0 < 4 or y1 - y0 < 4:
            return
        shift = np.array([[1, 0, -x0], [0, 1, -y0], [0, 0, 1.0]])
        local = View(view.curve, shift @ view.homography, x1 - x0, y1 - y0, view.scale)
        region = np.ascontiguousarray(canvas.picture[y0:y1, x0:x1])
        if panel is not None:
            palette = choose_palette(rng)
            region = self._add_panel(rng, region, local, panel, palette)
        elif palette is None:
            behind = np.zeros(region.shape[:2], np.uint8)
            cv2.fillPoly(behind, [_fixed(_outline(local, block.bounds))], 255, cv2.LINE_8, 4)
            palette = palette_on(rng, np.array(cv2.mean(region, behind)[:3], np.float32))
        boxes = np.concatenate([word.boxes for word in block.words])
        line = Line(block.mask, block.mask, boxes, block.words[0].baseline)
        if block.words[-1].line:  # two tones and stripes are of one line
            style = replace(style, two_tone=0.0)
        layers = make_layers(rng, line, view.scale, palette, style)
        picture, ink = paint(rng, self._pool, palette, layers, local, region, local.boxes(boxes), style)
        canvas.picture[y0:y1, x0:x1] = picture
        np.maximum(canvas.ink[y0:y1, x0:x1], ink, out=canvas.ink[y0:y1, x0:x1])
        legible = _differs(picture, ink, local, block.bounds) or layers.emboss
        first = len(canvas.words)
        for word in block.words:
            self._note(canvas, view, word, legible)
        if len(canvas.words) > first:
            canvas.lines = canvas.words[-1].line + 1
            canvas.heights.append(float(np.median([word.cap_height for word in block.words]) * view.scale))

    def _note(self, canvas: _Canvas, view: View, word: BlockWord, legible: bool) -> None:
        height, width = canvas.ink.shape
        quad, characters = _word_quad(view, word)
        inside = _visible_part(quad, width, height)
        area = abs(cv2.contourArea(quad))
        visible = abs(cv2.contourArea(inside)) / max(area, 1e-6)
        if visible < 0.05 or area < 4:
            return
        x = np.full(2, word.boxes[:, [0, 2]].mean(), np.float32)
        y = np.array([word.baseline - word.cap_height, word.baseline], np.float32)
        capitals = float(np.linalg.norm(np.diff(view.project(x, y), axis=0)))
        if not legible or visible < LEAST_VISIBLE or capitals < LEAST_CAPITALS:
            canvas.words.append(SceneWord(ILLEGIBLE, inside, canvas.lines + word.line, np.zeros((0, 4, 2), np.float32)))
            return
        characters = np.clip(characters, 0, (width, height)).astype(np.float32)
        canvas.words.append(SceneWord(word.text, inside, canvas.lines + word.line, characters))

    def _add_panel(
        self,
        rng: np.random.Generator,
        region: Picture,
        view: View,
        panel: tuple[float, float, float, float],
        palette: Palette,
    ) -> Picture:
        """A board behind the block, with a rim and a shadow now and then."""
        height, width = region.shape[:2]
        corners = _fixed(_outline(view, panel))
        mask = np.zeros((height, width), np.uint8)
        cv2.fillPoly(mask, [corners], 255, cv2.LINE_AA, 4)
        alpha = mask.astype(np.float32) * np.float32(1 / 255)
        if rng.random() < 0.3:
            moved = cv2.GaussianBlur(
                np.roll(alpha, (int(rng.integers(1, 6)), int(rng.integers(-5, 6))), (0, 1)), (0, 0), 2
            )
            region = blend(region, np.asarray(moved, np.float32) * np.float32(0.5), np.zeros(3, np.float32))
        if rng.random() < 0.15:
            alpha *= np.float32(rng.uniform(0.5, 0.9))  # glass
        surface = make_background(rng, self._pool, palette, height, width, self.style)
        picture = np.ascontiguousarray(blend(region, alpha, surface))
        if rng.random() < 0.35:
            rim = palette.ink if rng.random() < 0.5 else palette.second
            thick = max(1, round(view.scale * float(rng.uniform(1, 5))))
            cv2.polylines(picture, [corners], True, [float(value) for value in rim], thick, cv2.LINE_AA, 4)
        return picture


@dataclass(frozen=True)
class _Plan:
    """One block to come.

    Attributes:
        kind: a sign of several words, a label of one, a paragraph, a page, or one big word.
        size: height of its capitals in the picture.
        palette: of the surface that it stands on; None for a panel of its own or for what is there.
        columns: of a page.
        turn: degrees that all blocks of the scene share; None lets each turn as it likes.
    """

    kind: Literal["sign", "label", "paragraph", "page", "word"]
    size: float
    palette: Palette | None = None
    columns: int = 1
    turn: float | None = None


@dataclass(frozen=True)
class _Paragraph:
    """How paragraphs are set: font, height of its capitals and measures in pixels of the plane.

    Attributes:
        font: of all words.
        cap: height of its capitals.
        width: of the column.
        align: of its lines.
        leading: distance of baselines, in capital heights.
        gap: between words.
        tracking: between letters besides what the font leaves.
        heading: many words are capitalised.
    """

    font: Font
    cap: int
    width: float
    align: Align
    leading: float
    gap: float
    tracking: float = 0.0
    heading: bool = False


def _choose_kind(rng: np.random.Generator) -> Kind:
    kinds, shares = zip(*KINDS, strict=True)
    chosen: Kind = kinds[int(rng.choice(len(kinds), p=shares))]
    return chosen


def _choose_size(rng: np.random.Generator) -> tuple[int, int]:
    """Height and width."""
    longer = int(rng.integers(SIDES[0], SIDES[1] + 1))
    shorter = round(longer / ASPECTS[int(rng.integers(len(ASPECTS)))])
    return (longer, shorter) if rng.random() < 0.25 else (shorter, longer)


def _small(rng: np.random.Generator) -> float:
    return float(np.exp(rng.uniform(np.log(9), np.log(40))))


def _paper(rng: np.random.Generator) -> Palette:
    """Dark on light."""
    background = np.clip(rng.uniform(190, 250) + rng.normal(0, 6, 3), 0, 255).astype(np.float32)
    ink = np.clip(rng.uniform(5, 80) + rng.normal(0, 8, 3), 0, 255).astype(np.float32)
    return Palette(ink, background, ink, float(background.mean() - ink.mean()))


def _choose_align(rng: np.random.Generator, page: bool = False) -> Align:
    choices: tuple[Align, ...] = ("left", "left", "justified") if page else ("left", "centre", "centre", "right")
    return choices[int(rng.integers(len(choices)))]


def _choose_spacing(rng: np.random.Generator, words: tuple[str, ...], cap: int) -> tuple[float, tuple[float, ...]]:
    """Tracking and the gaps between the words of a line, in plane pixels."""
    kind = rng.random()
    if kind < 0.72:
        tracking = float(rng.normal(0.01, 0.03))
    elif kind < 0.9:
        tracking = float(rng.uniform(0.08, 0.35))
    else:
        tracking = float(rng.uniform(0.35, 1.3))
    # Letters have some space of their own, so that the gaps of letters are about this wide:
    letter_gap = max(0.0, tracking) + 0.12
    kind = rng.random()
    if kind < 0.15:  # tight, hardly wider than between letters
        gap = letter_gap * rng.uniform(1.5, 2.2)
    elif kind < 0.7:
        gap = letter_gap + rng.uniform(0.15, 0.45) + 0.6 * max(0.0, tracking)
    elif kind < 0.93:
        gap = letter_gap + rng.uniform(0.45, 1.2) + max(0.0, tracking)
    else:  # a menu: names on the left, prices on the right
        gap = letter_gap + rng.uniform(1.2, 5)
    jitter = rng.uniform(0.9, 1.1, max(0, len(words) - 1))
    return tracking * cap, tuple(float(gap * cap * factor) for factor in jitter)


def _choose_homography(
    rng: np.random.Generator,
    frame: tuple[float, float, float, float],
    scale: float,
    style: Style,
    turn: float | None,
    page: bool = False,
) -> npt.NDArray[np.float64]:
    """From the plane to the picture, with the middle of `frame` at (0, 0)."""
    x0, y0, x1, y1 = frame
    if page:
        angle = rng.normal(0, 4) if turn is None else turn
    elif turn is not None and rng.random() < 0.93:
        angle = turn
    else:
        kind = rng.random()
        if kind < 0.6:
            angle = rng.normal(0, 2)
        elif kind < 0.87:
            angle = rng.normal(0, 9)
        elif kind < 0.93:
            angle = rng.uniform(-60, 60)
        elif kind < 0.98:
            angle = 90 * (1 if rng.random() < 0.5 else -1) + rng.normal(0, 3)
        else:
            angle = 180 + rng.normal(0, 4)
    stretch = float(np.exp(rng.normal(-0.35, 0.15) if rng.random() < style.narrow * 0.6 else rng.normal(-0.03, 0.12)))
    slant = rng.normal(0.1, 0.18) if rng.random() < style.slant * 0.4 else rng.normal(0, 0.03)
    shape = np.array([[stretch, stretch * np.clip(slant, -0.4, 0.4), 0], [0, 1, 0], [0, 0, 1]])
    if rng.random() < style.perspective:
        strength = 0.12 if page or rng.random() < 0.6 else 0.32
        across, down = rng.uniform(-strength, strength), rng.uniform(-0.5, 0.5) * strength
        squeeze = 1 - 0.9 * abs(across)  # seen from the side, text is also narrower
        tilt = np.array([[squeeze, 0, 0], [rng.normal(0, 0.04), 1, 0], [0, 0, 1]])
        tilt[2] = (2 * across / max(1.0, stretch * (x1 - x0)), 2 * down / max(1.0, y1 - y0), 1)
        shape = tilt @ shape
    c, s = scale * np.cos(np.deg2rad(angle)), scale * np.sin(np.deg2rad(angle))
    rotation = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    centre = np.array([[1, 0, -(x0 + x1) / 2], [0, 1, -(y0 + y1) / 2], [0, 0, 1]])
    return np.asarray(rotation @ shape @ centre)


def _find_place(
    rng: np.random.Generator, canvas: _Canvas, view: View, frame: tuple[float, float, float, float]
) -> View | None:
    """The view moved to a free place of the picture, which it then occupies; None if there is none."""
    height, width = canvas.ink.shape
    outline = _outline(view, frame)
    low, high = outline.min(axis=0), outline.max(axis=0)
    room = np.array([width, height]) - (high - low)
    overhang = 0.35 * (high - low) if rng.random() < 0.07 else np.zeros(2)  # cut by the edge of the picture
    if (room + overhang < 4).any():
        return None
    for _ in range(6):
        at = rng.uniform(-overhang, np.maximum(room + overhang, 1e-3 - overhang)) - low
        cells = np.zeros_like(canvas.occupied)
        cv2.fillPoly(cells, [_fixed((outline + at) / CELL)], 1, cv2.LINE_8, 4)
        if (cells & canvas.occupied).any():
            continue
        canvas.occupied |= np.asarray(cv2.dilate(cells, np.ones((3, 3), np.uint8)), np.uint8)
        move = np.array([[1, 0, at[0]], [0, 1, at[1]], [0, 0, 1]])
        return View(view.curve, move @ view.homography, 1, 1, view.scale)
    return None


def _outline(view: View, frame: tuple[float, float, float, float]) -> Points:
    """The projected edge of a rectangle of the plane, clockwise from its top left, (18, 2)."""
    x0, y0, x1, y1 = frame
    x, y = np.linspace(x0, x1, 9, dtype=np.float32), np.array([y0, y1], np.float32)
    return view.project(np.concatenate([x, x[::-1]]), np.repeat(y, 9))


def _fixed(points: npt.NDArray[np.floating]) -> npt.NDArray[np.int32]:
    """Coordinates with 4 fractional bits, as OpenCV draws them."""
    return np.round(points * 16).astype(np.int32)


def _word_quad(view: View, word: BlockWord) -> tuple[Points, Points]:
    """The quad of a word (4, 2) and those of its characters (n, 4, 2)."""
    x0, y0, x1, y1 = word.boxes.T
    corners = view.project(np.stack([x0, x1, x1, x0], 1).ravel(), np.stack([y0, y0, y1, y1], 1).ravel())
    characters = corners.reshape(-1, 4, 2)
    left, right, top, bottom = x0.min(), x1.max(), y0.min(), y1.max()
    pad = PADDING * (bottom - top)
    if view.curve.kind == "none":
        x = np.array([left - pad, right + pad, right + pad, left - pad], np.float32)
        y = np.array([top - pad, top - pad, bottom + pad, bottom + pad], np.float32)
        return view.project(x, y), characters
    # The rectangle around its characters, along the chord from the middle of the first to that of the last.
    outline = _outline(view, (left - pad, top - pad, right + pad, bottom + pad))
    start, end = (outline[0] + outline[17]) / 2, (outline[8] + outline[9]) / 2
    along = (end - start) / max(float(np.linalg.norm(end - start)), 1e-6)
    across = np.array([-along[1], along[0]], np.float32)
    u, v = outline @ along, outline @ across
    spans = ((u.min(), v.min()), (u.max(), v.min()), (u.max(), v.max()), (u.min(), v.max()))
    quad = np.array([a * along + b * across for a, b in spans], np.float32)
    return quad, characters


def _visible_part(quad: Points, width: int, height: int) -> Points:
    """The part of a word's quad that the edge of the picture leaves, again a quad."""
    if (quad >= 0).all() and (quad <= (width, height)).all():
        return quad
    t = np.linspace(0, 1, 129, dtype=np.float32)[:, None]
    upper, lower = quad[0] + t * (quad[1] - quad[0]), quad[3] + t * (quad[2] - quad[3])
    middle = (upper + lower) / 2
    seen = np.flatnonzero(((middle >= 0) & (middle <= (width, height))).all(axis=1))
    first, last = (seen[0], seen[-1]) if len(seen) else (0, len(t) - 1)
    part = np.stack([upper[first], upper[last], lower[last], lower[first]])
    return np.asarray(np.clip(part, 0, (width, height)), np.float32)


def _differs(
    picture: Picture, ink: npt.NDArray[np.uint8], view: View, bounds: tuple[float, float, float, float]
) -> bool:
    """Whether the ink of a block differs from what is around it."""
    within = np.zeros(ink.shape, np.uint8)
    cv2.fillPoly(within, [_fixed(_outline(view, bounds))], 1, cv2.LINE_8, 4)
    inside, outside = within * (ink > 110), within * (ink < 30)
    if not inside.any() or not outside.any():
        return bool(within.any())
    first, second = cv2.mean(picture, inside)[:3], cv2.mean(picture, outside)[:3]
    return max(abs(a - b) for a, b in zip(first, second, strict=True)) >= LEAST_DIFFERENCE


def _without_letter_effects(style: Style) -> Style:
    names = "outline depth emboss neon shadow halo relief two_tone stripes gradient many_colours texture worn".split()
    return replace(style, **dict.fromkeys(names, 0.0))
