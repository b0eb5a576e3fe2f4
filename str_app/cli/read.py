"""The verb `read`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from str_app.cli import options
from str_app.cli.printing import json_line, note, row, write, write_document, write_lines
from str_app.cli.progress import ProgressBar
from str_app.cli.recognize import images_in
from str_app.errors import ImageError, StrAppError, writing
from str_app.photos import LONGEST_SIDE

if TYPE_CHECKING:
    from str_app.inputs.images import ImageSource
    from str_app.photos.reading import PhotoReading

LOCAL_OPTIONS = ("model", "detector", "longest_side", "prior", "threads", "device", "engine", "precision")


def read(
    context: typer.Context,
    inputs: Annotated[
        list[Path], typer.Argument(metavar="PHOTO|FOLDER", readable=False, help="Photographs, or folders of them.")
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per photograph, with all words and their corners.")
    ] = False,
    as_hocr: Annotated[bool, typer.Option("--hocr", help="Print hOCR, of one photograph.")] = False,
    as_alto: Annotated[bool, typer.Option("--alto", help="Print ALTO 4, of one photograph.")] = False,
    as_text: Annotated[
        bool, typer.Option("--text", help="Print the text only, with an empty line between photographs.")
    ] = False,
    picture: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|DIR",
            help="Write the photograph with its words marked to a new file; for several photographs, or a folder of "
            "them, to a folder, in which no file is replaced. A name without suffix is a folder.",
        ),
    ] = None,
    model: options.Model = "small",
    detector: options.Detector = "auto",
    longest_side: options.LongestSide = LONGEST_SIDE,
    characters: options.Characters = None,
    prior: options.Prior = True,
    server: options.Server = None,
    api_key: options.ApiKey = None,
    threads: options.Threads = None,
    device: options.Device = "cpu",
    engine: options.Engine = "auto",
    precision: options.Precision = "auto",
) -> None:
    """Find and read all words of photographs: one line of path TAB text TAB confidence per line of text.

    The confidence of a line is that of its least certain word. Photographs that cannot be read are listed on standard
    error, the others are still read, and the exit code is 1.

    Example: str-app read street.jpg --picture found.png
    """
    if sum((as_json, as_hocr, as_alto, as_text)) > 1:
        raise typer.BadParameter("give one of --json, --hocr, --alto and --text")
    photos = []
    for path in inputs:
        found = [source for _, source in images_in(path, "str-app bulk --photos") if isinstance(source, Path)]
        if not found:
            note(f"str-app read: {path}: an LMDB is not read; `str-app recognize` reads its crops")
        photos += found
    if not photos:
        raise StrAppError("no photographs: `read` takes image files and folders of them")
    if (as_hocr or as_alto) and len(photos) != 1:
        raise typer.BadParameter(f"--hocr and --alto print one document: give one photograph, not {len(photos)}")
    into_folder = len(photos) > 1 or any(path.is_dir() for path in inputs)
    pictures: Sequence[Path | None] = [None] * len(photos)
    if picture is not None:
        pictures = _picture_files(picture, photos, into_folder)
    read_photo: Callable[..., PhotoReading]
    if server is not None:
        options.refuse(context, LOCAL_OPTIONS, options.SERVER_DECIDES)
        from str_app.client import Client

        read_photo = Client(server, api_key=api_key).read_photo
    else:
        from str_app.photos.load import load_pipeline
        from str_app.photos.photo_reader import PhotoReader
        from str_app.reader import Reader

        pipeline = load_pipeline(detector, threads, longest_side)
        reader = Reader.load(model, device=device, threads=threads, prior=prior, engine=engine, precision=precision)
        read_photo = PhotoReader(reader, pipeline).read

    from str_app.inputs.images import PHOTO_LIMITS, load_image

    failed = unmarked = read_so_far = 0
    with ProgressBar("reading", len(photos), "photographs") as progress:
        for path, target in zip(photos, pictures, strict=True):
            try:
                # A server gets the file as it is.
                photo: Any = load_image(path, PHOTO_LIMITS) if server is None else path
                reading = read_photo(photo, characters=characters)
            except (StrAppError, OSError) as error:
                if not _concerns_one_photograph(error):
                    raise
                failed += 1
                message = str(error)
                if not message.startswith(str(path)):
                    message = f"{path}: {message}"
                note(f"str-app read: {message}")
            else:
                if as_text and read_so_far:
                    write("")
                read_so_far += 1
                _print(path, reading, as_json, as_hocr, as_alto, as_text)
                try:
                    if target is not None:
                        _draw(photo, reading, target)
                except ImageError as error:  # of a type that only the server reads
                    unmarked += 1
                    note(f"str-app read: not marked: {error}")
            progress.advance()
    if failed:
        raise StrAppError(f"{failed} of {len(photos)} photographs could not be read")
    if unmarked:
        raise StrAppError(f"{unmarked} of {len(photos)} photographs were read, but could not be marked")


def _print(path: Path, reading: PhotoReading, as_json: bool, as_hocr: bool, as_alto: bool, as_text: bool) -> None:
    from str_app.photos.formats import to_alto, to_hocr

    if as_json:
        write_document(json_line({"image": str(path), **reading.as_dict()}))
    elif as_hocr or as_alto:
        write_document((to_hocr if as_hocr else to_alto)(reading, path.name), newline=False)
    elif as_text:
        write_lines(reading.text)
    else:
        for line in reading.lines:
            if line.text:
                confidence = min(word.confidence for index in line.words if (word := reading.words[index]).text)
                write(row(str(path), line.text, f"{confidence:.4f}"))


def _concerns_one_photograph(error: Exception) -> bool:
    """Whether others may be read: not if the server cannot be reached, or refuses the key or the options."""
    if isinstance(error, ImageError | OSError):
        return True
    status, code = getattr(error, "status", 0), getattr(error, "code", "")  # of a `ServerError`
    return status in (413, 422, 500, 504) and code != "invalid_request"


def _picture_files(picture: Path, photos: Sequence[Path], into_folder: bool) -> Sequence[Path]:
    """Where each marked photograph is written.

    Raises:
        StrAppError: a type that cannot be written, a file that exists, or it would overwrite a photograph.
    """
    originals = {path.resolve() for path in photos}
    targets: list[Path]
    into_folder = into_folder or picture.is_dir() or not picture.suffix
    if into_folder:
        if picture.exists() and not picture.is_dir():
            raise StrAppError(
                f"--picture {picture}: is a file; several photographs, and names without suffix, need a folder"
            )
        taken: set[Path] = set()
        targets = []
        for path in photos:  # those of several folders may have the same names
            number = 1
            target = picture / f"{path.stem}.png"
            while target in taken or (os.path.lexists(target) and target.resolve() not in originals):
                number += 1
                target = picture / f"{path.stem}-{number}.png"
            taken.add(target)
            targets.append(target)
    else:
        suffix = picture.suffix
        if suffix and not _can_write(suffix):
            raise StrAppError(f"--picture {picture}: images of the type {suffix} cannot be written; use .png or .jpg")
        targets = [picture]
    for target in targets:
        if target.resolve() in originals:
            raise StrAppError(f"--picture {picture}: would overwrite the photograph {target}; give another place")
        if target.exists():
            raise StrAppError(f"--picture {picture}: exists already: give another name, or delete it")
    folder = picture if into_folder else picture.parent
    with writing(f"--picture {picture}"):  # before anything is read
        folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise StrAppError(f"--picture {picture}: cannot be written: no permission for {folder}")
    return targets


def _can_write(suffix: str) -> bool:
    import cv2
    import numpy as np

    try:
        return bool(cv2.imencode(suffix, np.zeros((1, 1, 3), np.uint8))[0])
    except cv2.error:
        return False


def _draw(photo: ImageSource, reading: PhotoReading, target: Path) -> None:
    import cv2

    from str_app.inputs.images import PHOTO_LIMITS, load_image
    from str_app.models.checkpoint import replace_file
    from str_app.photos.picture import draw

    encoded = cv2.imencode(target.suffix or ".png", draw(load_image(photo, PHOTO_LIMITS), reading)[:, :, ::-1])[1]
    with writing(f"--picture {target}"):
        file = target.resolve()  # a link stays one
        file.parent.stat()  # not made anew: it was there before reading
        replace_file(file, encoded.tobytes())
