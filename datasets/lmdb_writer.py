"""Writes LMDBs with the keys that `lmdb_source` reads."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path
from typing import IO, Any

import lmdb
import numpy as np
import numpy.typing as npt

from str_app.datasets.locks import lock_file
from str_app.datasets.replacing import replace_folder
from str_app.datasets.sample import DataError

LOCK_FILE = "writer.lock"
RESUME_KEY = b"resume-key"
SIZE_KEY = b"num-samples"


class LmdbWriter:
    """Context manager that writes an LMDB atomically: it gets its final name complete, or not at all.

    The data go to a hidden folder beside the target, which is synced to the disk and renamed when the with-block ends
    without an exception. After an exception the hidden folder is removed; after a kill it stays. With `resume` it
    stays after an exception too, and the next writer with the same path and key continues it.

        with LmdbWriter("words.lmdb") as writer:
            writer.add(Path("1.png").read_bytes(), "Tiredness")

    Args:
        path: the LMDB's folder; missing parents are created.
        overwrite: replace an existing LMDB (never a folder that is not an LMDB).
        resume: identifies the data set being written; a partial LMDB with another key is refused.

    Attributes:
        folder: the hidden folder. Other files put there (subset lists, lexicons) are published with the LMDB.

    Raises:
        DataError: the target exists, no samples were added, the disk is full, or the partial LMDB to be resumed belongs
            to another data set or is being written by another process.
    """

    BATCH_BYTES = 16 * 2**20
    INITIAL_MAP_BYTES = 64 * 2**20

    def __init__(self, path: str | Path, *, overwrite: bool = False, resume: str | None = None) -> None:
        self.path = Path(path).resolve()  # a link stays one
        self._given_path = path
        self._count = self._committed = 0
        self._resume = resume
        self._lock: IO[str] | None = None
        self._pending: list[tuple[bytes, bytes]] = []
        self._pending_bytes = 0
        if self.path.exists():
            if not overwrite:
                raise DataError(f"{path} exists already: choose another name, or remove it")
            if not (self.path / "data.mdb").is_file():
                raise DataError(f"{path} exists and is not an LMDB: choose another name, or remove it yourself")
        suffix = secrets.token_hex(4) if resume is None else "resumable"
        self.folder = self.path.with_name(f".{self.path.name}.partial-{suffix}")
        try:
            self.folder.mkdir(parents=True, exist_ok=resume is not None)
            if resume is not None:
                self._lock = _lock(self.folder)
            # No lock file: no other process knows the hidden folder. Synced once, at the end. Pages are zeroed first
            # (LMDB's default), so the same samples make the same file and no memory of this process gets into it.
            self._environment = lmdb.open(
                str(self.folder), map_size=self.INITIAL_MAP_BYTES, lock=False, sync=False, metasync=False
            )
        except (OSError, lmdb.Error) as error:
            self._discard()
            raise DataError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from error
        except BaseException:  # Ctrl-C before the with-block begins, or the lock is held by another process
            self._discard()
            raise
        if resume is not None:
            self._continue(resume)

    def __enter__(self) -> LmdbWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        complete = False
        try:
            if kind is None:
                self._finish()
                complete = True
            elif self._resume is not None and self._pending and isinstance(error, KeyboardInterrupt):
                self._commit()
        finally:
            self._environment.close()
            if not complete:
                self._discard()

    def __len__(self) -> int:
        return self._count

    def add(
        self, image_bytes: bytes, text: str, boxes: npt.NDArray[Any] | None = None, path: str | None = None
    ) -> None:
        """Add one sample.

        Args:
            image_bytes: the encoded image, stored unchanged.
            text: the label.
            boxes: (len(text), 4): x0, y0, x1, y1 of each character in pixels.
            path: the sample's name in the original data set; subset lists and lexicons refer to it.

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
                f"sample {number} of {self._given_path}: {error.object!r} is not valid Unicode: {error.reason}"
            ) from error
        if boxes is not None:
            if np.shape(boxes) != (len(text), 4):
                raise DataError(
                    f"sample {number} of {self._given_path}: {np.shape(boxes)} boxes for {len(text)} characters"
                )
            records["boxes"] = np.asarray(boxes, dtype="<f4").tobytes()
        # At once, and counted after it: Ctrl-C anywhere leaves whole samples.
        self._pending += [(f"{kind}-{number:09d}".encode(), value) for kind, value in records.items()]
        self._count = number
        self._pending_bytes += sum(len(value) + 64 for value in records.values())
        if self._pending_bytes >= self.BATCH_BYTES:
            self._commit()

    def _continue(self, key: str) -> None:
        """Mark a new partial LMDB with `key`, or take up the sample count of an existing one."""
        with self._environment.begin(write=True) as transaction:
            stored = transaction.get(RESUME_KEY)
            if stored is None:
                transaction.put(RESUME_KEY, key.encode())
            else:
                self._count = self._committed = int(transaction.get(SIZE_KEY, b"0"))
        if stored is not None and stored != key.encode():
            self._environment.close()
            self._discard()
            raise DataError(f"{self.folder} is a partial copy of another data set: remove it, or choose another name")

    def _commit(self) -> None:
        if self._resume is not None:
            self._pending.append((SIZE_KEY, str(self._count).encode()))
        while True:
            try:
                with self._environment.begin(write=True) as transaction:
                    for key, value in self._pending:
                        transaction.put(key, value)
                break
            except lmdb.MapFullError:  # the transaction was rolled back: double the map and write the batch again
                self._environment.set_mapsize(2 * self._environment.info()["map_size"])
            except lmdb.Error as error:
                raise self._write_error(error) from error
        self._committed = self._count
        self._pending.clear()
        self._pending_bytes = 0

    def _finish(self) -> None:
        if self._count == 0:
            raise DataError(f"{self._given_path}: no samples were added, so nothing was written")
        self._commit()
        self._pending.append((SIZE_KEY, str(self._count).encode()))
        self._commit()
        try:
            if self._lock is not None:
                with self._environment.begin(write=True) as transaction:
                    transaction.delete(RESUME_KEY)
            self._environment.sync(True)
            self._environment.close()
            if self._lock is not None and os.name == "nt":
                self._lock.close()  # Windows renames no folder with an open file
            _publish(self.folder, self.path)
            if self._lock is not None:  # held until here: no second writer gets into the hidden folder
                (self.path / LOCK_FILE).unlink(missing_ok=True)
                self._lock.close()
        except (lmdb.Error, OSError) as error:
            raise self._write_error(error) from error

    def _discard(self) -> None:
        if self._resume is None:
            shutil.rmtree(self.folder, ignore_errors=True)
        elif self._lock is not None:  # the partial LMDB stays for the next writer
            self._lock.close()

    def _write_error(self, error: Exception) -> DataError:
        free = shutil.disk_usage(self.path.parent).free / 2**20
        left = "nothing was left behind" if self._resume is None else "the same command continues from there"
        return DataError(
            f"cannot write {self._given_path} after {self._committed} samples: {error}. {free:,.0f} MiB are free on "
            f"that disk; {left}"
        )


def _lock(folder: Path) -> IO[str]:
    try:
        return lock_file(folder / LOCK_FILE)
    except BlockingIOError:
        raise DataError(f"{folder} is being written by another process: wait for it, or choose another name") from None


def _publish(folder: Path, path: Path) -> None:
    """Rename `folder` to `path`, replacing what is there, and sync the rename to the disk."""
    if path.exists():
        old = folder.with_name(folder.name.replace(".partial-", ".old-"))
        try:
            replace_folder(path, folder, old)
        finally:
            if old.exists() and path.exists():
                shutil.rmtree(old)
    else:
        folder.rename(path)
    if os.name != "posix":
        return
    parent = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)
