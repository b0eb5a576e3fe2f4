"""Reads the LMDBs of this field: `num-samples`, `image-%09d`, `label-%09d`, counted from 1.

Two optional keys, which other readers ignore: `boxes-%09d`, float32 little-endian (n, 4), the box of each character;
`path-%09d`, UTF-8, the sample's name in the data set it was converted from (`images/word_1.png`).
"""

from __future__ import annotations

import os
import threading
import weakref
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import numpy.typing as npt

from str_app.datasets.image_decoding import decode_image
from str_app.datasets.sample import DataError, Sample, UnreadableSample


class _OpenEnvironment:
    """An LMDB environment and the process that opened it."""

    def __init__(self, path: Path) -> None:
        self.pid = os.getpid()
        self.environment = lmdb.open(
            str(path), subdir=path.is_dir(), readonly=True, create=False, lock=False, readahead=False
        )


# LMDB allows one environment per file and process: all sources of a file share it, and the last one closes it.
_open_environments: weakref.WeakValueDictionary[tuple[int, int], _OpenEnvironment] = weakref.WeakValueDictionary()
_opening = threading.Lock()


def _open_environment(path: Path) -> _OpenEnvironment:
    try:
        status = (path / "data.mdb" if path.is_dir() else path).stat()
    except OSError:
        raise DataError(f"{path}: not an LMDB: expected a folder with data.mdb") from None
    with _opening:
        opened = _open_environments.get((status.st_dev, status.st_ino))
        if opened is not None and opened.pid == os.getpid():
            return opened
        if opened is not None:  # inherited through a fork: a child must not use its parent's map
            opened.environment.close()
        try:
            opened = _OpenEnvironment(path)
        except lmdb.Error as error:
            if "already open" in str(error):
                raise DataError(
                    f"{path}: this process has opened the LMDB with lmdb.open already, and LMDB allows one environment "
                    "per file and process: close that one first"
                ) from error
            raise DataError(f"{path}: not an LMDB, or damaged: {error}") from error
        environment = opened.environment
        expected = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
        if status.st_size < expected:  # reading past the end of the map would kill the process
            raise DataError(f"{path}: the LMDB is truncated ({status.st_size} of {expected} bytes): copy it again")
        _open_environments[status.st_dev, status.st_ino] = opened
        return opened


LMDB_SUFFIXES = (".mdb", ".lmdb")  # of those without a folder


class LmdbSource:
    """Random access to the samples of one LMDB. Safe to pickle, to fork and to use from several threads.

    Each process opens the environment at first use; pickling leaves it out.

    Args:
        path: the LMDB's folder, or its file when it was written without a folder.

    Raises:
        DataError: not an LMDB, truncated, or without a usable `num-samples`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._opened: _OpenEnvironment | None = None
        try:
            stored = self._get("num-samples")
        except lmdb.Error as error:
            raise DataError(f"{self.path}: the LMDB is damaged ({error}): copy it again") from None
        if stored is None:
            raise DataError(
                f"{self.path}: num-samples is missing: not a data set of word crops, or not completely written"
            )
        try:
            self._length = int(stored)
        except ValueError:
            raise DataError(f"{self.path}: num-samples is {stored[:20]!r}, not a number") from None
        if self._length < 1:
            raise DataError(f"{self.path}: num-samples is {self._length}: the data set is empty")
        assert self._opened is not None
        records = self._opened.environment.stat()["entries"] - 1
        if self._length > records:  # each sample has a record at least
            raise DataError(
                f"{self.path}: num-samples is {self._length}, but the LMDB has only {records} other records: it is "
                "damaged, or not completely written"
            )

    @property
    def name(self) -> str:
        """The name of the LMDB's folder, without `.lmdb`."""
        return self.path.absolute().name.removesuffix(".lmdb")

    def __len__(self) -> int:
        return self._length

    def __repr__(self) -> str:
        return f"LmdbSource({str(self.path)!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def __getitem__(self, index: int) -> Sample:
        """Sample at `index` in [0, len).

        Raises:
            IndexError: `index` is outside.
            UnreadableSample: image or label is missing or cannot be decoded.
        """
        text = self.label(index)
        image = self.image(index)
        stored = self._record(index, "boxes")
        if stored is None:
            return Sample(image, text)
        if len(stored) != 16 * len(text):
            raise UnreadableSample(
                self._message(index, "boxes", f"{len(stored)} bytes, but {len(text)} characters need {16 * len(text)}")
            )
        return Sample(image, text, np.frombuffer(stored, dtype="<f4").astype(np.float32).reshape(-1, 4))

    def image(self, index: int) -> npt.NDArray[np.uint8]:
        """The image alone, uint8 (H, W, 3), RGB; the record needs no label.

        Raises:
            UnreadableSample: it is missing or cannot be decoded.
        """
        encoded = self.image_bytes(index)
        try:
            return decode_image(encoded)
        except DataError as error:
            raise UnreadableSample(self._message(index, "image", str(error))) from error

    def image_bytes(self, index: int) -> bytes:
        """The encoded image as stored. Raises UnreadableSample where it is missing."""
        stored = self._record(index, "image")
        if stored is None:
            raise UnreadableSample(self._message(index, "image", "missing"))
        return stored

    def label(self, index: int) -> str:
        """The label at `index`. Raises UnreadableSample where it is missing or not UTF-8."""
        stored = self._record(index, "label")
        if stored is None:
            raise UnreadableSample(self._message(index, "label", "missing"))
        try:
            return stored.decode("utf-8")
        except UnicodeDecodeError:
            raise UnreadableSample(self._message(index, "label", f"not UTF-8: {stored[:40]!r}")) from None

    def identifier(self, index: int) -> str:
        """The sample's name in the original data set (`path-%09d`), or `image-%09d` where none is stored."""
        try:
            stored = self._record(index, "path")
        except UnreadableSample:  # error messages need a name for a broken record too
            stored = None
        return f"image-{index + 1:09d}" if stored is None else stored.decode("utf-8", errors="replace")

    def _record(self, index: int, kind: str) -> bytes | None:
        if not 0 <= index < self._length:
            raise IndexError(f"sample {index} of {self.path}, which has {self._length} samples")
        try:
            return self._get(f"{kind}-{index + 1:09d}")
        except lmdb.Error as error:
            raise UnreadableSample(self._message(index, kind, f"the LMDB is damaged here: {error}")) from error

    def _get(self, key: str) -> bytes | None:
        if self._opened is None or self._opened.pid != os.getpid():
            self._opened = _open_environment(self.path)
        with self._opened.environment.begin() as transaction:
            value: bytes | None = transaction.get(key.encode())
        return value

    def _message(self, index: int, kind: str, reason: str) -> str:
        return f"{self.path} record {index + 1} ({kind}-{index + 1:09d}): {reason}"
