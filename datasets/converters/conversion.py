"""From a data set in its own layout to an LMDB."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from str_app.datasets.converters import READERS
from str_app.datasets.converters.record import Record, Skipped
from str_app.datasets.image_decoding import decode_image
from str_app.datasets.lexicon import LEXICON, find_subsets, read_lexicons, read_subset
from str_app.datasets.lmdb_writer import LmdbWriter
from str_app.datasets.sample import DataError


class Summary(NamedTuple):
    """What a conversion did.

    Attributes:
        written: samples in the LMDB.
        skipped: reason → the places of the records that were left out for it.
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
    """Write a data set to an LMDB, images byte for byte, each decoded once to be sure that it can be.

    Subset lists and the 50-word lexicons that lie beside the source, or in it, are written into the LMDB's folder;
    samples keep their names there as `path-%09d`.

    Args:
        kind: one of `READERS`.
        source: folder or file, as the kind's reader says.
        out: the LMDB to write.
        split: which part, where a data set has several.
        overwrite: replace an LMDB at `out`.
        max_skipped: the share of unusable records above which nothing is written.
        progress: called after each record with how many are done and how many are expected, if known.

    Raises:
        DataError: unknown kind, unreadable source, too many unusable records, or a full disk.
    """
    if kind not in READERS:
        raise DataError(f"unknown kind of data set {kind!r}: one of {', '.join(READERS)}")
    source = Path(source)
    if not source.exists():
        raise DataError(f"{source}: no such file or folder")
    if Path(out).exists() and not overwrite:
        raise DataError(f"{out} exists already: choose another name, or replace it with --overwrite")
    total, records = READERS[kind](source, split)
    skipped: dict[str, list[str]] = {}
    lexicons: dict[str, tuple[str, ...]] = {}
    beside = source if source.is_dir() else source.parent
    has_lists = bool(find_subsets(beside)) or (beside / LEXICON).is_file()
    identifiers: set[str] = set()  # only where needed: nine million names fill a gigabyte
    with LmdbWriter(out, overwrite=overwrite) as writer:
        for done, item in enumerate(records, 1):
            usable = _check(item)
            if isinstance(usable, Skipped):
                skipped.setdefault(usable.reason, []).append(usable.place)
            else:
                writer.add(usable.image, usable.text, usable.boxes, usable.identifier)
                if has_lists:
                    identifiers.add(usable.identifier)
                if usable.lexicon:
                    lexicons[usable.identifier] = usable.lexicon
            progress(done, total)
        left_out = sum(len(places) for places in skipped.values())
        if left_out > max_skipped * (len(writer) + left_out) or not len(writer):
            raise DataError(_too_many(source, left_out, len(writer), skipped))
        _write_lists(beside, writer.folder, identifiers, lexicons)
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


def _too_many(source: Path, left_out: int, written: int, skipped: dict[str, list[str]]) -> str:
    if not left_out:
        return f"{source}: no records in it"
    reasons = "; ".join(f"{reason}: {len(places)}, the first {places[0]}" for reason, places in skipped.items())
    share = 100 * left_out / (left_out + written)
    return (
        f"{source}: {left_out} of {left_out + written} records ({share:.1f} %) are unusable, nothing written. {reasons}"
    )


def _write_lists(beside: Path, folder: Path, identifiers: set[str], lexicons: dict[str, tuple[str, ...]]) -> None:
    """Subset lists and lexicons, restricted to the samples that were written."""
    for name, path in find_subsets(beside).items():
        kept = [identifier for identifier in read_subset(path) if identifier in identifiers]
        if kept:
            _write(folder / f"subset_{name}.txt", kept)
    if not lexicons and (beside / LEXICON).is_file():
        known = read_lexicons(beside / LEXICON)
        lexicons = {identifier: tuple(words) for identifier, words in known.items() if identifier in identifiers}
    # A word with a comma or a tab in it cannot be written in this format.
    writable = {name: [word for word in words if not set(word) & set(",\t\n")] for name, words in lexicons.items()}
    lines = [f"{name}\t{','.join(words)}" for name, words in writable.items() if words]
    if lines:
        _write(folder / LEXICON, lines)


def _write(path: Path, lines: list[str]) -> None:
    try:
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")
    except OSError as error:
        raise DataError(f"cannot write {path.name}: {error.strerror}") from error
