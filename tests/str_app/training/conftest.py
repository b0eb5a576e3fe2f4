"""Fixtures of the training tests."""

import numpy as np
import pytest

from str_app.datasets.lmdb_writer import LmdbWriter
from tests.str_app.training.tiny_run import encoded


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "words.lmdb"
    with LmdbWriter(path) as writer:
        for k in range(24):
            text = "ab"[: 1 + k % 2]
            boxes = np.array([[4 + 9 * i, 4, 12 + 9 * i, 16] for i in range(len(text))], dtype=np.float32)
            writer.add(encoded(40 + 7 * k), text, boxes if k % 3 else None)
    return path
