"""The verb `recognize`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from str_app.errors import ImageError, StrAppError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import numpy.typing as npt

    from str_app.reader import Reading

    Named = tuple[str, Callable[[], npt.NDArray[np.uint8]]]

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}


def recognize(
    inputs: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGE|FOLDER|LMDB...", help="Word crops, folders of them, or LMDB data sets."),
    ],
    model: Annotated[str, typer.Option(help="A name that `str-app models` lists, or a checkpoint file.")] = "small",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line, with characters.")] = False,
    beam: Annotated[int, typer.Option(min=1, help="Readings kept while searching; 1 is greedy.")] = 1,
    lexicon: Annotated[
        Path | None, typer.Option(help="Text file with one word per line: read nothing but these.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Most crops in one pass.")] = 32,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; all available by default.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Read the words in pictures: path TAB text TAB confidence, one line per image.

    An image that cannot be read is named on standard error and the others are still read; the exit code is then 1.

    Example: str-app recognize word.png crops/ --json
    """
    named = [image for path in inputs for image in images_in(path)]
    words = read_words(lexicon) if lexicon is not None else None

    from str_app.reader import Reader

    reader = Reader.load(model, device=device, threads=threads, batch_size=batch_size)
    failed = 0
    for start in range(0, len(named), batch_size):
        names, crops = [], []
        for name, load in named[start : start + batch_size]:
            try:
                crops.append(load())
                names.append(name)
            except (ImageError, ValueError) as error:
                failed += 1
                typer.echo(f"str-app recognize: {error}", err=True)
        for name, reading in zip(names, reader.read_crops(crops, beam=beam, lexicon=words), strict=True):
            typer.echo(json_line(name, reading) if as_json else f"{name}\t{reading.text}\t{reading.confidence:.4f}")
    if failed:
        raise StrAppError(f"{failed} of {len(named)} images could not be read")


def images_in(path: Path) -> Iterator[Named]:
    """Name and loader of every image that `path` (an image, a folder of images, a data set) holds.

    Raises:
        StrAppError: a folder without images.
        DataError: a broken LMDB.
    """
    from functools import partial

    from str_app.images import load_image

    if not path.is_dir():
        yield str(path), partial(load_image, path)
        return
    if (path / "data.mdb").exists():
        yield from _records_of(path)
        return
    if (path / "labels.tsv").is_file() and (path / "images").is_dir():
        path = path / "images"
    found = sorted(file for file in path.iterdir() if file.suffix.lower() in _SUFFIXES and file.is_file())
    if not found:
        raise StrAppError(
            f"{path}: no image in this folder: it needs {', '.join(sorted(_SUFFIXES))} files, or data.mdb"
        )
    for file in found:
        yield str(file), partial(load_image, file)


def _records_of(path: Path) -> Iterator[Named]:
    from functools import partial

    from datasets.lmdb_store import LmdbSource

    source = LmdbSource(path)
    for index in range(len(source)):
        yield f"{path}/{source.identifier(index)}", partial(lambda place: source[place].image, index)


def read_words(path: Path) -> list[str]:
    """The words of a lexicon file: one a line, UTF-8; lines that begin with `# ` are comments.

    Raises:
        StrAppError: no word in it, or not UTF-8.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise StrAppError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}): convert it") from None
    words = [line.strip() for line in lines if line.strip() and not line.startswith("# ")]
    if not words:
        raise StrAppError(f"{path}: no word in this lexicon: give one word per line")
    return words


def json_line(name: str, reading: Reading) -> str:
    """One line of `--json`."""
    import json

    characters = [
        {
            "text": character.text,
            "confidence": round(character.confidence, 4),
            "box": [round(edge, 1) for edge in character.box],
        }
        for character in reading.characters
    ]
    line = {"image": name, "text": reading.text, "confidence": round(reading.confidence, 4), "characters": characters}
    return json.dumps(line, ensure_ascii=False)
