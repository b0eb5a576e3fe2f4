"""Fixtures of the tests of `str_app`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from str_app.models.charset import PRINTABLE_94
from str_app.models.checkpoint import save_checkpoint
from tests.tiny_recognizer import tiny_recognizer


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recogniser of a few thousand parameters with untrained weights, saved once; not to be changed.

    Its decoder is made decided, and seldom ends a text at once, so that different pictures read differently.
    """
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors"
    network = tiny_recognizer(PRINTABLE_94, max_length=8)
    with torch.no_grad():
        for parameter in network.decoder.parameters():
            parameter.mul_(3.0)
        network.decoder.classifier.bias[0] = -4.0
    save_checkpoint(path, network, {"name": "tiny"})
    return path
