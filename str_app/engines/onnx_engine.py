"""The engine that runs exported graphs with ONNX Runtime, on a CPU and without torch."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from str_app.cpu import usable_cores
from str_app.engines.base import GreedySteps, Step, step_greedily
from str_app.engines.graph_folder import ENCODER, FORMAT, MEMORY, METADATA_KEY, STATE, STEP, GraphError
from str_app.models.charset import Charset
from str_app.models.preprocessing import Preprocessing

ort.set_default_logger_severity(3)  # errors alone: warnings are about the processor's identification


class _Memory(NamedTuple):
    """Of B crops: values float32 (B, N, C), keys float32 (B, N, A), padding bool (B, N)."""

    values: npt.NDArray[np.float32]
    keys: npt.NDArray[np.float32]
    padding: npt.NDArray[np.bool_]


class _State(NamedTuple):
    """Of R prefixes: hidden and cell float32 (R, H)."""

    hidden: npt.NDArray[np.float32]
    cell: npt.NDArray[np.float32]


class OnnxEngine:
    """Exported graphs behind the boundary of `str_app.engines.base.Engine`.

    Pickles by the path of its folder. Readings are the same, to the bit, whatever is in a batch and however many
    threads compute it.

    Args:
        folder: as `str-app export` writes it: `encoder.onnx` and `step.onnx`.
        threads: CPU threads until `use_threads` is called; all usable cores if None.

    Raises:
        GraphError: the graphs are missing, damaged, not written by `str-app export`, or of two different exports.

    Attributes:
        folder, precision: of the graphs.
        source_sha256: of the checkpoint that they were exported from.
    """

    caches_shapes = False

    def __init__(self, folder: str | Path, threads: int | None = None) -> None:
        self.folder = Path(folder).absolute()  # sessions for other thread counts are loaded later
        self._threads = threads or usable_cores()
        self._local = threading.local()
        self._lock = threading.Lock()
        self._sessions: dict[int, tuple[ort.InferenceSession, ort.InferenceSession]] = {}
        header = _header(self.folder, *self._encoder_and_step())
        self.info: Mapping[str, Any] = header["info"]
        self.name = str(self.info.get("name", "unnamed"))
        self.charset = Charset(header["charset"])
        self.preprocessing = Preprocessing.from_dict(header["preprocessing"])
        self.max_length = int(header["max_length"])
        self.precision = str(header["precision"])
        self.source_sha256 = str(header["source"]["sha256"])
        self._map_rows = int(header["map_rows"])

    def __reduce__(self) -> tuple[Any, ...]:
        return OnnxEngine, (self.folder, self._threads)

    def encode(self, canvases: npt.NDArray[np.uint8], widths: npt.NDArray[np.int64]) -> tuple[_Memory, _State]:
        """See `Engine.encode`."""
        encoder, _ = self._encoder_and_step()
        values, keys, padding, hidden, cell = encoder.run(None, {"canvases": canvases, "widths": widths})
        return _Memory(values, keys, padding), _State(hidden, cell)

    def step(
        self,
        memory: _Memory,
        state: _State,
        tokens: npt.NDArray[np.int64],
        crops: npt.NDArray[np.int64],
        parents: npt.NDArray[np.int64],
    ) -> Step:
        """See `Engine.step`."""
        if len(crops) != len(memory.values) or (crops != np.arange(len(crops))).any():
            memory = _Memory(memory.values[crops], memory.keys[crops], memory.padding[crops])
        return self._step(memory, _State(state.hidden[parents], state.cell[parents]), tokens)

    def decode_greedy(self, memory: _Memory, state: _State) -> GreedySteps:
        """See `Engine.decode_greedy`."""
        return GreedySteps(*step_greedily(partial(self._step, memory), state, len(memory.values), self.max_length))

    def use_threads(self, count: int) -> None:
        """See `Engine.use_threads`. The first call with another count loads the graphs again."""
        self._local.threads = count

    def _step(self, memory: _Memory, state: _State, tokens: npt.NDArray[np.int64]) -> Step:
        _, step = self._encoder_and_step()
        feeds = dict(zip((*MEMORY, *STATE, "tokens"), (*memory, *state, tokens), strict=True))
        logits, hidden, cell, attention = step.run(None, feeds)
        return Step(logits, _State(hidden, cell), attention.reshape(len(tokens), self._map_rows, -1))

    def _encoder_and_step(self) -> tuple[ort.InferenceSession, ort.InferenceSession]:
        """The sessions for the threads of the calling thread."""
        count = getattr(self._local, "threads", self._threads)
        with self._lock:
            if count not in self._sessions:
                self._sessions[count] = (_session(self.folder / ENCODER, count), _session(self.folder / STEP, count))
            return self._sessions[count]


def _session(path: Path, threads: int) -> ort.InferenceSession:
    if not path.is_file():
        raise GraphError(f"{path}: no such file; export the model again")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # plans memory for one shape, and shapes vary
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises various types
        raise GraphError(f"{path}: not a graph that ONNX Runtime can run ({error}); export it again") from error


def _header(folder: Path, encoder: ort.InferenceSession, step: ort.InferenceSession) -> dict[str, Any]:
    """What `str-app export` wrote into both graphs."""
    texts = [session.get_modelmeta().custom_metadata_map.get(METADATA_KEY) for session in (encoder, step)]
    if texts[0] is None:
        raise GraphError(f"{folder}: graphs of ONNX, but not written by `str-app export`")
    if texts[0] != texts[1]:
        raise GraphError(f"{folder}: {ENCODER} and {STEP} are of different exports; export the model again")
    header: dict[str, Any] = json.loads(texts[0])
    if header.get("format") != FORMAT:
        raise GraphError(f"{folder}: format {header.get('format')!r}, this version reads {FORMAT!r}")
    return header
