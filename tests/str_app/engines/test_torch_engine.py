"""Precisions and convolutions of the engine torch; tests/str_app/engines/test_contract.py has the rest."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from str_app.decoding.scoring import log_softmax
from str_app.engines.load import make_engine
from str_app.engines.torch_engine import TorchEngine
from str_app.models.charset import Charset
from str_app.models.kernels import convolution
from str_app.models.kernels.dispatch import torch_operations_only
from str_app.models.kernels.library import Library
from str_app.models.preprocessing import Preprocessing
from str_app.models.recognizer import Recognizer
from tests.tiny_recognizer import tiny_config

WIDTHS = (48, 96, 128)


def recognizer(seed: int, **choices: object) -> Recognizer:
    torch.manual_seed(seed)
    architecture = tiny_config(embedding_size=64, max_length=5, **choices)
    model = Recognizer(architecture, Charset("abAB"), Preprocessing(widths=WIDTHS))
    with torch.no_grad():  # fresh weights say the same at every step; louder ones have opinions
        for parameter in model.decoder.parameters():
            parameter.mul_(3.0)
    return model


def crops(batch: int, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (batch, 32, width, 3), dtype=np.uint8), random.integers(8, width + 1, batch)


def test_compiled_convolutions_are_used_in_float32_alone(
    native_library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, given = recognizer(4), crops(3, 96, 4)
    with torch_operations_only():
        engine = TorchEngine(model, precision="fp32")
        expected = engine.decode_greedy(*engine.encode(*given)).logits
    monkeypatch.setattr("str_app.models.kernels.library.find_library", lambda: native_library)
    convolve, called = convolution.convolve, []
    monkeypatch.setattr(convolution, "convolve", lambda *given: (called.append(1), convolve(*given))[1])
    engine = TorchEngine(model, precision="fp32")
    np.testing.assert_allclose(engine.decode_greedy(*engine.encode(*given)).logits, expected, atol=1e-4)
    assert called
    called.clear()
    TorchEngine(model, precision="bf16").encode(*given)
    assert not called


def test_half_precision_reads_alike_whatever_is_in_the_batch() -> None:
    model = recognizer(5, fpn=True)
    half, full = (TorchEngine(model, precision=precision) for precision in ("bf16", "fp32"))
    assert (half.precision, full.precision) == ("bf16", "fp32")
    for width in WIDTHS:
        canvases, covered = crops(7, width, 4)
        together = log_softmax(half.decode_greedy(*half.encode(canvases, covered)).logits)[:, 0]
        alone = log_softmax(half.decode_greedy(*half.encode(canvases[3:4], covered[3:4])).logits)[:, 0]
        np.testing.assert_allclose(alone[0], together[3], atol=1e-5)
        exact = log_softmax(full.decode_greedy(*full.encode(canvases, covered)).logits)[:, 0]
        assert 1e-5 < np.abs(together - exact).max() < 0.1


@pytest.mark.parametrize(
    ("found", "expected"), [({"avx512_bf16": True}, "bf16"), ({"amx_bf16": True}, "bf16"), ({"avx2": True}, "fp32")]
)
def test_the_processor_decides(monkeypatch: pytest.MonkeyPatch, found: dict[str, bool], expected: str) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    assert make_engine(recognizer(6)).precision == expected


def test_a_torch_that_cannot_tell_computes_in_full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert make_engine(recognizer(6)).precision == "fp32"
