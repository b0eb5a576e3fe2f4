"""Projection from the text plane to the crop: curve, slant, rotation, perspective, cut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from str_app.datasets.renderer.glyphs import CAP_HEIGHT
from str_app.datasets.renderer.style import Style

Floats = npt.NDArray[np.float32]
MIN_CAPITAL_HEIGHT = 8.0  # pixels of the crop
MAX_WIDTH = 360  # pixels of crop
MAX_OBLIQUE_HEIGHT = 120.0  # pixels of crop


@dataclass(frozen=True)
class Curve:
    """A curved baseline.

    Attributes:
        kind: `"arch"` and `"smile"`: on a circle; `"bow"`: on a parabola, letters upright; `"wave"`: on a sine.
        centre: x and y of the middle of the baseline.
        radius: of the circle; half the length of the parabola; wavelength / 2π of the sine.
        rise: amplitude of parabola and sine, in pixels.
        phase: of the sine.
    """

    kind: Literal["none", "arch", "smile", "bow", "wave"] = "none"
    centre: tuple[float, float] = (0.0, 0.0)
    radius: float = 1.0
    rise: float = 0.0
    phase: float = 0.0

    def forward(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Flat to curved."""
        cx, cy = self.centre
        if self.kind in ("arch", "smile"):
            sign = 1.0 if self.kind == "arch" else -1.0
            angle, r = (x - cx) / self.radius, self.radius + sign * (cy - y)
            return cx + r * np.sin(angle), cy + sign * (self.radius - r * np.cos(angle))
        return x, y + self._offset(x)

    def backward(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Curved to flat."""
        cx, cy = self.centre
        if self.kind in ("arch", "smile"):
            sign = 1.0 if self.kind == "arch" else -1.0
            dx, dy = x - cx, self.radius - sign * (y - cy)
            return cx + self.radius * np.arctan2(dx, dy), cy - sign * (np.hypot(dx, dy) - self.radius)
        return x, y - self._offset(x)

    def _offset(self, x: Floats) -> Floats:
        t = (x - self.centre[0]) / self.radius
        if self.kind == "bow":
            return np.asarray(self.rise * t * t, dtype=np.float32)
        if self.kind == "wave":
            return np.asarray(self.rise * np.sin(t + self.phase), dtype=np.float32)
        return np.zeros_like(x)


class View:
    """A projection from plane to crop.

    Attributes:
        width: of the crop in pixels.
        height: of the crop in pixels.
        scale: approximate crop pixels per plane pixel.
    """

    def __init__(
        self, curve: Curve, homography: npt.NDArray[np.float64], width: int, height: int, scale: float
    ) -> None:
        self.curve = curve
        self.homography = homography
        self.width = width
        self.height = height
        self.scale = scale

    def project(self, x: Floats, y: Floats) -> npt.NDArray[np.float32]:
        """Plane points to crop points, (n, 2)."""
        return _project(self.curve, self.homography, x, y)

    def boxes(self, boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Axis-aligned bounding boxes in the crop of plane boxes (n, 4), not clipped."""
        x0, y0, x1, y1 = boxes.T
        mx, my = (x0 + x1) / 2, (y0 + y1) / 2
        xs = np.stack([x0, mx, x1, x1, x1, mx, x0, x0])
        ys = np.stack([y0, y0, y0, my, y1, y1, y1, my])
        points = self.project(xs.ravel(), ys.ravel()).reshape(8, -1, 2)
        return np.concatenate([points.min(axis=0), points.max(axis=0)], axis=1)

    def sample(self, plane: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """The plane (H, W) or (H, W, C ≤ 4) warped to the crop; 0 outside the plane."""
        homography = self.homography
        shrink = 1.0
        if self.scale < 0.6:  # bilinear sampling would alias: halve the plane first
            size = (max(1, plane.shape[1] // 2), max(1, plane.shape[0] // 2))
            shrink_x, shrink_y = plane.shape[1] / size[0], plane.shape[0] / size[1]
            plane = np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_AREA), np.uint8)
            shrink = 0.5
            homography = homography @ np.diag([shrink_x, shrink_y, 1.0])
        if self.curve.kind == "none":
            warped = cv2.warpPerspective(plane, homography, (self.width, self.height), flags=cv2.INTER_LINEAR)
            return np.asarray(warped, np.uint8)
        columns, rows = np.meshgrid(
            np.arange(self.width, dtype=np.float32), np.arange(self.height, dtype=np.float32), copy=False
        )
        a = np.linalg.inv(self.homography).astype(np.float32)
        w = a[2, 0] * columns + a[2, 1] * rows + a[2, 2]
        x, y = self.curve.backward(
            (a[0, 0] * columns + a[0, 1] * rows + a[0, 2]) / w, (a[1, 0] * columns + a[1, 1] * rows + a[1, 2]) / w
        )
        warped = cv2.remap(plane, np.float32(shrink) * x, np.float32(shrink) * y, cv2.INTER_LINEAR)
        return np.asarray(warped, np.uint8)


def _project(curve: Curve, homography: npt.NDArray[np.float64], x: Floats, y: Floats) -> npt.NDArray[np.float32]:
    x, y = curve.forward(x, y)
    points = homography @ np.stack([x, y, np.ones_like(x)])
    return np.asarray((points[:2] / points[2]).T, dtype=np.float32)


def choose_view(
    rng: np.random.Generator,
    boxes: npt.NDArray[np.float32],
    baseline: float,
    style: Style,
    plain: bool = False,
    hidden: tuple[int, int] = (0, 0),
) -> View:
    """A random view of a word.

    Args:
        rng: chooses the view.
        boxes: float32 (n, 4) of the characters, in plane pixels.
        baseline: y of the baseline in the plane.
        style: frequency of each effect.
        plain: undistorted, with a margin: the fallback after failed attempts.
        hidden: numbers of characters at the start and the end that are outside the crop, except that up to a quarter
            of the nearest may be seen.
    """
    all_boxes, boxes = boxes, boxes[hidden[0] : len(boxes) - hidden[1]]
    left, top = boxes[:, :2].min(axis=0)
    right, bottom = boxes[:, 2:].max(axis=0)
    centre = (float(left + right) / 2, float(top + bottom) / 2)
    curve = (
        Curve()
        if plain
        else choose_curve(rng, centre[0], baseline, float(right - left), float(bottom - top), style.curve)
    )
    # An effect that is off draws no random number: crops without it are those of the same version.
    oblique = not plain and style.oblique > 0 and rng.random() < style.oblique
    homography = np.eye(3)
    if not plain:
        length = float(right - left)
        centred = _choose_oblique_homography(rng, length) if oblique else _choose_homography(rng, length, style)
        homography = centred @ np.array([[1, 0, -centre[0]], [0, 1, -centre[1]], [0, 0, 1]])

    flat = View(curve, homography, 1, 1, 1.0).boxes(boxes)
    x0, y0 = flat[:, :2].min(axis=0)
    x1, y1 = flat[:, 2:].max(axis=0)
    text_height = max(float(y1 - y0), 0.5 * CAP_HEIGHT)  # a dot or a dash stays small
    line_height = max(float(np.median(flat[:, 3] - flat[:, 1])), 0.5 * CAP_HEIGHT) if oblique else text_height
    padding = (text_height - float(y1 - y0)) / 2
    m_left, m_top, m_right, m_bottom = (0.15, 0.15, 0.15, 0.15) if plain else _choose_margins(rng, style.cut)
    first, last = float(flat[0, 2] - flat[0, 0]), float(flat[-1, 2] - flat[-1, 0])
    if any(hidden):
        around = View(curve, homography, 1, 1, 1.0).boxes(all_boxes)
        if hidden[0]:
            gap, size = float(flat[0, 0] - around[hidden[0] - 1, 2]), float(np.ptp(around[hidden[0] - 1, [0, 2]]))
            m_left = float(rng.uniform(-0.1, max(0.0, gap + 0.25 * size) / line_height))
        if hidden[1]:
            gap, size = float(around[-hidden[1], 0] - flat[-1, 2]), float(np.ptp(around[-hidden[1], [0, 2]]))
            m_right = float(rng.uniform(-0.1, max(0.0, gap + 0.25 * size) / line_height))
    # Never cut more than a third of a letter: the text must stay legible.
    m_left, m_right = max(m_left, -0.3 * first / line_height), max(m_right, -0.3 * last / line_height)
    x0, x1 = float(x0) - m_left * line_height, float(x1) + m_right * line_height
    y0, y1 = float(y0) - m_top * line_height - padding, float(y1) + m_bottom * line_height + padding

    height = float(np.clip(np.exp(rng.normal(3.5, 0.35)), 15, 72))
    if oblique:  # the line takes up a part of the crop's height only
        height = min(height * text_height / line_height, MAX_OBLIQUE_HEIGHT)
    scale = max(height / (y1 - y0), MIN_CAPITAL_HEIGHT / CAP_HEIGHT)
    scale = min(scale, MAX_WIDTH / (x1 - x0))
    to_crop = np.array([[scale, 0, -scale * x0], [0, scale, -scale * y0], [0, 0, 1]])
    width, rows = max(4, round(scale * (x1 - x0))), max(8, round(scale * (y1 - y0)))
    return View(curve, to_crop @ homography, width, rows, scale)


def choose_curve(
    rng: np.random.Generator, cx: float, baseline: float, length: float, text_height: float, probability: float
) -> Curve:
    """A random curve, with the given probability, for a text of that length and height around (`cx`, `baseline`)."""
    if rng.random() >= probability or length < 1.5 * text_height:
        return Curve()
    kind = rng.random()
    if kind < 0.56:
        radius = length / np.deg2rad(rng.uniform(15, 110))
        return Curve("arch" if rng.random() < 0.65 else "smile", (cx, baseline), float(max(radius, 2.0 * text_height)))
    if kind < 0.84:
        rise = rng.uniform(-0.6, 0.6) * CAP_HEIGHT
        return Curve("bow", (cx, baseline), length / 2, float(rise))
    rise = rng.uniform(0.08, 0.3) * CAP_HEIGHT
    periods = rng.uniform(0.4, 1.3)
    return Curve(
        "wave", (cx, baseline), float(length / periods / (2 * np.pi)), float(rise), float(rng.uniform(0, 6.28))
    )


def _choose_homography(rng: np.random.Generator, length: float, style: Style) -> npt.NDArray[np.float64]:
    """Width, slant, perspective and rotation, around the centre of the word."""
    stretch = float(np.exp(rng.normal(-0.45, 0.2) if rng.random() < style.narrow else rng.normal(-0.05, 0.2)))
    slant = rng.normal(0.12, 0.25) if rng.random() < style.slant else rng.normal(0, 0.05)
    if rng.random() < style.rotation:
        angle = rng.uniform(-45, 45)
    else:
        angle = rng.normal(0, 1.5) if rng.random() < 0.62 else rng.normal(0, 8)
    shape = np.array([[stretch, stretch * np.clip(slant, -0.6, 0.6), 0], [0, 1, 0], [0, 0, 1]])
    if rng.random() < style.perspective:
        # The word becomes smaller towards one end, by a factor of up to 2.
        ratio = rng.uniform(-0.33, 0.33) if rng.random() < 0.4 else rng.uniform(-0.15, 0.15)
        squeeze = 1 - 0.8 * abs(ratio)  # seen from the side, a word is also narrower
        tilt = np.array([[squeeze, 0, 0], [rng.normal(0, 0.06), 1, 0], [2 * ratio / (stretch * length), 0, 1]])
        tilt[2, 1] = rng.normal(0, 0.0012)
        shape = tilt @ shape
    c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    rotation = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    return np.asarray(rotation @ shape)


def _choose_oblique_homography(rng: np.random.Generator, length: float) -> npt.NDArray[np.float64]:
    """A sign far to one side, mostly above: narrow upright letters along a line that rises or falls steeply."""
    squeeze = float(np.exp(rng.uniform(np.log(0.4), np.log(0.9))))
    # Of the line, before it is squeezed; letters keep two fifths of the crop's height.
    steepest = min(1.4 * squeeze, 1.6 * CAP_HEIGHT / length)
    rise = float(np.clip(rng.normal(0, 0.28), -steepest, steepest))
    # The far end is smaller. Signs above the eye, which are the most, fall towards it.
    ratio = float(np.copysign(rng.uniform(0, 0.4), rise if rng.random() < 0.8 else -rise))
    lean = rng.normal(0, 0.08)
    return np.array([[squeeze, lean, 0], [rise, 1, 0], [2 * ratio / length, 0, 1]])


def _choose_margins(rng: np.random.Generator, cut: float) -> tuple[float, float, float, float]:
    """Margins left, above, right and below, in heights of the word; negative margins cut into it."""
    kind = rng.random()
    if kind < 0.35:
        room = rng.uniform(-0.02, 0.12, 4)
    elif kind < 0.88:
        room = rng.uniform(0.05, 0.3, 4)
    else:
        room = rng.uniform(0.15, 0.6, 4)
    if rng.random() < cut:
        room[int(rng.integers(4))] = rng.uniform(-0.12, -0.03)
    return float(room[0]), float(room[1]), float(room[2]), float(room[3])
