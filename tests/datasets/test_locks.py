"""One process writes a folder at a time."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from str_app.datasets import locks
from str_app.datasets.locks import lock_file

pytest.importorskip("fcntl", reason="not on Windows")


def test_a_lock_is_had_by_one(tmp_path: Path) -> None:
    with lock_file(tmp_path / "lock"), pytest.raises(BlockingIOError):
        lock_file(tmp_path / "lock")
    lock_file(tmp_path / "lock").close()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP])
def test_file_systems_without_locks_can_be_written(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: object, operation: int) -> None:
        raise OSError(number, "not here")

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    lock_file(tmp_path / "lock").close()
