"""The folder that bulk reading writes: `_manifest.json`, and one Parquet file for each shard.

A file gets its final name complete or not at all, and carries the manifest's hash: by that a finished shard is known.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from str_app.datasets.locks import lock_file
from str_app.datasets.sample import DataError
from str_app.datasets.text_files import read_json_object
from str_app.errors import StrAppError, writing

FORMAT = "str-app-bulk/1"
MANIFEST = "_manifest.json"  # readers of Parquet folders skip names that begin with _ or .
LOCK = ".str-app-bulk.lock"
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("region", pa.list_(pa.float32())),
        ("text", pa.string()),
        ("confidence", pa.float32()),
        ("characters", pa.list_(pa.struct([("text", pa.string()), ("confidence", pa.float32())]))),
        ("boxes", pa.list_(pa.list_(pa.float32()))),
        ("rotation", pa.int16()),
        ("line", pa.int32()),
        ("error", pa.struct([("code", pa.string()), ("message", pa.string())])),
    ]
)
_HASH, _ERRORS = b"str-app-bulk", b"str-app-bulk-errors"
_PARTIAL = ".str-app-bulk-"
_GROUP = 10_000  # rows held in memory
MAX_KILLED = 5  # processes that may die at one shard
_SHARD = re.compile(r"part-\d{6,}\.parquet")


def manifest_hash(manifest: dict[str, Any]) -> str:
    """By which the files of one run know each other."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def shard_file(out: Path, number: int) -> Path:
    """Where shard `number` is written."""
    return out / f"part-{number:06d}.parquet"


class ShardWriter:
    """Context manager that writes one shard; after an exception nothing of it stays, after a kill a hidden file.

    Args:
        file: its final name.
        run: the manifest's hash.

    Raises:
        StrAppError: processes that wrote this shard were killed again and again; or it cannot be written.
    """

    def __init__(self, file: Path, run: str) -> None:
        self._file, self._run = file, run
        self._partial = file.with_name(f"{_PARTIAL}{file.stem}-{secrets.token_hex(4)}")
        self._rows: list[dict[str, Any]] = []
        self.rows = 0
        self.errors: Counter[str] = Counter()

    def __enter__(self) -> ShardWriter:
        killed = len(list(self._file.parent.glob(f"{_PARTIAL}{self._file.stem}-*")))
        if killed >= MAX_KILLED:  # Ray Data would try forever
            raise StrAppError(
                f"{self._file}: {killed} processes were killed while they wrote it: out of memory (fewer --workers), "
                "or an image that crashes its decoder"
            )
        with writing(self._file):
            self._writer = pq.ParquetWriter(self._partial, SCHEMA, compression="zstd")
        return self

    def add(self, row: dict[str, Any]) -> None:
        """Add a row; columns that it lacks are null."""
        row = row | {"id": _as_utf8(row["id"])}
        if error := row.get("error"):
            row["error"] = error | {"message": _as_utf8(error["message"])}
            self.errors[error["code"]] += 1
        self._rows.append(row)
        self.rows += 1
        if len(self._rows) == _GROUP:
            self._flush()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is not None:
                with suppress(OSError):  # the disk is full, which the first exception says
                    self._writer.close()
                return
            self._flush()
            with writing(self._file):
                self._writer.add_key_value_metadata({_HASH: self._run, _ERRORS: json.dumps(self.errors)})
                self._writer.close()
                sync(self._partial)
                self._partial.replace(self._file)
                sync(self._file.parent)
        finally:
            self._partial.unlink(missing_ok=True)

    def _flush(self) -> None:
        if self._rows:
            with writing(self._file):
                self._writer.write_table(pa.Table.from_pylist(self._rows, SCHEMA))
            self._rows.clear()


def _as_utf8(text: str) -> str:
    """Bytes of file names that are no UTF-8 as `\\udc80` … `\\udcff`."""
    return text.encode("utf-8", "backslashreplace").decode()


def finished(file: Path, run: str) -> tuple[int, Counter[str]] | None:
    """Rows, and errors by code, of a shard that this run has written; None if it has to be read."""
    metadata = _metadata(file)
    if metadata is None or metadata.metadata.get(_HASH) != run.encode():
        return None
    return metadata.num_rows, Counter(json.loads(metadata.metadata[_ERRORS]))


def _metadata(file: Path) -> Any:
    """The footer of a file that bulk reading wrote; None if there is none, or it is another's."""
    try:
        metadata = pq.read_metadata(file)
    except (OSError, pa.ArrowException):
        return None
    return metadata if _HASH in (metadata.metadata or {}) else None


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Keep other commands from writing `out`. Raises StrAppError if one does."""
    if out.exists() and not out.is_dir():
        raise StrAppError(f"{out} is a file: give a folder")
    out.mkdir(parents=True, exist_ok=True)
    try:
        lock = lock_file(out / LOCK)
    except BlockingIOError:
        raise StrAppError(f"{out} is being written by another process: wait for it") from None
    with lock:
        yield


def prepare(out: Path, manifest: dict[str, Any], overwrite: bool) -> None:
    """Make `out` the folder of the run that `manifest` describes: new, or the same one interrupted.

    Args:
        out: locked.
        manifest: everything that the readings depend on.
        overwrite: delete the shards of a run with another manifest, and nothing else.

    Raises:
        StrAppError: `out` has the output of another run, or files that bulk reading did not write.
    """
    file = out / MANIFEST
    stored = _read_manifest(file)
    if stored is not None and stored == manifest:
        remove_partial(out)
        return
    if stored is not None and not overwrite:
        raise StrAppError(
            f"{out} has the output of another run; {differences(stored, manifest)}. Choose another --out, or delete "
            "that output with --overwrite"
        )
    shards = [each for each in sorted(out.iterdir()) if _SHARD.fullmatch(each.name)]
    foreign = [each for each in shards if _metadata(each) is None]
    if file.exists() and stored is None:
        foreign.insert(0, file)
    if foreign:
        raise StrAppError(f"{foreign[0]} was not written by `str-app bulk`: choose another --out")
    if shards and not overwrite:  # the manifest was deleted, or never written
        raise StrAppError(f"{out} has shards, but no {MANIFEST}: choose another --out, or add --overwrite")
    for shard in shards:
        shard.unlink()
    remove_partial(out)
    partial = out / f"{_PARTIAL}{secrets.token_hex(4)}"
    with writing(file):
        partial.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        sync(partial)
        partial.replace(file)
        sync(out)


def remove_partial(out: Path) -> None:
    """Delete what killed processes have left of shards."""
    for each in out.glob(f"{_PARTIAL}*"):
        each.unlink(missing_ok=True)


def _read_manifest(file: Path) -> dict[str, Any] | None:
    try:
        stored = read_json_object(file)
    except DataError:
        return None
    return stored if stored.get("format") == FORMAT else None


def differences(stored: dict[str, Any], wanted: dict[str, Any]) -> str:
    """Where two manifests differ, in words."""
    found = []
    for key in sorted(stored.keys() | wanted.keys()):
        old, new = stored.get(key), wanted.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            inner = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
            found += [f"{key}.{name} was {old.get(name)!r}, now {new.get(name)!r}" for name in inner]
        elif old != new:
            lists = isinstance(old, list) and isinstance(new, list)
            found.append(f"{key} differ" if lists else f"{key} was {old!r}, now {new!r}")
    return ", ".join(found)


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    if path.is_dir() and os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
