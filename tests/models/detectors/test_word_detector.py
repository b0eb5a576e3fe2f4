"""The network that finds words: its maps, and how little it weighs."""

from __future__ import annotations

import torch

from str_app.models.backbones.conv_norm import fold_batch_norms
from str_app.models.detectors.word_detector import ExportedDetector, WordDetector, WordDetectorConfig
from str_app.models.detectors.word_maps import CORE_STRIDE, EDGE_STRIDE, MULTIPLE


def test_maps_have_their_strides() -> None:
    model = WordDetector(WordDetectorConfig(blocks=(1, 1, 1, 1)))
    maps = model(torch.rand(2, 3, 3 * MULTIPLE, 2 * MULTIPLE) * 255)
    assert maps.cores.shape == (2, 1, 3 * MULTIPLE // CORE_STRIDE, 2 * MULTIPLE // CORE_STRIDE)
    assert maps.edges.shape == (2, 4, 3 * MULTIPLE // EDGE_STRIDE, 2 * MULTIPLE // EDGE_STRIDE)
    (maps.cores.sum() + maps.edges.sum()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_it_is_small() -> None:
    assert WordDetector().num_parameters < 3_000_000


def test_fresh_weights_see_no_words() -> None:
    with torch.no_grad():
        scores, edges = ExportedDetector(WordDetector().eval())(torch.zeros(1, 64, 96, 3, dtype=torch.uint8))
    assert scores.shape == (1, 32, 48)
    assert edges.shape == (1, 4, 16, 24)
    assert float(scores.max()) < 0.5


def test_folding_batch_norms_changes_nothing() -> None:
    model = WordDetector(WordDetectorConfig(blocks=(1, 1, 1, 1)))
    pictures = torch.rand(2, 3, 64, 64) * 255
    model(pictures)  # gives the batch norms statistics
    model.eval()
    expected, got = model(pictures), fold_batch_norms(model)(pictures)
    torch.testing.assert_close(got.cores, expected.cores, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(got.edges, expected.edges, atol=1e-3, rtol=1e-3)
