"""From positions in the training stream to batches of tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from str_app.datasets.augmentation import Augmentation
from str_app.datasets.mixing import Mixture
from str_app.datasets.sample import Sample, Source, UnreadableSample
from str_app.models.charset import Charset
from str_app.models.preprocessing import Preprocessing, widen


class Prepared(NamedTuple):
    """One sample as the network reads it: canvas, covered columns, character indices, boxes (T, 4) in canvas pixels."""

    canvas: npt.NDArray[np.uint8]
    width: int
    target: list[int]
    boxes: npt.NDArray[np.float32] | None


class Batch(NamedTuple):
    """A batch of B samples; T is the longest label's length plus one.

    Attributes:
        canvases: uint8 (B, height, W, 3), W the canvas width that the widest of them needs.
        widths: int64 (B,), covered canvas columns.
        targets: int64 (B, T), character indices, 0 from the end token on.
        lengths: int64 (B,), characters of each label, end token not counted.
        boxes: float32 (B, T, 4), x0, y0, x1, y1 in canvas pixels; NaN where not known.
        seen: how many samples of the stream were asked for; the first batch of a group counts for all of it.
        unusable: why each of the missing ones was left out.
    """

    canvases: Tensor
    widths: Tensor
    targets: Tensor
    lengths: Tensor
    boxes: Tensor
    seen: int = 0
    unusable: list[str] = []  # noqa: RUF012 - never changed

    def to(self, device: torch.device) -> Batch:
        """The batch with its tensors on `device`."""
        return self._replace(**{name: getattr(self, name).to(device, non_blocking=True) for name in self._fields[:5]})


class TrainingSamples(Dataset["list[Batch]"]):
    """The endless training stream: positions → batches of augmented, preprocessed samples.

    A sample is a pure function of (sources, weights, seed, position), so order and augmentation are the same for any
    number of workers, and resuming is to go on counting.
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
        group: int = 1,
    ) -> None:
        self._sources = sources
        self._mixture = Mixture(sources, weights or None, seed)
        self._charset = charset
        self._preprocessing = preprocessing
        self._max_length = max_length
        self._augmentation = augmentation
        self._seed = seed
        self._group = group

    def __getitems__(self, positions: list[int]) -> list[Batch]:
        """`group` batches of the samples at `positions`: sorted by width, cut, and the batches shuffled.

        Crops of like width share a narrow canvas and labels of like length, which saves a third of the arithmetic.
        """
        samples = [self.prepare(position) for position in positions]
        usable = sorted((one for one in samples if not isinstance(one, str)), key=lambda one: one.width)
        unusable = [one for one in samples if isinstance(one, str)]
        order = np.random.default_rng([self._seed, positions[0]]).permutation(self._group)
        cuts = [len(usable) * k // self._group for k in range(self._group + 1)]
        batches = [collate(usable[cuts[k] : cuts[k + 1]], self._preprocessing) for k in order]
        batches[0] = batches[0]._replace(seen=len(samples), unusable=unusable)
        return batches

    def prepare(self, position: int) -> Prepared | str:
        """The sample at `position`, or the reason why it is unusable."""
        which, index = self._mixture.locate(position)
        source = self._sources[which]
        place = f"{source.name}, {source.identifier(index)}"
        try:
            sample = source[index]
        except UnreadableSample as error:
            return str(error)
        reason = why_unlearnable(sample.text, self._charset, self._max_length)
        if reason:
            return f"{place}: {reason}"
        return self._prepare(self._augmentation(sample, (self._seed, position)))

    def _prepare(self, sample: Sample) -> Prepared:
        canvas, covered = self._preprocessing(sample.image)
        boxes = sample.boxes
        if boxes is not None:
            height, width = sample.image.shape[:2]
            x, y = covered / width, self._preprocessing.height / height
            boxes = boxes * np.array([x, y, x, y], dtype=np.float32)
        return Prepared(canvas, covered, self._charset.encode(sample.text), boxes)


def why_unlearnable(text: str, charset: Charset, max_length: int) -> str:
    """Why a network of this charset and length cannot learn a label; empty where it can."""
    if not text:
        return "empty label"
    if len(text) > max_length:
        return f"{len(text)} characters, the model reads at most {max_length}"
    missing = charset.missing(text)
    return f"{sorted(missing)[0]!r} of {text!r} is not in the charset" if missing else ""


class Positions(Sampler[list[int]]):
    """This process's share of the positions of each group of steps, from the group of `first_step` up to `steps`."""

    def __init__(self, first_step: int, steps: int, batch_size: int, group: int, rank: int, world_size: int) -> None:
        self._groups = range(first_step // group, -(-steps // group))
        self._size = batch_size * group
        self._share = self._size // world_size
        self._rank = rank

    def __len__(self) -> int:
        return len(self._groups)

    def __iter__(self) -> Iterator[list[int]]:
        for number in self._groups:
            first = number * self._size + self._rank * self._share
            yield list(range(first, first + self._share))


def collate(items: Sequence[Prepared], preprocessing: Preprocessing) -> Batch:
    """Stack samples on the narrowest canvas that holds them all."""
    canvas_width = max((item.canvas.shape[1] for item in items), default=preprocessing.widths[0])
    steps = max((len(item.target) for item in items), default=1)
    canvases = np.zeros((len(items), preprocessing.height, canvas_width, 3), dtype=np.uint8)
    targets = np.zeros((len(items), steps), dtype=np.int64)
    boxes = np.full((len(items), steps, 4), np.nan, dtype=np.float32)
    for row, item in enumerate(items):
        canvases[row] = widen(item.canvas, canvas_width)
        targets[row, : len(item.target)] = item.target
        if item.boxes is not None:
            boxes[row, : len(item.boxes)] = item.boxes
    return Batch(
        torch.from_numpy(canvases),
        torch.tensor([item.width for item in items], dtype=torch.int64),
        torch.from_numpy(targets),
        torch.tensor([len(item.target) - 1 for item in items], dtype=torch.int64),
        torch.from_numpy(boxes),
    )
