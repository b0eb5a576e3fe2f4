"""The maps that a word detector should answer with, drawn from the quads of the words."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from str_app.models.detectors.word_maps import CORE_STRIDE, DISTANCE_UNIT, EDGE_STRIDE, INSET

Floats = npt.NDArray[np.float32]
EDGE_INSET = 0.12  # edges are learned a little outside of the core too, so that small words have cells


class Targets(NamedTuple):
    """Maps of one picture (H, W).

    Attributes:
        cores: float32 (H / 2, W / 2), share of each cell that lies in the core of a word.
        counted: float32 (H / 2, W / 2), 0 where an illegible word makes the answer unimportant, else 1.
        edges: float32 (4, H / 4, W / 4), as `WordMaps.edges`, the direction normalised.
        edge_weights: float32 (H / 4, W / 4), 0 outside of words; large words do not outweigh small ones.
    """

    cores: Floats
    counted: Floats
    edges: Floats
    edge_weights: Floats


class _Frame(NamedTuple):
    """Of n words: origin (n, 2) at the first corner, direction (n, 2), width and height (n,), and in this frame the
    upper and the lower edge, as height at the origin and slope (n,)."""

    origin: Floats
    direction: Floats
    width: Floats
    height: Floats
    top: Floats
    top_slope: Floats
    bottom: Floats
    bottom_slope: Floats


def draw_targets(quads: Floats, ignored: npt.NDArray[np.bool_], height: int, width: int) -> Targets:
    """Targets of a picture.

    Args:
        quads: float32 (n, 4, 2), clockwise from the top left of the first letter, in pixels; may reach outside.
        ignored: bool (n,), of illegible words.
        height, width: of the picture, multiples of the strides.
    """
    core = np.zeros((height, width), np.uint8)
    uncounted = np.zeros((height, width), np.uint8)
    owner = np.zeros((height, width), np.float32)  # index of the word + 1
    frame = _frame(quads)
    for i in np.flatnonzero(ignored):
        cv2.fillPoly(uncounted, [_fixed(quads[i])], 1, cv2.LINE_8, 4)
    for i in np.flatnonzero(~ignored):
        cv2.fillPoly(owner, [_fixed(shrunk(quads[i], frame.width[i], frame.height[i], EDGE_INSET))], float(i + 1), 8, 4)
        cv2.fillPoly(core, [_fixed(shrunk(quads[i], frame.width[i], frame.height[i], INSET))], 255, cv2.LINE_8, 4)
    cells = (width // CORE_STRIDE, height // CORE_STRIDE)
    cores = cv2.resize(core, cells, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    counted = 1 - cv2.resize(uncounted, cells, interpolation=cv2.INTER_NEAREST).astype(np.float32)
    counted[cores > 0] = 1
    half = EDGE_STRIDE // 2
    edges, weights = _edges(frame, owner[half::EDGE_STRIDE, half::EDGE_STRIDE])
    return Targets(np.asarray(cores, np.float32), counted, edges, weights)


def shrunk(quad: Floats, width: float, height: float, inset: float) -> Floats:
    """The quad without `inset` of its height at all sides, or at the ends `inset` of its width, if that is less."""
    u = min(inset * height, inset * width) / max(width, 1e-6)
    across = np.array([u, 1 - u, 1 - u, u], np.float32)[:, None]
    down = np.array([inset, inset, 1 - inset, 1 - inset], np.float32)[:, None]
    top = quad[0] + across * (quad[1] - quad[0])
    bottom = quad[3] + across * (quad[2] - quad[3])
    return np.asarray(top + down * (bottom - top), np.float32)


def _frame(quads: Floats) -> _Frame:
    left, right = (quads[:, 0] + quads[:, 3]) / 2, (quads[:, 1] + quads[:, 2]) / 2
    along = right - left
    width = np.maximum(np.linalg.norm(along, axis=1), 1e-3)
    direction = along / width[:, None]
    normal = np.stack([-direction[:, 1], direction[:, 0]], axis=1)
    corners = quads - quads[:, :1]
    u, v = (corners * direction[:, None]).sum(axis=2), (corners * normal[:, None]).sum(axis=2)  # (n, 4)
    top_slope = (v[:, 1] - v[:, 0]) / np.maximum(u[:, 1] - u[:, 0], 1e-3)
    bottom_slope = (v[:, 2] - v[:, 3]) / np.maximum(u[:, 2] - u[:, 3], 1e-3)
    top, bottom = v[:, 0] - top_slope * u[:, 0], v[:, 3] - bottom_slope * u[:, 3]
    height = ((v[:, 3] + v[:, 2]) - (v[:, 0] + v[:, 1])) / 2
    parts = (quads[:, 0], direction, width, height, top, top_slope, bottom, bottom_slope)
    return _Frame(*(np.asarray(part, np.float32) for part in parts))


def _edges(frame: _Frame, owner: Floats) -> tuple[Floats, Floats]:
    rows, columns = np.nonzero(owner)
    index = owner[rows, columns].astype(np.int64) - 1
    edges = np.zeros((4, *owner.shape), np.float32)
    weights = np.zeros(owner.shape, np.float32)
    # The sampled pixel's centre is half a pixel from the centre of its cell.
    points = np.stack([columns, rows], axis=1) * np.float32(EDGE_STRIDE) + np.float32(EDGE_STRIDE / 2)
    offset = points - frame.origin[index]
    direction = frame.direction[index]
    u = (offset * direction).sum(axis=1)
    v = offset[:, 1] * direction[:, 0] - offset[:, 0] * direction[:, 1]
    above = v - (frame.top[index] + frame.top_slope[index] * u)
    below = frame.bottom[index] + frame.bottom_slope[index] * u - v
    distances = np.log(np.maximum(np.stack([above, below]), 0.5) / DISTANCE_UNIT)
    edges[:, rows, columns] = np.concatenate([distances, direction.T])
    counts = np.bincount(index, minlength=len(frame.width))
    weights[rows, columns] = 1 / np.sqrt(counts[index])
    return edges, weights


def _fixed(points: Floats) -> npt.NDArray[np.int32]:
    """Pixel edges → centres with 4 fractional bits, as OpenCV draws them."""
    return np.round((points - 0.5) * 16).astype(np.int32)
