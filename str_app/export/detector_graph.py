"""The word detector as an ONNX graph: one file that needs no torch."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch.export import Dim

from str_app.export.graphs import export_module
from str_app.models.backbones.conv_norm import fold_batch_norms
from str_app.models.checkpoint import replace_file
from str_app.models.detectors.word_detector import ExportedDetector
from str_app.models.detectors.word_maps import MULTIPLE
from str_app.photos.word_detector import FORMAT, METADATA_KEY
from str_app.training.detection.loop import load_detector


def export_detector(weights: Path, out: Path) -> None:
    """Write the graph in float32: uint8 (B, H, W, 3) RGB in, scores and edges out; see `ExportedDetector`.

    Args:
        weights: what training wrote.
        out: the file.
    """
    detector, facts = load_detector(weights)
    module = ExportedDetector(fold_batch_norms(detector).float())
    largest = 1 << 10
    dims = {
        0: Dim("batch", min=1, max=largest),
        1: MULTIPLE * Dim("rows", min=1, max=largest),
        2: MULTIPLE * Dim("columns", min=1, max=largest),
    }
    pictures = torch.zeros(2, 3 * MULTIPLE, 5 * MULTIPLE, 3, dtype=torch.uint8)
    graph = export_module(module, {"pictures": pictures}, [dims], ("scores", "edges"))
    entry = graph.metadata_props.add()
    entry.key = METADATA_KEY
    entry.value = json.dumps({"format": FORMAT, "name": "words-small", "training": facts})
    replace_file(out, graph.SerializeToString())
