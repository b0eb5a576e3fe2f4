"""Replaces one folder by another."""

from __future__ import annotations

from pathlib import Path


def replace_folder(path: Path, folder: Path, old: Path) -> None:
    """Rename `folder` to `path`, and what is there to `old`; or change nothing.

    A folder that is not empty cannot be replaced in one step.
    """
    try:
        if path.exists():
            path.replace(old)
        folder.replace(path)
    except BaseException:  # an interruption too, before, between or after them
        if old.exists() and not path.exists():
            old.replace(path)
        raise
