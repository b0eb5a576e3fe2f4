"""Crops of labelled pictures with their targets, at random scales and places, in random light."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from str_app.datasets.labelled_photos import LabelledPhoto
from str_app.datasets.sample import DataError
from str_app.training.detection.targets import draw_targets

LEAST_HEIGHT = 5.0  # pixels of a word in the crop: smaller ones are ignored
ZOOMS = (0.45, 1.5)
ON_A_WORD = 0.85  # share of crops placed on a word; the others are anywhere


class DetectorBatch(NamedTuple):
    """Crops uint8 (B, 3, H, W) and the maps of `Targets`, each with a first dimension B."""

    pictures: Tensor
    cores: Tensor
    counted: Tensor
    edges: Tensor
    edge_weights: Tensor


class SceneCrops(Dataset[tuple[npt.NDArray[np.generic], ...]]):
    """Crop `index` depends on the photographs, the seed and the index only; there is no last index.

    Args:
        photos: labelled; words of four corners are learned, others are ignored.
        side: of the crops, in pixels.
        seed: of scales, places and light.
    """

    def __init__(self, photos: Sequence[LabelledPhoto], side: int, seed: int) -> None:
        self.photos, self.side, self.seed = photos, side, seed

    def __getitem__(self, index: int) -> tuple[npt.NDArray[np.generic], ...]:
        rng = np.random.Generator(np.random.PCG64([self.seed, index]))
        photo = self.photos[int(rng.integers(len(self.photos)))]
        picture = cv2.imread(str(photo.path), cv2.IMREAD_COLOR_RGB)
        if picture is None:
            raise DataError(f"{photo.path}: not a readable picture")
        quads = [np.array(word.polygon, np.float32) for word in photo.words]
        ignored = np.array([word.text is None or len(quad) != 4 for word, quad in zip(photo.words, quads, strict=True)])
        corners = np.stack([quad[:4] if len(quad) >= 4 else quad[[0, 1, 2, 2]] for quad in quads]) if quads else None
        quads_array = np.zeros((0, 4, 2), np.float32) if corners is None else corners
        crop, quads_array = _crop(rng, np.asarray(picture, np.uint8), quads_array, self.side)
        heights = np.linalg.norm(quads_array[:, 3] - quads_array[:, 0], axis=1)
        ignored = (ignored.astype(bool) | (heights < LEAST_HEIGHT)) if len(quads_array) else np.zeros(0, bool)
        crop = _light(rng, crop)
        inside = (quads_array.max(axis=1) > 0).all(axis=1) & (quads_array.min(axis=1) < self.side).all(axis=1)
        targets = draw_targets(quads_array[inside], ignored[inside], self.side, self.side)
        return np.ascontiguousarray(crop.transpose(2, 0, 1)), targets.cores[None], *targets[1:]


def collate(samples: Sequence[tuple[npt.NDArray[np.generic], ...]]) -> DetectorBatch:
    """Stack the samples."""
    return DetectorBatch(*(torch.from_numpy(np.stack(parts)) for parts in zip(*samples, strict=True)))


def _crop(
    rng: np.random.Generator, picture: npt.NDArray[np.uint8], quads: npt.NDArray[np.float32], side: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """A square part of the picture, scaled to `side`, and the quads in it; grey where the picture ends."""
    zoom = float(np.exp(rng.uniform(*np.log(ZOOMS))))
    height, width = picture.shape[:2]
    window = side / zoom
    low, high = np.minimum(0, [width - window, height - window]), np.maximum(0, [width - window, height - window])
    if len(quads) and rng.random() < ON_A_WORD:
        middle = quads[int(rng.integers(len(quads)))].mean(axis=0)
        at = np.clip(middle - window * rng.uniform(0.1, 0.9, 2), low, high)
    else:
        at = rng.uniform(low, high)
    x0, y0 = (int(np.floor(value)) for value in np.maximum(at, 0))
    piece = picture[y0 : int(np.ceil(at[1] + window)) + 1, x0 : int(np.ceil(at[0] + window)) + 1]
    if zoom < 0.8:  # the warp would alias
        factor = max(zoom, 0.5)
        size = (max(1, round(piece.shape[1] * factor)), max(1, round(piece.shape[0] * factor)))
        scale_x, scale_y = size[0] / piece.shape[1], size[1] / piece.shape[0]
        piece = np.asarray(cv2.resize(piece, size, interpolation=cv2.INTER_AREA), np.uint8)
    else:
        scale_x = scale_y = 1.0
    # Pixel centres lie at half coordinates: shift by half a pixel before and after.
    a, b = zoom / scale_x, zoom / scale_y
    dx, dy = (x0 - at[0]) * zoom, (y0 - at[1]) * zoom
    warp = np.array([[a, 0, dx + a / 2 - 0.5], [0, b, dy + b / 2 - 0.5]])
    grey = tuple(float(value) for value in rng.integers(0, 256, 3))
    crop = cv2.warpAffine(piece, warp, (side, side), flags=cv2.INTER_LINEAR, borderValue=grey)
    return np.asarray(crop, np.uint8), ((quads - at) * zoom).astype(np.float32)


def _light(rng: np.random.Generator, crop: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    kind = rng.random(5)
    if kind[0] < 0.1:
        crop = 255 - crop
    if kind[1] < 0.1:
        crop = crop[:, :, rng.permutation(3)]
    if kind[2] < 0.1:
        crop = np.repeat(crop.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8)
    if kind[3] < 0.5:
        table = np.clip(np.arange(256) * np.exp(rng.normal(0, 0.2)) + rng.normal(0, 15), 0, 255).astype(np.uint8)
        crop = table[crop]
    if kind[4] < 0.1:
        crop = np.asarray(cv2.GaussianBlur(np.ascontiguousarray(crop), (0, 0), float(rng.uniform(0.4, 1.2))), np.uint8)
    return crop
