"""Passes as graphs against the passes themselves."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from str_app.decoding import Decoded, Scorer, beam_search
from str_app.decoding import greedy as greedy_of
from str_app.decoding.scoring import log_softmax
from str_app.engines import torch_engine
from str_app.engines.load import make_engine
from str_app.engines.torch_engine import TorchEngine
from str_app.models.charset import Charset
from str_app.models.kernels import convolution
from str_app.models.kernels.dispatch import torch_operations_only
from str_app.models.kernels.library import Library
from str_app.models.preprocessing import Preprocessing
from str_app.models.recognizer import Recognizer
from str_app.policy import SearchPolicy
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


def greedy(engine: TorchEngine, *batch: np.ndarray) -> list[Decoded]:
    return greedy_of(Scorer(engine), *batch)


def assert_same(found: list[Decoded], expected: list[Decoded]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.text == other.text
        assert one.character_log_probs == pytest.approx(other.character_log_probs, abs=1e-4)
        np.testing.assert_allclose(one.attention, other.attention, atol=1e-5)


@pytest.mark.parametrize("refine", ["none", "add", "mul"])
@pytest.mark.parametrize(
    "encoder", [{"attention": "1d"}, {"attention": "2d"}, {"fpn": True, "positional_glimpse": True}]
)
def test_graphs_read_as_the_passes_do(
    refine: str, encoder: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    model = recognizer(0, refine=refine, **encoder)
    plain, traced = TorchEngine(model, {"temperature": 0.7}), TorchEngine(model, {"temperature": 0.7}, traced=True)
    assert not caplog.messages, "it was traced"
    for width in WIDTHS:
        for batch in (1, 2, 7):
            given = crops(batch, width, batch)
            assert_same(greedy(traced, *given), greedy(plain, *given))
            policy = SearchPolicy(beam=3)
            searched = [beam_search(Scorer(engine), *given, policy=policy) for engine in (traced, plain)]
            assert_same(*searched)


def test_one_graph_serves_all_weights_of_an_architecture() -> None:
    given = crops(4, 96, 1)
    first = TorchEngine(recognizer(1), {"temperature": 0.7}, traced=True)
    graphs = len(torch_engine._GRAPHS)
    second = TorchEngine(recognizer(2), {"temperature": 1.5}, traced=True)
    assert len(torch_engine._GRAPHS) == graphs
    readings = [greedy(engine, *given) for engine in (first, second)]
    assert [one.log_prob for one in readings[0]] != pytest.approx([one.log_prob for one in readings[1]], abs=1e-3)
    assert_same(readings[0], greedy(TorchEngine(recognizer(1), {"temperature": 0.7}), *given))
    assert_same(readings[1], greedy(TorchEngine(recognizer(2), {"temperature": 1.5}), *given))


def test_compiled_convolutions_stand_outside_the_graph(
    native_library: Library, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model, given = recognizer(4), crops(3, 96, 4)
    with torch_operations_only():
        expected = greedy(TorchEngine(model, precision="fp32"), *given)
    monkeypatch.setattr("str_app.models.kernels.library.find_library", lambda: native_library)
    convolve, called = convolution.convolve, []
    monkeypatch.setattr(convolution, "convolve", lambda *given: (called.append(1), convolve(*given))[1])
    engine = TorchEngine(model, traced=True, precision="fp32")
    assert not caplog.messages, "it was traced"
    called.clear()
    assert_same(greedy(engine, *given), expected)
    assert called
    called.clear()
    greedy(TorchEngine(model, traced=True, precision="bf16"), *given)
    assert not called


def test_what_cannot_be_traced_reads_right_all_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def outside_torch(images: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(images.numpy().mean(axis=(1, 2, 3), keepdims=True))

    features = Recognizer.features
    monkeypatch.setattr(Recognizer, "features", lambda self, images: features(self, images) + outside_torch(images))
    given = crops(3, 96, 2)
    model = recognizer(3, hidden_size=24)
    with torch_operations_only(), caplog.at_level(logging.WARNING):  # with compiled convolutions nobody traces it
        engine = TorchEngine(model, {"name": "own"}, traced=True)
    assert [message.split(",")[0] for message in caplog.messages] == ["own is not traced"]
    assert_same(greedy(engine, *given), greedy(TorchEngine(model), *given))


def test_a_context_layer_reads_the_same_traced_or_not() -> None:
    model = recognizer(4, context_size=6)
    for width in WIDTHS:
        given = crops(3, width, 3)
        assert_same(greedy(TorchEngine(model, traced=True), *given), greedy(TorchEngine(model), *given))


@pytest.mark.parametrize("traced", [False, True])
def test_half_precision_reads_alike_whatever_is_in_the_batch(traced: bool, caplog: pytest.LogCaptureFixture) -> None:
    model = recognizer(5, fpn=True)
    half, full = (TorchEngine(model, traced=traced, precision=precision) for precision in ("bf16", "fp32"))
    assert not caplog.messages, "it was traced"
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
