"""Street View Text (Wang and Belongie, ECCV 2010): `train.xml`, `test.xml` and whole pictures in `img/`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from str_app.datasets.converters.cropping import crop
from str_app.datasets.converters.record import Reading, Record, Skipped, existing_file
from str_app.datasets.image_decoding import decode_image
from str_app.datasets.sample import DataError


def read(source: Path, split: str | None = None) -> Reading:
    """Words of one split, cut out of their pictures by the tagged rectangles, each with its picture's lexicon.

    Args:
        source: the folder `svt1`.
        split: `train` or `test`; may be left out where only one is there.

    Raises:
        DataError: no such split, or the XML is damaged.
    """
    splits = [split] if split else ["train", "test"]
    path = existing_file([source / f"{name}.xml" for name in splits], f"{source}: SVT's labels")
    try:
        pictures = ElementTree.parse(path).getroot().findall("image")
    except ElementTree.ParseError as error:
        raise DataError(f"{path}: damaged XML: {error}") from error
    return Reading(sum(len(picture.findall(".//taggedRectangle")) for picture in pictures), _records(source, pictures))


def _records(source: Path, pictures: list[ElementTree.Element]) -> Iterator[Record | Skipped]:
    for picture in pictures:
        name = (picture.findtext("imageName") or "").strip()
        lexicon = tuple(word.strip() for word in (picture.findtext("lex") or "").split(",") if word.strip())
        rectangles = picture.findall(".//taggedRectangle")
        try:
            pixels = decode_image((source / name).read_bytes())
        except (OSError, DataError) as error:
            reason = error.strerror if isinstance(error, OSError) else "the picture cannot be decoded"
            yield from (Skipped(f"{name}#{number}", str(reason)) for number in range(1, len(rectangles) + 1))
            continue
        for number, rectangle in enumerate(rectangles, 1):
            identifier = f"{name}#{number}"
            text = (rectangle.findtext("tag") or "").strip()
            if not text:
                yield Skipped(identifier, "empty label")
                continue
            try:
                x, y, width, height = (float(rectangle.attrib[key]) for key in ("x", "y", "width", "height"))
                image = crop(pixels, x, y, x + width, y + height, ".png")
            except (KeyError, ValueError, OverflowError):
                yield Skipped(identifier, "no readable rectangle")
                continue
            if image is None:
                yield Skipped(identifier, "the box lies outside the picture or is empty")
            else:
                yield Record(image, text, identifier, lexicon=lexicon)
