"""From positions in the training stream to batches of tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from str_app.datasets.augmentation import Augmentation
from str_app.datasets.mixing import Mixture
from str_app.datasets.sample import Sample, Source, UnreadableSample
from str_app.errors import StrAppError
from str_app.evaluation.protocol import protocol_of
from str_app.evaluation.sources import evenly_spaced
from str_app.models.charset import Charset
from str_app.models.preprocessing import Preprocessing, pad_right
from str_app.models.recognizer import Recognizer

SampleId = tuple[int, int]  # index of a source, and of a sample in it


class Prepared(NamedTuple):
    """One preprocessed sample: canvas, covered columns, character indices, boxes (T, 4) in canvas pixels."""

    canvas: npt.NDArray[np.uint8]
    width: int
    target: list[int]
    boxes: npt.NDArray[np.float32] | None


class Batch(NamedTuple):
    """A batch of B samples; T is the longest label's length plus one.

    Attributes:
        canvases: uint8 (B, height, W, 3); W is the canvas width that the widest sample needs.
        widths: int64 (B,), covered canvas columns.
        targets: int64 (B, T), character indices, 0 from the end token on.
        lengths: int64 (B,), characters of each label without the end token.
        boxes: float32 (B, T, 4), x0, y0, x1, y1 in canvas pixels; NaN where unknown.
        seen: (source, index) of every sample requested; the first batch of a group carries those of the whole group.
        unusable: (source, index) → reason, of the samples among them that are left out.
    """

    canvases: Tensor
    widths: Tensor
    targets: Tensor
    lengths: Tensor
    boxes: Tensor
    seen: list[SampleId] = []  # noqa: RUF012 - never changed
    unusable: dict[SampleId, str] = {}  # noqa: RUF012 - never changed

    def to(self, device: torch.device) -> Batch:
        """The batch with its tensors on `device`."""
        return self._replace(**{name: getattr(self, name).to(device, non_blocking=True) for name in self._fields[:5]})


@dataclass
class TrainingSamples(Dataset["list[Batch]"]):
    """The endless training stream: positions → batches of augmented, preprocessed samples.

    A sample is a pure function of (sources, weights, seed, position): order and augmentation do not depend on the
    number of workers, and a resumed run continues at the next position.
    """

    sources: Sequence[Source]
    weights: tuple[float, ...]
    charset: Charset
    preprocessing: Preprocessing
    max_length: int
    augmentation: Augmentation
    seed: int
    group: int = 1

    def __post_init__(self) -> None:
        self._mixture = Mixture(self.sources, self.weights or None, self.seed)

    def __getitems__(self, positions: Sequence[int]) -> list[Batch]:
        """The samples at `positions` in `group` batches: sorted by width, divided, and the batches shuffled.

        Crops of similar width share a narrow canvas and have labels of similar length, which saves a third of the
        arithmetic.
        """
        seen = [self._mixture.locate(position) for position in positions]
        samples = [self.prepare(sample_id, position) for sample_id, position in zip(seen, positions, strict=True)]
        usable = sorted((sample for sample in samples if not isinstance(sample, str)), key=lambda sample: sample.width)
        unusable = {key: reason for key, reason in zip(seen, samples, strict=True) if isinstance(reason, str)}
        order = np.random.default_rng([self.seed, positions[0]]).permutation(self.group)
        cuts = [len(usable) * k // self.group for k in range(self.group + 1)]
        batches = [collate(usable[cuts[k] : cuts[k + 1]], self.preprocessing) for k in order]
        batches[0] = batches[0]._replace(seen=seen, unusable=unusable)
        return batches

    def prepare(self, sample_id: SampleId, position: int) -> Prepared | str:
        """The sample, augmented as at `position` of the stream, or the reason why it is unusable."""
        source, index = self.sources[sample_id[0]], sample_id[1]
        try:
            sample = source[index]
        except UnreadableSample as error:
            return str(error)
        sample = spelled(sample, self.charset)
        reason = why_unlearnable(sample.text, self.charset, self.max_length)
        if reason:
            return f"{source.name}, {source.identifier(index)}: {reason}"
        return self._prepare(self.augmentation(self._shrunk(sample), (self.seed, position)))

    def _shrunk(self, sample: Sample) -> Sample:
        """The sample in at most four times the canvas's size: augmentation takes seconds for a crop of megapixels."""
        height, width = sample.image.shape[:2]
        scale = min(1.0, 4 * self.preprocessing.height / height)
        size = max(1, min(round(width * scale), 4 * self.preprocessing.width)), max(1, round(height * scale))
        if size == (width, height):
            return sample
        image = np.asarray(cv2.resize(sample.image, size, interpolation=cv2.INTER_AREA), np.uint8)
        return sample._replace(image=image, boxes=_scaled(sample.boxes, size[0] / width, size[1] / height))

    def _prepare(self, sample: Sample) -> Prepared:
        canvas, covered = self.preprocessing(sample.image)
        height, width = sample.image.shape[:2]
        boxes = _scaled(sample.boxes, covered / width, self.preprocessing.height / height)
        return Prepared(canvas, covered, self.charset.encode(sample.text), boxes)


def _scaled(boxes: npt.NDArray[np.float32] | None, x: float, y: float) -> npt.NDArray[np.float32] | None:
    return None if boxes is None else boxes * np.array([x, y, x, y], dtype=np.float32)


def spelled(sample: Sample, charset: Charset) -> Sample:
    """The sample with its label as the charset spells it; its boxes are unknown then if there are fewer characters."""
    text = charset.spelled(sample.text)
    return sample._replace(text=text, boxes=sample.boxes if len(text) == len(sample.text) else None)


def why_unlearnable(text: str, charset: Charset, max_length: int) -> str:
    """Why a network with this charset and maximum length cannot learn a label that it spells so; empty if it can."""
    if not text:
        return "empty label"
    if len(text) > max_length:
        return f"{len(text)} characters, the model reads at most {max_length}"
    missing = charset.missing(text)
    return f"{sorted(missing)[0]!r} of {text!r} is not in the charset" if missing else ""


def prepared_for(network: Recognizer, sample: Sample) -> Prepared | None:
    """The sample as the network sees it, without boxes; None if it cannot learn the label."""
    sample = spelled(sample, network.charset)
    if why_unlearnable(sample.text, network.charset, network.architecture.max_length):
        return None
    canvas, covered = network.preprocessing(sample.image)
    return Prepared(canvas, covered, network.charset.encode(sample.text), None)


def why_unscorable(text: str, charset: Charset) -> str:
    """Why no reading by a network of this charset can match a validation label; empty if one can."""
    protocol = protocol_of(charset)
    compared = protocol.fold(text)
    if not compared:
        return f"{text!r} has no character that is compared: validation is by letters and digits; leave out --val"
    missing = set(compared) - set(protocol.fold(charset.characters))
    return f"{min(missing)!r} of {text!r} is not in the charset" if missing else ""


def advice(reason: str) -> str:
    """What may be done about an unusable label; empty if the data must be repaired."""
    return "; --charset FILE sets the characters of a new run" if reason.endswith("in the charset") else ""


def check_source(source: Source, problem_of: Callable[[str], str]) -> tuple[float, str]:
    """Check, before a run starts, that `source` has usable labels and an image that can be decoded.

    1000 samples are checked, evenly spaced.

    Args:
        source: training or validation data.
        problem_of: why a label is unusable; an empty text if it is usable.

    Returns:
        The share of unusable labels, and why the first of them is.

    Raises:
        StrAppError: none of the samples checked has a usable label, or none of the usable ones a readable image.
    """
    if not len(source):
        raise StrAppError(f"{source.name}: the data set is empty")
    checked = evenly_spaced(len(source), 1000)
    usable, reason = [], ""
    for index in checked:
        try:
            problem = problem_of(source.label(index))
        except UnreadableSample as error:
            problem = str(error)
        if problem:
            reason = reason or problem
        else:
            usable.append(index)
    if not usable:
        none = f"none of the {len(checked)} labels checked is usable"
        raise StrAppError(f"{source.name}: {none}: {reason}{advice(reason)}")
    for index in usable:
        try:
            source[index]
            return (len(checked) - len(usable)) / len(checked), reason
        except UnreadableSample as error:
            unreadable = str(error)
    raise StrAppError(f"{source.name}: none of the {len(usable)} images checked can be decoded, the last: {unreadable}")


def shares_of_groups(
    first_step: int, steps: int, batch_size: int, group: int, rank: int, world_size: int
) -> Iterator[list[int]]:
    """This process's positions of each group of steps, from the group of `first_step` up to `steps`."""
    size = batch_size * group
    share = size // world_size
    for number in range(first_step // group, -(-steps // group)):
        first = number * size + rank * share
        yield list(range(first, first + share))


def collate(items: Sequence[Prepared], preprocessing: Preprocessing) -> Batch:
    """Stack samples on the narrowest canvas that fits all of them."""
    canvas_width = max((item.canvas.shape[1] for item in items), default=preprocessing.widths[0])
    steps = max((len(item.target) for item in items), default=1)
    canvases = np.zeros((len(items), preprocessing.height, canvas_width, 3), dtype=np.uint8)
    targets = np.zeros((len(items), steps), dtype=np.int64)
    boxes = np.full((len(items), steps, 4), np.nan, dtype=np.float32)
    for row, item in enumerate(items):
        canvases[row] = pad_right(item.canvas, canvas_width)
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
