"""From positions in the training stream to batches of tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from datasets.augmentation import Augmentation
from datasets.mixing import Mixture
from datasets.sample import Sample, Source, UnreadableSample
from models.charset import Charset
from models.preprocessing import Preprocessing


class Prepared(NamedTuple):
    """One sample as the network reads it: canvas, covered columns, character indices, boxes (T, 4) in canvas pixels."""

    canvas: npt.NDArray[np.uint8]
    width: int
    target: list[int]
    boxes: npt.NDArray[np.float32] | None


class Batch(NamedTuple):
    """A batch of B samples; T is the longest label's length plus one.

    Attributes:
        canvases: uint8 (B, height, width, 3).
        widths: int64 (B,), covered canvas columns.
        targets: int64 (B, T), character indices, 0 from the end token on.
        lengths: int64 (B,), characters of each label, end token not counted.
        boxes: float32 (B, T, 4), x0, y0, x1, y1 in canvas pixels; NaN where not known.
        seen: how many samples were asked for.
        unusable: why each of the missing ones was left out.
    """

    canvases: Tensor
    widths: Tensor
    targets: Tensor
    lengths: Tensor
    boxes: Tensor
    seen: int
    unusable: list[str]

    def to(self, device: torch.device) -> Batch:
        """The batch with its tensors on `device`."""
        return self._replace(**{name: getattr(self, name).to(device, non_blocking=True) for name in self._fields[:5]})


class TrainingSamples(Dataset[Prepared | str]):
    """The endless training stream: position → augmented, preprocessed sample, or the reason why it is unusable.

    A pure function of (sources, weights, seed, position), so order and augmentation are the same for any number of
    workers and processes, and resuming is to go on counting.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        weights: tuple[float, ...],
        charset: Charset,
        preprocessing: Preprocessing,
        max_length: int,
        augmentation: Augmentation,
        seed: int,
    ) -> None:
        self._sources = sources
        self._mixture = Mixture(sources, weights or None, seed)
        self._charset = charset
        self._preprocessing = preprocessing
        self._max_length = max_length
        self._augmentation = augmentation
        self._seed = seed

    def __getitem__(self, position: int) -> Prepared | str:
        which, index = self._mixture.locate(position)
        source = self._sources[which]
        place = f"{source.name}, {source.identifier(index)}"
        try:
            sample = source[index]
        except UnreadableSample as error:
            return str(error)
        if not sample.text:
            return f"{place}: empty label"
        if len(sample.text) > self._max_length:
            return f"{place}: {len(sample.text)} characters, the model reads at most {self._max_length}"
        missing = self._charset.missing(sample.text)
        if missing:
            return f"{place}: {sorted(missing)[0]!r} of {sample.text!r} is not in the charset"
        return self._prepare(self._augmentation(sample, (self._seed, position)))

    def _prepare(self, sample: Sample) -> Prepared:
        canvas, covered = self._preprocessing(sample.image)
        boxes = sample.boxes
        if boxes is not None:
            height, width = sample.image.shape[:2]
            x, y = covered / width, self._preprocessing.height / height
            boxes = boxes * np.array([x, y, x, y], dtype=np.float32)
        return Prepared(canvas, covered, self._charset.encode(sample.text), boxes)


class Positions(Sampler[list[int]]):
    """This process's share of each step's positions, from `first_step` up to `steps`."""

    def __init__(self, first_step: int, steps: int, batch_size: int, rank: int, world_size: int) -> None:
        self._steps = range(first_step, steps)
        self._batch_size = batch_size
        self._share = batch_size // world_size
        self._rank = rank

    def __len__(self) -> int:
        return len(self._steps)

    def __iter__(self) -> Iterator[list[int]]:
        for step in self._steps:
            first = step * self._batch_size + self._rank * self._share
            yield list(range(first, first + self._share))


def collate(items: list[Prepared | str]) -> Batch:
    """Stack the usable items; the others are handed on as reasons."""
    usable = [item for item in items if not isinstance(item, str)]
    unusable = [item for item in items if isinstance(item, str)]
    steps = max((len(item.target) for item in usable), default=1)
    targets = np.zeros((len(usable), steps), dtype=np.int64)
    boxes = np.full((len(usable), steps, 4), np.nan, dtype=np.float32)
    for row, item in enumerate(usable):
        targets[row, : len(item.target)] = item.target
        if item.boxes is not None:
            boxes[row, : len(item.boxes)] = item.boxes
    canvases = np.stack([item.canvas for item in usable]) if usable else np.zeros((0, 1, 1, 3), dtype=np.uint8)
    return Batch(
        torch.from_numpy(canvases),
        torch.tensor([item.width for item in usable], dtype=torch.int64),
        torch.from_numpy(targets),
        torch.tensor([len(item.target) - 1 for item in usable], dtype=torch.int64),
        torch.from_numpy(boxes),
        len(items),
        unusable,
    )
