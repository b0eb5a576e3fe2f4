"""The verb `recognize`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from str_app.cli import options
from str_app.cli.printing import json_line, note, row, write, write_document
from str_app.errors import ImageError, StrAppError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from str_app.reading import Reading

    Pixels = npt.NDArray[np.uint8]
    Source = Path | Callable[[], Pixels]
    Named = tuple[str, Source]

Opened = TypeVar("Opened")
LOCAL_OPTIONS = ("model", "device", "engine", "precision", "threads", "beam", "prior", "blank", "variants", "lexicon")
PHOTO_SIDE = 320  # pixels of the shorter side


def recognize(
    context: typer.Context,
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGE|FOLDER|LMDB", readable=False, help="Word crops, folders of them, or LMDB data sets."
        ),
    ],
    model: options.Model = "small",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per image, with its characters.")
    ] = False,
    regions: Annotated[
        Path | None,
        typer.Option(
            help="Read these regions of one photograph: a JSON array, or 4 or 8 comma-separated numbers per line."
        ),
    ] = None,
    rotate: Annotated[bool, typer.Option("--rotate", help="Also try each crop rotated by 90, 180 and 270°.")] = False,
    beam: options.Beam = None,
    prior: options.Prior = True,
    blank: options.Blank = True,
    variants: options.Variants = True,
    lexicon: Annotated[
        Path | None, typer.Option(help="Text file with one word per line; only these words are read.")
    ] = None,
    characters: options.Characters = None,
    server: options.Server = None,
    api_key: options.ApiKey = None,
    batch_size: options.BatchSize = 32,
    threads: options.Threads = None,
    device: options.Device = "cpu",
    engine: options.Engine = "auto",
    precision: options.Precision = "auto",
) -> None:
    """Read the words in images: one line of path TAB text TAB confidence per image.

    Images that cannot be read are listed on standard error, the others are still read, and the exit code is 1.

    Example: str-app recognize word.png crops/ --json
    """
    # With a server, image files are sent unchanged and LMDB records as PNG.
    open_image: Any
    read: Callable[..., Iterable[Reading | Exception]]
    read_regions: Callable[..., Iterable[Reading | Exception]]
    choices: dict[str, Any]
    if server is None:
        from str_app.cli.lexicon_file import LexiconFile
        from str_app.reader import Reader

        lexicon_file = LexiconFile(lexicon) if lexicon is not None else None
        reader = Reader.load(
            model,
            device=device,
            threads=threads,
            batch_size=batch_size,
            prior=prior,
            blank=blank,
            variants=variants,
            engine=engine,
            precision=precision,
        )
        words = lexicon_file.words_for(reader) if lexicon_file is not None else None
        open_image, read, read_regions = _pixels, reader.read_crops, reader.read_regions
        choices = {"beam": beam, "lexicon": words, "characters": characters, "rotate": rotate}
    else:
        options.refuse(context, LOCAL_OPTIONS, options.SERVER_DECIDES)

        from str_app.client import Client

        client = Client(server, api_key=api_key)
        open_image, read_regions = _encoded, client.recognize_regions
        read = partial(_read_in_requests, client.recognize)
        choices = {"characters": characters, "rotate": rotate}
    if regions is not None:
        if len(inputs) != 1 or inputs[0].is_dir():
            raise typer.BadParameter("--regions needs exactly one image file")
        from str_app.inputs.regions import read_regions_file

        boxes = read_regions_file(regions)
        names = [f"{inputs[0]}#{number}" for number in range(1, len(boxes) + 1)]
        failed = _print(names, read_regions(open_image(inputs[0]), boxes, **choices), as_json)
        if failed:
            raise StrAppError(f"{failed} of {len(names)} regions could not be read")
        return
    named = [image for path in inputs for image in images_in(path)]
    failed, photos = 0, []
    for start in range(0, len(named), batch_size):
        batch = named[start : start + batch_size]
        opened, outcomes = _read_opened([source for _, source in batch], open_image, partial(read, **choices))
        failed += _print([name for name, _ in batch], outcomes, as_json)
        photos += [
            name
            for (name, _), item, outcome in zip(batch, opened, outcomes, strict=True)
            if _seems_a_photo(item, outcome)
        ]
    if photos:
        count = (
            f"{len(photos)} images look like photographs" if len(photos) > 1 else f"{photos[0]} looks like a photograph"
        )
        note(f"str-app recognize: {count}, not crops of one word: `str-app read {photos[0]}` finds the words")
    if failed:
        raise StrAppError(f"{failed} of {len(named)} images could not be read")


def _read_opened(
    sources: Sequence[Source],
    open_source: Callable[[Source], Opened],
    read: Callable[[list[Opened]], Iterable[Reading | Exception]],
) -> tuple[list[Opened | None], list[Reading | Exception]]:
    """What could be opened, and the outcomes: of `read`, or the errors of opening; both in the order of the sources."""
    opened: list[Opened | None] = []
    errors: list[Exception | None] = []
    for source in sources:
        try:
            opened.append(open_source(source))
            errors.append(None)
        except (ImageError, OSError, ValueError) as error:
            opened.append(None)
            errors.append(error)
    readings = iter(read([item for item in opened if item is not None]))
    return opened, [next(readings) if error is None else error for error in errors]


def _read_in_requests(
    read: Callable[..., Iterable[Reading | Exception]], images: list[bytes], **choices: Any
) -> list[Reading | Exception]:
    """The outcomes of a client's `read`, in several requests where the server refuses one of so many images."""
    from str_app.client import ServerError

    try:
        return list(read(images, **choices))
    except ServerError as error:
        if error.status != 413:  # of the server or of a proxy
            raise
        if len(images) == 1:
            return [error]
    half = len(images) // 2
    return [*_read_in_requests(read, images[:half], **choices), *_read_in_requests(read, images[half:], **choices)]


def _seems_a_photo(opened: Any, outcome: Reading | Exception) -> bool:
    """Whether an image is large, not elongated, and shows no word that can be read with some certainty."""
    if isinstance(outcome, Exception) or not hasattr(opened, "shape") or (outcome.text and outcome.confidence >= 0.5):
        return False
    return min(opened.shape[:2]) >= PHOTO_SIDE and max(opened.shape[:2]) <= 2.5 * min(opened.shape[:2])


def _print(names: Sequence[str], outcomes: Iterable[Reading | Exception], as_json: bool) -> int:
    """Print readings, and errors on standard error; return the number of errors."""
    failed = 0
    for name, outcome in zip(names, outcomes, strict=True):
        if isinstance(outcome, Exception):
            failed += 1
            message = str(outcome)
            note(f"str-app recognize: {message if message.startswith(name) else f'{name}: {message}'}")
        elif as_json:
            write_document(json_line({"image": name, **outcome.as_dict()}))
        else:
            write(row(name, outcome.text, f"{outcome.confidence:.4f}"))
    return failed


def _pixels(source: Source) -> Pixels:
    from str_app.inputs.images import load_image

    return load_image(source) if isinstance(source, Path) else source()


def _encoded(source: Source) -> bytes:
    import cv2

    from str_app.inputs.images import read_named_file

    if isinstance(source, Path):
        return read_named_file(source)
    return bytes(cv2.imencode(".png", source()[:, :, ::-1])[1])


def images_in(path: Path, bulk: str = "str-app bulk") -> Iterator[Named]:
    """Name, and file or loader, of every image in `path`: an image, a folder of images, or a data set.

    What a folder has besides images is said on standard error; `bulk` is the command that reads its sub-folders too.

    Raises:
        StrAppError: a folder without images.
        DataError: a broken LMDB.
    """
    from str_app.datasets.image_decoding import IMAGE_SUFFIXES
    from str_app.datasets.lmdb_source import LMDB_SUFFIXES

    try:
        is_folder = path.is_dir()
    except OSError:  # a name that no file can have, or no permission: reading it says so
        is_folder = False
    if not is_folder and not (path.suffix.lower() in LMDB_SUFFIXES and path.is_file()):
        yield str(path), path
        return
    if not is_folder or (path / "data.mdb").exists():
        yield from _records_of(path)
        return
    if (path / "labels.tsv").is_file() and (path / "images").is_dir():
        path = path / "images"
    entries = [entry for entry in path.iterdir() if not entry.name.startswith(".")]
    files = [entry for entry in entries if not entry.is_dir()]
    images = sorted(file for file in files if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file())
    unread = ""
    if below := len(entries) - len(files):
        folders = f"{below} sub-folders are not read; name them" if below > 1 else "1 sub-folder is not read; name it"
        unread = f"{folders}, or use `{bulk}`"
    if not images:
        raise StrAppError(
            f"{path}: no image in this folder; expected {', '.join(IMAGE_SUFFIXES)} files, or an LMDB's data.mdb"
            + (f" ({unread})" if unread else "")
        )
    if unread:
        note(f"str-app: {path}: {unread}")
    if skipped := len(files) - len(images):
        count = f"{skipped} files" if skipped > 1 else "1 file"
        reason = f"not {', '.join(IMAGE_SUFFIXES)}, or a broken link"
        note(f"str-app: {path}: {count} skipped: {reason}")
    for file in images:
        yield str(file), file


def _records_of(path: Path) -> Iterator[Named]:
    from str_app.datasets.lmdb_source import LmdbSource

    source = LmdbSource(path)
    for index in range(len(source)):
        yield f"{path}/{source.identifier(index)}", partial(source.image, index)
