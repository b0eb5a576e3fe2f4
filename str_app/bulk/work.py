"""What a worker does with a shard: open its items, read them in batches, write its file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from str_app.bulk.inputs import Item, Part
from str_app.bulk.output import ShardWriter, shard_file
from str_app.engines.graph_folder import ENCODER, STEP, sha256_of
from str_app.engines.load import checkpoint_file
from str_app.errors import ImageError, StrAppError
from str_app.inputs.images import DEFAULT_LIMITS, load_image
from str_app.inputs.regions import crops_of_regions, to_photo
from str_app.reader import Reader
from str_app.reading import Box, Reading

if TYPE_CHECKING:
    from str_app.photos.photo_reader import PhotoReader

BATCHES_AT_ONCE = 8  # so many batches are sorted by width together; more gains nothing
MAX_PIXELS = 50_000_000  # decoded at once, however few crops that are


class Shard(NamedTuple):
    """What one output file is made of."""

    number: int
    part: Part


class Outcome(NamedTuple):
    """What became of one shard; `counted`: `on_items` knows of it already."""

    number: int
    items: int
    rows: int
    errors: Counter[str]
    counted: bool = False


class _Pending(NamedTuple):
    """A crop that waits for its batch, or why there is none."""

    row: dict[str, Any]
    crop: npt.NDArray[np.uint8] | ImageError
    transform: Callable[[Box], Box] | None = None


@dataclass(frozen=True)
class ShardReader:
    """Reads shards and writes their files. Pickles without its model, and loads that at first use.

    Attributes:
        out: the folder of the output.
        run: the manifest's hash.
        model: what `identity` must return in every process.
        load: arguments of `Reader.load`.
        options: of `Reader.read_crops`.
        photos: arguments of `load_pipeline`, to find the words of images without regions; None: they are crops.
        on_items: called with the number of images read since the last call; stays behind when a reader is pickled.
    """

    out: Path
    run: str
    model: Mapping[str, str]
    load: Mapping[str, Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    photos: Mapping[str, Any] | None = None
    on_items: Callable[[int], None] | None = None

    def __getstate__(self) -> dict[str, Any]:
        loaded = ("reader", "photo_reader", "on_items")
        return {name: value for name, value in self.__dict__.items() if name not in loaded} | {"on_items": None}

    @cached_property
    def reader(self) -> Reader:
        """The model, loaded."""
        reader = Reader.load(**self.load)
        here = identity(reader, self.load["model"])
        if here != self.model:
            raise StrAppError(
                f"{self.load['model']}: this process has another model ({dict(here)}) than the command ({self.model}): "
                "install the same version and weights on every machine"
            )
        return reader

    @cached_property
    def photo_reader(self) -> PhotoReader:
        """The model with what finds words, loaded."""
        from str_app.photos.load import load_pipeline
        from str_app.photos.photo_reader import PhotoReader

        assert self.photos is not None
        return PhotoReader(self.reader, load_pipeline(**self.photos, threads=self.load["threads"]))

    def __call__(self, shard: Shard) -> Outcome:
        """Read a shard and write its file."""
        total = 0
        with ShardWriter(shard_file(self.out, shard.number), self.run) as writer:
            for items, rows in self._read(shard.part.items()):
                for row in rows:
                    writer.add(row)
                total += items
                if self.on_items is not None:
                    self.on_items(items)
        return Outcome(shard.number, total, writer.rows, writer.errors, counted=self.on_items is not None)

    def _read(self, items: Iterator[Item]) -> Iterator[tuple[int, list[dict[str, Any]]]]:
        """Rows in the order of the items, and the number of items since the last ones."""
        most = BATCHES_AT_ONCE * self.load["batch_size"]
        waiting: list[_Pending] = []
        pixels = count = 0
        for item in items:
            if self.photos is not None and item.regions is None:
                yield count + 1, self._rows(waiting) + self._words_of(item)
                waiting, pixels, count = [], 0, 0
                continue
            for pending in _crops_of(item):
                waiting.append(pending)
                if not isinstance(pending.crop, ImageError):
                    pixels += pending.crop.size // 3
                if len(waiting) == most or pixels > MAX_PIXELS:
                    yield count, self._rows(waiting)
                    waiting, pixels, count = [], 0, 0
            count += 1
        if count:
            yield count, self._rows(waiting)

    def _words_of(self, item: Item) -> list[dict[str, Any]]:
        """A row for each word of a photograph; one with an empty text where none is found."""
        try:
            reading = self.photo_reader.read(_readable(item.image), **self.options)
        except ImageError as error:
            return [{"id": item.id, "error": error.as_dict()}]
        if not reading.words:
            return [{"id": item.id, "text": "", "confidence": 0.0, "characters": [], "boxes": []}]
        return [
            {
                "id": f"{item.id}#{number}",
                "region": [edge for corner in word.quad for edge in corner],
                "line": word.line,
            }
            | columns_of(word.reading)
            for number, word in enumerate(reading.words, 1)
        ]

    def _rows(self, waiting: list[_Pending]) -> list[dict[str, Any]]:
        crops = [pending.crop for pending in waiting if not isinstance(pending.crop, ImageError)]
        readings = iter(self.reader.read_crops(crops, **self.options))
        return [
            pending.row | {"error": pending.crop.as_dict()}
            if isinstance(pending.crop, ImageError)
            else pending.row | columns_of(next(readings), pending.transform)
            for pending in waiting
        ]


def _readable(image: bytes | Path | ImageError) -> bytes | Path:
    """The image, unless it has an error or opening it may wait for ever.

    Raises:
        ImageError: why it cannot be read.
    """
    if isinstance(image, ImageError):
        raise image
    if isinstance(image, bytes):
        return image
    try:
        waits = not image.is_file() and image.exists() and not image.is_dir()
    except OSError as error:  # no permission for its folder, or a name that no file can have
        raise ImageError("not_readable", f"{str(image)[:200]}: cannot be read: {error.strerror}") from None
    if waits:
        raise ImageError("not_readable", f"{image}: a pipe, socket or device, not a file")
    return image


def _crops_of(item: Item) -> Iterator[_Pending]:
    row: dict[str, Any] = {"id": item.id}
    try:
        image = load_image(_readable(item.image), DEFAULT_LIMITS)
    except ImageError as error:
        yield _Pending(row, error)
        return
    if item.regions is None:
        yield _Pending(row, image)
        return
    for number, result in enumerate(crops_of_regions(image, item.regions), 1):
        row = {"id": f"{item.id}#{number}"}
        if isinstance(result, ImageError):
            yield _Pending(row, result)
            continue
        region, crop = result
        row["region"] = sum(region.corners, ())
        yield _Pending(row, crop, partial(to_photo, region=region, photo_size=image.shape[:2]))


def columns_of(reading: Reading, transform: Callable[[Box], Box] | None = None) -> dict[str, Any]:
    """The columns of a reading, its boxes moved to where the crop was taken from."""
    if transform is not None:
        reading = reading.with_boxes(transform)
    return {
        "text": reading.text,
        "confidence": reading.confidence,
        "characters": [{"text": each.text, "confidence": each.confidence} for each in reading.characters],
        "boxes": [list(each.box) for each in reading.characters],
        "rotation": reading.rotation,
    }


def identity(reader: Reader, model: str | Path) -> dict[str, str]:
    """Which model a reader has: engine, precision, and a hash of the files that it was loaded from."""
    engine: Any = reader.engine
    folder = getattr(engine, "folder", None)
    found = {"name": reader.name, "engine": "torch" if folder is None else "onnx", "precision": engine.precision}
    if folder is None:
        return found | {"weights_sha256": sha256_of(checkpoint_file(model))}
    return found | {f"{name}_sha256": sha256_of(Path(folder) / name) for name in (ENCODER, STEP)}
