"""Converts a data set from its original layout to an LMDB."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from str_app.datasets.converters import CONVERTERS, load_converter
from str_app.datasets.converters.record import Record, Skipped
from str_app.datasets.image_decoding import decode_image
from str_app.datasets.lexicon import LEXICON, find_subsets, read_lexicons, read_subset
from str_app.datasets.lmdb_writer import LmdbWriter
from str_app.datasets.sample import DataError


class Summary(NamedTuple):
    """Result of a conversion.

    Attributes:
        written: samples in the LMDB.
        skipped: reason → the images or lines skipped for it.
    """

    written: int
    skipped: dict[str, list[str]]


def convert(
    kind: str,
    source: str | Path,
    out: str | Path,
    *,
    split: str | None = None,
    overwrite: bool = False,
    max_skipped: float = 0.05,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
) -> Summary:
    """Write a data set to an LMDB. Images are copied unchanged; each is decoded once to check it.

    Subset lists and 50-word lexicons in the source folder, or next to the source file, are copied to the LMDB's folder
    for the samples written. Samples keep their identifiers as `path-%09d`.

    Args:
        kind: one of `CONVERTERS`.
        source: folder or file, see the converter's `read`.
        out: the LMDB to write.
        split: `train`, `val` or `test`, for data sets with more than one.
        overwrite: replace an LMDB at `out`.
        max_skipped: the share of unusable records, in [0, 1], above which nothing is written.
        progress: called after each record with the number done and the total, if known.

    Raises:
        DataError: unknown kind, unreadable source, too many unusable records, or a full disk.
    """
    if kind not in CONVERTERS:
        raise DataError(f"unknown kind of data set {kind!r}: one of {', '.join(CONVERTERS)}")
    source = Path(source)
    if not source.exists():
        raise DataError(f"{source}: no such file or folder")
    if Path(out).exists() and not overwrite:
        raise DataError(f"{out} exists already: choose another name, or replace it with --overwrite")
    total, records = load_converter(kind)(source, split)
    skipped: dict[str, list[str]] = {}
    lexicons: dict[str, tuple[str, ...]] = {}
    list_folder = source if source.is_dir() else source.parent
    subsets = {name: read_subset(path) for name, path in find_subsets(list_folder).items()}
    listed = read_lexicons(list_folder / LEXICON) if (list_folder / LEXICON).is_file() else {}
    identifiers: set[str] = set()  # filled only if needed: nine million names take a gigabyte
    with LmdbWriter(out, overwrite=overwrite) as writer:
        for done, item in enumerate(records, 1):
            usable = _check(item)
            if isinstance(usable, Skipped):
                skipped.setdefault(usable.reason, []).append(usable.location)
            else:
                writer.add(usable.image, usable.text, usable.boxes, usable.identifier)
                if subsets or listed:
                    identifiers.add(usable.identifier)
                if usable.lexicon:
                    lexicons[usable.identifier] = usable.lexicon
            progress(done, total)
        skipped_count = sum(len(locations) for locations in skipped.values())
        if skipped_count > max_skipped * (len(writer) + skipped_count) or not len(writer):
            raise DataError(_too_many(source, skipped_count, len(writer), skipped))
        subsets = {name: [each for each in subset if each in identifiers] for name, subset in subsets.items()}
        lexicons = lexicons or {each: tuple(words) for each, words in listed.items() if each in identifiers}
        _write_lists(writer.folder, subsets, lexicons)
    return Summary(len(writer), skipped)


def _check(item: Record | Skipped) -> Record | Skipped:
    if isinstance(item, Skipped):
        return item
    if not item.image:
        return Skipped(item.identifier, "the image is empty (0 bytes)")
    try:
        decode_image(item.image)
        item.text.encode()
    except DataError:
        return Skipped(item.identifier, "the image cannot be decoded")
    except UnicodeEncodeError:
        return Skipped(item.identifier, "the label is not valid Unicode")
    return item


def _too_many(source: Path, skipped_count: int, written: int, skipped: dict[str, list[str]]) -> str:
    if not skipped_count:
        return f"{source}: no records in it"
    reasons = "; ".join(
        f"{reason}: {len(locations)}, the first {locations[0]}" for reason, locations in skipped.items()
    )
    total = skipped_count + written
    return (
        f"{source}: {skipped_count} of {total} records ({100 * skipped_count / total:.1f} %) are unusable, "
        f"nothing written. {reasons}"
    )


def _write_lists(folder: Path, subsets: dict[str, list[str]], lexicons: dict[str, tuple[str, ...]]) -> None:
    """Subset lists and lexicons of the samples written."""
    for name, subset in subsets.items():
        if subset:
            _write(folder / f"subset_{name}.txt", subset)
    # The format has no way to write a word with a comma or a tab in it.
    writable = {name: [word for word in words if not set(word) & set(",\t\n")] for name, words in lexicons.items()}
    lines = [f"{name}\t{','.join(words)}" for name, words in writable.items() if words]
    if lines:
        _write(folder / LEXICON, lines)


def _write(path: Path, lines: list[str]) -> None:
    try:
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")
    except OSError as error:
        raise DataError(f"cannot write {path.name}: {error.strerror or error}") from error
