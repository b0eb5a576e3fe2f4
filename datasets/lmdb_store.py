"""Samples in an LMDB with the field's keys: `num-samples`, `image-%09d`, `label-%09d`, counted from 1.

Two optional keys, ignored by other readers: `boxes-%09d`, float32 little-endian (n, 4), the place of each character;
`path-%09d`, UTF-8, what the sample was called where it came from (`images/word_1.png`).
"""

from __future__ import annotations

import os
import secrets
import shutil
import threading
import weakref
from pathlib import Path
from typing import IO, Any, NamedTuple

import lmdb
import numpy as np
import numpy.typing as npt

from str_app.datasets.image_decoding import decode_image
from str_app.datasets.sample import DataError, Sample, UnreadableSample

try:
    import fcntl
except ImportError:  # Windows: two writers of one resumable LMDB are not kept apart there
    fcntl = None  # type: ignore[assignment]

LOCK_FILE = "writer.lock"


class _OpenEnvironment:
    """An LMDB environment and the process that opened it."""

    def __init__(self, path: Path) -> None:
        self.pid = os.getpid()
        self.environment = lmdb.open(
            str(path), subdir=path.is_dir(), readonly=True, create=False, lock=False, readahead=False
        )


# LMDB allows one environment per file and process, so all sources of one file share it; closed with the last of them.
_open_environments: weakref.WeakValueDictionary[tuple[int, int], _OpenEnvironment] = weakref.WeakValueDictionary()
_opening = threading.Lock()


def _open_environment(path: Path) -> _OpenEnvironment:
    file = path / "data.mdb" if path.is_dir() else path
    try:
        status = file.stat()
    except OSError:
        raise DataError(f"{path}: no LMDB here (a folder with data.mdb is expected)") from None
    with _opening:
        opened = _open_environments.get((status.st_dev, status.st_ino))
        if opened is not None and opened.pid == os.getpid():
            return opened
        if opened is not None:  # inherited through a fork: its map must not be used here
            opened.environment.close()
        try:
            opened = _OpenEnvironment(path)
        except lmdb.Error as error:
            raise DataError(f"{path}: not an LMDB or damaged: {error}") from error
        environment = opened.environment
        whole = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
        if status.st_size < whole:  # reading past the end of the map would kill the process
            raise DataError(f"{path}: the LMDB is cut short ({status.st_size} of {whole} bytes): copy it again")
        _open_environments[status.st_dev, status.st_ino] = opened
        return opened


class LmdbSource:
    """Random access to the samples of one LMDB. Safe to pickle, to fork and to use from several threads.

    The environment is opened at first use in each process and never travels between processes.

    Args:
        path: the LMDB's folder, or its file when it was written without one.

    Raises:
        DataError: no LMDB there, cut short, or without a usable `num-samples`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._opened: _OpenEnvironment | None = None
        stored = self._get("num-samples")
        if stored is None:
            raise DataError(f"{self.path}: num-samples is missing: not a data set of word crops, or half written")
        try:
            self._length = int(stored)
        except ValueError:
            raise DataError(f"{self.path}: num-samples is {stored[:20]!r}, not a number") from None
        if self._length < 1:
            raise DataError(f"{self.path}: num-samples is {self._length}: there is nothing to read")

    @property
    def name(self) -> str:
        """The LMDB's own name without `.lmdb`."""
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
        try:
            image = decode_image(self.image_bytes(index))
        except UnreadableSample:
            raise
        except DataError as error:
            raise UnreadableSample(self._message(index, "image", str(error))) from error
        stored = self._record(index, "boxes")
        if stored is None:
            return Sample(image, text)
        if len(stored) != 16 * len(text):
            raise UnreadableSample(
                self._message(index, "boxes", f"{len(stored)} bytes, but {len(text)} characters need {16 * len(text)}")
            )
        return Sample(image, text, np.frombuffer(stored, dtype="<f4").astype(np.float32).reshape(-1, 4))

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
        """What the sample was called where it came from, or `image-%09d` where that was not written."""
        try:
            stored = self._record(index, "path")
        except UnreadableSample:  # messages about a broken record need a name for it
            stored = None
        return f"image-{index + 1:09d}" if stored is None else stored.decode("utf-8", errors="replace")

    def _record(self, index: int, kind: str) -> bytes | None:
        if not 0 <= index < self._length:
            raise IndexError(f"sample {index} of {self.path}, which has {self._length}")
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


class LmdbWriter:
    """Context manager that writes an LMDB which appears under its final name whole or not at all.

    Everything goes to a hidden folder beside the target, is flushed to the disk and renamed when the with-block ends
    well; after an exception that folder is removed, after a kill it stays behind under its hidden name. With
    `resume`, it is kept after an exception too, and a writer that is given the same path and key goes on with it.

        with LmdbWriter("words.lmdb") as writer:
            writer.add(Path("1.png").read_bytes(), "Tiredness")

    Args:
        path: the LMDB's folder; its parent is created where missing.
        overwrite: replace an LMDB already there (never a folder that is none).
        resume: names what is being written; a part left by a writer with another key is refused.

    Attributes:
        folder: the hidden folder; other files put there (subset lists, lexicons) appear together with the LMDB.

    Raises:
        DataError: the target exists, nothing was added, the disk is full, or what is to be resumed is something
            else or being written.
    """

    BATCH_BYTES = 16 * 2**20
    INITIAL_MAP_BYTES = 64 * 2**20

    def __init__(self, path: str | Path, *, overwrite: bool = False, resume: str | None = None) -> None:
        self.path = Path(path).absolute()
        self._given = path
        self._count = 0
        self._resume = resume
        self._lock: IO[str] | None = None
        self._pending: list[tuple[bytes, bytes]] = []
        self._pending_bytes = 0
        if self.path.exists():
            if not overwrite:
                raise DataError(f"{path} exists already: choose another name, or ask for it to be overwritten")
            if not (self.path / "data.mdb").is_file():
                raise DataError(f"{path} exists and is not an LMDB folder: it will not be overwritten")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            mark = secrets.token_hex(4) if resume is None else "resumable"
            self.folder = self.path.with_name(f".{self.path.name}.partial-{mark}")
        except OSError as error:
            raise DataError(f"cannot write {path}: {error.strerror}") from error
        try:
            self.folder.mkdir(exist_ok=resume is not None)
            if resume is not None:
                self._lock = _lock(self.folder)
            # Nobody else knows the hidden folder, so no lock file; synced once, at the end. Pages are zeroed first
            # (LMDB's default): the same samples make the same file, and nothing else of this process is in it.
            self._environment = lmdb.open(
                str(self.folder),
                map_size=self.INITIAL_MAP_BYTES,
                lock=False,
                sync=False,
                metasync=False,
            )
        except (OSError, lmdb.Error) as error:
            self._discard()
            raise DataError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from error
        except BaseException:  # Ctrl-C before the with-block has begun
            self._discard()
            raise
        if resume is not None:
            self._take_up(resume)

    def __enter__(self) -> LmdbWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if kind is not None:
            if self._resume is not None and self._pending and isinstance(error, KeyboardInterrupt):
                self._commit()
            self._environment.close()
            self._discard()
            return
        try:
            self._finish()
        except BaseException:
            self._environment.close()
            self._discard()
            raise

    def __len__(self) -> int:
        return self._count

    def add(
        self, image_bytes: bytes, text: str, boxes: npt.NDArray[Any] | None = None, path: str | None = None
    ) -> None:
        """Add one sample.

        Args:
            image_bytes: the encoded image, stored byte for byte.
            text: the label.
            boxes: (len(text), 4): x0, y0, x1, y1 of each character in pixels.
            path: what the sample is called where it comes from; subset lists and lexicons name samples by it.

        Raises:
            DataError: the boxes do not match the text, the text is not valid Unicode, or the disk is full.
        """
        number = self._count + 1
        try:
            records = {"image": bytes(image_bytes), "label": text.encode("utf-8")}
            if path is not None:
                records["path"] = path.encode("utf-8")
        except UnicodeEncodeError as error:
            raise DataError(
                f"sample {number} of {self._given}: {text!r} is not valid Unicode: {error.reason}"
            ) from error
        if boxes is not None:
            if np.shape(boxes) != (len(text), 4):
                raise DataError(
                    f"sample {number} of {self._given}: boxes of shape {np.shape(boxes)} for {len(text)} characters"
                )
            records["boxes"] = np.asarray(boxes, dtype="<f4").tobytes()
        self._count = number
        for kind, value in records.items():
            self._pending.append((f"{kind}-{number:09d}".encode(), value))
            self._pending_bytes += len(value) + 64
        if self._pending_bytes >= self.BATCH_BYTES:
            self._commit()

    def _take_up(self, key: str) -> None:
        with self._environment.begin(write=True) as transaction:
            found = transaction.get(b"resume-key")
            if found is None:
                transaction.put(b"resume-key", key.encode())
            else:
                self._count = int(transaction.get(b"num-samples", b"0"))
        if found is not None and found != key.encode():
            self._environment.close()
            self._discard()
            raise DataError(f"{self.folder} holds a part of another data set: remove it, or choose another name")

    def _commit(self) -> None:
        if self._resume is not None:
            self._pending.append((b"num-samples", str(self._count).encode()))
        while True:
            try:
                with self._environment.begin(write=True) as transaction:
                    for key, value in self._pending:
                        transaction.put(key, value)
                break
            except lmdb.MapFullError:  # the transaction is undone; the map doubles and the batch is written again
                self._environment.set_mapsize(2 * self._environment.info()["map_size"])
            except lmdb.Error as error:
                raise self._write_error(error) from error
        self._pending.clear()
        self._pending_bytes = 0

    def _finish(self) -> None:
        if self._count == 0:
            raise DataError(f"{self._given}: no samples were added, so nothing was written")
        self._commit()
        self._pending.append((b"num-samples", str(self._count).encode()))
        self._commit()
        try:
            if self._lock is not None:
                with self._environment.begin(write=True) as transaction:
                    transaction.delete(b"resume-key")
                self._lock.close()
                (self.folder / LOCK_FILE).unlink()
            self._environment.sync(True)
            self._environment.close()
            self._publish()
        except (lmdb.Error, OSError) as error:
            raise self._write_error(error) from error

    def _publish(self) -> None:
        if self.path.exists():
            # A folder that is not empty cannot be replaced in one step.
            old = self.folder.with_name(self.folder.name.replace(".partial-", ".old-"))
            self.path.rename(old)
            try:
                self.folder.rename(self.path)
            except OSError:
                old.rename(self.path)
                raise
            shutil.rmtree(old)
        else:
            self.folder.rename(self.path)
        if os.name != "posix":
            return
        parent = os.open(self.path.parent, os.O_RDONLY)  # the rename itself must reach the disk
        try:
            os.fsync(parent)
        finally:
            os.close(parent)

    def _discard(self) -> None:
        if self._resume is None:
            shutil.rmtree(self.folder, ignore_errors=True)
        elif self._lock is not None:  # what is there is kept for the next writer, and may be another's
            self._lock.close()

    def _write_error(self, error: Exception) -> DataError:
        free = shutil.disk_usage(self.path.parent).free / 2**20
        return DataError(
            f"cannot write {self._given} after {self._count} samples: {error}. {free:,.0f} MiB are free on that disk; "
            + ("nothing was left behind" if self._resume is None else "the same command goes on from there")
        )


def _lock(folder: Path) -> IO[str]:
    """An open file that no other process can lock until it is closed, however that comes about."""
    file = (folder / LOCK_FILE).open("w")
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            raise DataError(
                f"{folder} is being written by another process: wait for it, or choose another name"
            ) from None
    return file


class Verification(NamedTuple):
    """What `verify` found.

    Attributes:
        path: the LMDB.
        samples: how many `num-samples` promises.
        broken: one message for each record that is missing or cannot be decoded, naming it.
    """

    path: Path
    samples: int
    broken: list[str]


def verify(path: str | Path) -> Verification:
    """Read and decode every sample of an LMDB.

    Raises:
        DataError: the LMDB cannot be opened at all.
    """
    source = LmdbSource(path)
    broken: list[str] = []
    for index in range(len(source)):
        try:
            source[index]
        except UnreadableSample as error:
            broken.append(str(error))
    return Verification(source.path, len(source), broken)
