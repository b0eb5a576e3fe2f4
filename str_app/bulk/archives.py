"""WebDataset tars: files whose names agree up to the first dot are one sample, such as `000.jpg` and `000.json`.

The standard library's `tarfile` reads them; the package `webdataset` would add pipes, caches and shuffling, which
reading everything once in order has no use for.
"""

from __future__ import annotations

import gzip
import itertools
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Self

from str_app.bulk.inputs import REGIONS, Input, Item, fingerprint_of, listed_regions
from str_app.datasets.image_decoding import IMAGE_SUFFIXES
from str_app.datasets.text_files import parse_json
from str_app.errors import ImageError
from str_app.inputs.images import DEFAULT_LIMITS, PHOTO_LIMITS

_TYPICAL_SAMPLE = 8192  # bytes of a word crop with its headers, to estimate how many are in an archive
_END = 1024  # bytes of zeros that end an archive
_MAX_HEADER = 16 * 2**10  # bytes of one long name, or of pax records, which tarfile reads in quadratic time
_EXTENSIONS = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)


class _Member(NamedTuple):
    name: str
    content: bytes | ImageError

    @property
    def key(self) -> str:
        folder, slash, file = self.name.rpartition("/")
        return folder + slash + file.split(".")[0]


@dataclass(frozen=True)
class TarPart:
    """All samples of one archive."""

    name: str
    path: Path
    count: int

    def items(self) -> Iterator[Item]:
        """See `Part`. An archive that was cut short ends with an item that says so."""
        for key, group in itertools.groupby(self._members(), key=lambda member: member.key):
            members = list(group)
            images = [member for member in members if member.name.lower().endswith(IMAGE_SUFFIXES)]
            described = [member for member in members if member.name.lower().endswith(".json")]
            cut = [each for each in members if isinstance(each.content, ImageError) and each not in images]
            regions: list[Any] | ImageError | None = None
            for member in described:
                if isinstance(member.content, bytes):
                    regions = _regions(member.name, member.content)
            for member in images:
                lost = next((each.content for each in cut if each in described), member.content)
                name = f"{self.name}/{member.name}"
                yield Item(name, regions) if isinstance(regions, ImageError) else Item(name, lost, regions)
            for member in cut:
                yield Item(f"{self.name}/{member.name}".rstrip("/"), member.content)
            if not images and not cut:
                names = ", ".join(member.name for member in members)
                yield Item(f"{self.name}/{key}", ImageError("no_image", f"no image in this sample: {names}"))

    def _members(self) -> Iterator[_Member]:
        name = ""
        try:
            # ignore_zeros: archives that were appended to each other have an end marker after each.
            with (
                self._open() as file,
                tarfile.open(fileobj=file, mode="r|", tarinfo=_Header, ignore_zeros=True) as archive,
            ):
                for entry in archive:
                    parts = PurePosixPath(entry.name).parts
                    if any(part.startswith(".") and part != ".." for part in parts):
                        continue  # hidden, as in folders; macOS adds ._NAME to each file
                    if (entry.islnk() or entry.issym()) and entry.name.lower().endswith(IMAGE_SUFFIXES):
                        reason = f"a link to {entry.linkname}: links in archives are not followed"
                        yield _Member(entry.name, ImageError("no_image", reason))
                    elif entry.isfile():
                        name = entry.name
                        content = archive.extractfile(entry)
                        assert content is not None
                        # One byte more than a photograph may have: its row will say that it is too large.
                        member = _Member(name, content.read(min(entry.size, PHOTO_LIMITS.max_bytes) + 1))
                        name = ""
                        yield member
                if file.tail != bytes(_END):
                    # tarfile takes an archive that was cut between two members, or in a header, for a whole one.
                    raise EOFError("no end marker")
        except (tarfile.TarError, EOFError, OSError, RecursionError, zlib.error) as error:
            yield _Member(name, ImageError("truncated", f"the archive is damaged or cut short here: {error}"))

    def _open(self) -> Any:
        return _Tailed(gzip.open(self.path) if self.path.suffix.lower().endswith("gz") else self.path.open("rb"))


class _Header(tarfile.TarInfo):
    """A damaged header is an error, which tarfile takes for the end of the archive, and so is an enormous one."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        if header.type in _EXTENSIONS and header.size > _MAX_HEADER:
            raise tarfile.ReadError(f"a name or pax header of {header.size:,} bytes; at most {_MAX_HEADER:,} are read")
        return header

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(archive)
        except tarfile.InvalidHeaderError as error:  # type: ignore[attr-defined]  # missing in typeshed
            raise tarfile.ReadError(f"damaged header ({error})") from error


class _Tailed:
    """A file that remembers the last bytes read."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.tail = b""

    def __enter__(self) -> _Tailed:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, size: int) -> bytes:
        """See `io.RawIOBase.read`."""
        # read1: where an archive was cut, `GzipFile.read` raises before it hands out what it has.
        block: bytes = self._file.read1(size)
        self.tail = (self.tail + block)[-_END:] if len(block) < _END else block[-_END:]
        return block


def open_tar(name: str, path: Path) -> Input:
    """The archive as one part: WebDataset's tars are shards already, and have no index to cut them by."""
    size = path.stat().st_size
    return Input(name, "tar", fingerprint_of([size]), [TarPart(name, path, size // _TYPICAL_SAMPLE)])


def _regions(name: str, encoded: bytes) -> list[Any] | ImageError | None:
    if len(encoded) > DEFAULT_LIMITS.max_bytes:
        return ImageError("too_many_bytes", f"{name}: larger than {DEFAULT_LIMITS.max_bytes / 2**20:g} MiB")
    try:
        fields = parse_json(encoded)
    except ValueError:
        return ImageError("bad_region", f"{name} is not valid JSON")
    return listed_regions(fields.get(REGIONS) if isinstance(fields, dict) else None, name)
