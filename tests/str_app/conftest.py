"""Fixtures of the tests of `str_app`."""

from __future__ import annotations

from pathlib import Path

import pytest

from str_app.models.charset import PRINTABLE_94
from str_app.models.checkpoint import save_checkpoint
from tests.tiny_recognizer import tiny_recognizer


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recogniser of a few thousand parameters with untrained weights, saved once; not to be changed."""
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors"
    save_checkpoint(path, tiny_recognizer(PRINTABLE_94, max_length=8), {"name": "tiny"})
    return path
