"""Fixtures of the training tests."""

import signal
from collections.abc import Iterator

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


@pytest.fixture(autouse=True)
def usual_signals() -> Iterator[None]:
    """What `nohup`, or a script's background, ignores would not stop a run."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL}
    before = {signum: signal.signal(signum, handler) for signum, handler in usual.items()}
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)
