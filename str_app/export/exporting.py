"""A checkpoint to a folder of graphs."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from str_app.datasets.replacing import replace_folder
from str_app.datasets.sample import Source
from str_app.decoding.word_prior import WordPrior
from str_app.engines.graph_folder import ENCODER, FORMAT, GREEDY, METADATA_KEY, STEP, sha256_of
from str_app.engines.onnx_engine import OnnxEngine
from str_app.errors import StrAppError, writing
from str_app.evaluation.protocol import evaluate_source
from str_app.export.graphs import make_graphs
from str_app.export.greedy_graph import make_greedy_graph
from str_app.export.int8 import quantize_encoder, quantize_step
from str_app.models.checkpoint import load_checkpoint
from str_app.reader import Reader
from str_app.training.calibration import fit_temperature

FILES = {ENCODER, STEP, GREEDY, "greedy.json"}  # of an export; a folder with others is never replaced


def export_model(
    checkpoint: Path,
    out: Path,
    *,
    precision: Literal["int8", "fp32"] = "int8",
    calibration: Iterable[npt.NDArray[np.uint8]] = (),
    validation: Sequence[Source] = (),
    single_file: bool = False,
    overwrite: bool = False,
) -> OnnxEngine:
    """Write the graphs of a checkpoint and load them.

    Args:
        checkpoint: a `.safetensors` file.
        out: the folder; it appears when it is whole.
        precision: of weights and convolutions.
        calibration: for int8, crops uint8 (H, W, 3) RGB that show the range of every layer; begun only once target and
            checkpoint are known to be usable, so drawing or reading them may take long.
        validation: labelled crops, on which these graphs are calibrated and scored; by default temperature and scores
            are the checkpoint's.
        single_file: also write `greedy.onnx`, see `make_greedy_graph`, and `greedy.json`, a copy of its metadata.
        overwrite: replace a folder of graphs.

    Raises:
        CheckpointError: the checkpoint is missing or damaged.
        StrAppError: `out` exists or cannot be written, or int8 without crops.
    """
    out = out.resolve()
    if out.exists():
        is_export = out.is_dir() and {ENCODER} <= {file.name for file in out.iterdir()} <= FILES
        if not (overwrite and is_export):
            advice = "pass --overwrite or choose another --out" if is_export else "choose another --out"
            raise StrAppError(f"{out} exists already: {advice}")
    model, info = load_checkpoint(checkpoint)
    with _folder_beside(out) as temporary:
        crops = list(calibration) if precision == "int8" else []
        if precision == "int8" and not crops:
            raise StrAppError("int8 needs crops for calibration, and none could be read")
        encoder, step = make_graphs(model)
        if precision == "int8":
            encoder = quantize_encoder(encoder, crops, model.preprocessing)
            step = quantize_step(step)
        header: dict[str, Any] = {
            "format": FORMAT,
            "charset": model.charset.characters,
            "preprocessing": dataclasses.asdict(model.preprocessing),
            "max_length": model.architecture.max_length,
            "map_rows": model.grid[0],
            "precision": precision,
            "source": {"file": checkpoint.name, "sha256": sha256_of(checkpoint)},
            "info": {"name": checkpoint.stem, **info},
        }
        folder = temporary / out.name
        _save(folder, header, {ENCODER: encoder, STEP: step})
        if validation:
            header["info"]["temperature"] = fit_temperature(OnnxEngine(folder), validation)
            _save(folder, header, {ENCODER: encoder, STEP: step})
            reader = Reader(OnnxEngine(folder), batch_size=64, prior=WordPrior.released())
            scores = [evaluate_source(reader, source).score().as_json() for source in validation]
            header["info"]["metrics"] = {"validation": scores}
            _save(folder, header, {ENCODER: encoder, STEP: step})
        if single_file:
            _save(folder, header, {GREEDY: make_greedy_graph(encoder, step, header)})
            # Some hosts cannot read a graph's metadata.
            text = json.dumps(header, ensure_ascii=False, indent=1) + "\n"
            (folder / GREEDY).with_suffix(".json").write_text(text, encoding="utf-8")
        replace_folder(out, folder, temporary / "replaced")
    return OnnxEngine(out)


@contextmanager
def _folder_beside(out: Path) -> Iterator[Path]:
    """A folder on the same file system as `out`, which is gone in the end, however that comes.

    Raises:
        StrAppError: nothing can be written there.
    """
    # Parents that are missing are made, and stay only if something is in them.
    missing = [folder for folder in out.parents if not folder.exists()]
    with writing(out, "; choose another --out"):
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.")
    try:
        with temporary as folder:
            yield Path(folder)
    finally:
        for folder_made in missing:
            with suppress(OSError):
                folder_made.rmdir()


def _save(folder: Path, header: dict[str, Any], graphs: dict[str, onnx.ModelProto]) -> None:
    folder.mkdir(exist_ok=True)
    for name, graph in graphs.items():
        helper.set_model_props(graph, {METADATA_KEY: json.dumps(header, ensure_ascii=False)})
        onnx.save(graph, folder / name)
