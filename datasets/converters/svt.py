"""Street View Text (Wang and Belongie, ECCV 2010): `train.xml`, `test.xml` and whole photographs in `img/`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from str_app.datasets.converters.cropping import crop
from str_app.datasets.converters.record import Record, Records, Skipped, existing_file, label_problem
from str_app.datasets.folder import read_image_file
from str_app.datasets.image_decoding import decode_image
from str_app.datasets.sample import DataError


def read(source: Path, split: str | None = None) -> Records:
    """Words of one split, cropped by their tagged rectangles, each with its photograph's lexicon.

    Args:
        source: the folder `svt1`.
        split: `train` or `test`; optional if there is only one.

    Raises:
        DataError: no such split, or the XML is damaged.
    """
    splits = [split] if split else ["train", "test"]
    path = existing_file([source / f"{name}.xml" for name in splits], f"{source}: SVT's labels")
    try:
        pictures = ElementTree.parse(path).getroot().findall("image")
    except ElementTree.ParseError as error:
        raise DataError(f"{path}: damaged XML: {error}") from error
    return Records(sum(len(picture.findall(".//taggedRectangle")) for picture in pictures), _records(source, pictures))


def _records(source: Path, pictures: list[ElementTree.Element]) -> Iterator[Record | Skipped]:
    for picture in pictures:
        name = (picture.findtext("imageName") or "").strip()
        lexicon = tuple(word.strip() for word in (picture.findtext("lex") or "").split(",") if word.strip())
        rectangles = picture.findall(".//taggedRectangle")
        try:
            pixels = decode_image(read_image_file(source / name))
        except (OSError, DataError) as error:
            reason = error.strerror if isinstance(error, OSError) else "the photograph cannot be decoded"
            yield from (Skipped(f"{name}#{number}", str(reason)) for number in range(1, len(rectangles) + 1))
            continue
        for number, rectangle in enumerate(rectangles, 1):
            identifier = f"{name}#{number}"
            text = (rectangle.findtext("tag") or "").strip()
            problem = label_problem(text)
            if problem:
                yield Skipped(identifier, problem)
                continue
            try:
                x, y, width, height = (float(rectangle.attrib[key]) for key in ("x", "y", "width", "height"))
                image = crop(pixels, x, y, x + width, y + height, ".png")
            except (KeyError, ValueError, OverflowError):
                yield Skipped(identifier, "no readable rectangle")
                continue
            if image is None:
                yield Skipped(identifier, "the box is empty or outside the photograph")
            else:
                yield Record(image, text, identifier, lexicon=lexicon)
