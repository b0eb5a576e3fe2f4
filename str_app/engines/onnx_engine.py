"""The engine that runs exported graphs with ONNX Runtime, on a CPU and without torch."""

from __future__ import annotations

import os
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
from str_app.engines.graph_folder import ENCODER, MEMORY, METADATA_KEY, STATE, STEP, GraphError, sha256_of
from str_app.engines.graph_header import GraphHeader
from str_app.engines.onnx_session import open_session

# Rows that one run of the step's graph computes: the memory of so many, up to 10 MB, stays in the processor's caches. A
# step of 192 rows takes two thirds of the time that it takes at once.
ROWS = 32


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
    threads compute it. An engine keeps the model it loaded: once the folder's graphs change, unpickling it or asking
    for another thread count raises GraphError.

    Args:
        folder: as `str-app export` writes it: `encoder.onnx` and `step.onnx`.
        threads: CPU threads until `use_threads` is called; all usable cores if None.

    Raises:
        GraphError: the graphs are missing, damaged, not written by `str-app export`, of two different exports, or do
            not fit their metadata.

    Attributes:
        folder, precision: of the graphs.
        source_sha256: of the checkpoint that they were exported from.
    """

    caches_shapes = False

    def __init__(self, folder: str | Path, threads: int | None = None) -> None:
        self.folder = Path(folder).absolute()  # sessions for other thread counts are loaded later
        self._begin(threads or usable_cores())
        self._content: tuple[str, ...] = ()
        sessions = self._encoder_and_step()
        header = _read_header(self.folder, *sessions)
        self.info: Mapping[str, Any] = header.info
        self.name = str(self.info.get("name", "unnamed"))
        self.charset = header.charset
        self.preprocessing = header.preprocessing
        self.max_length = header.max_length
        self.precision = header.precision
        self.source_sha256 = header.source_sha256
        self._map_rows = header.map_rows
        _check_signatures(self.folder, header, *sessions)
        self._try_out()

    def __reduce__(self) -> tuple[Any, ...]:
        return _load_same, (self.folder, self._threads, self._content)

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
        if len(crops) == len(memory.values) and (crops == np.arange(len(crops))).all():
            return self._step(memory, _of_parents(state, parents), tokens)
        steps = []
        for start in range(0, len(crops), ROWS):
            rows = slice(start, start + ROWS)
            steps.append(self._step(_of_crops(memory, crops[rows]), _of_parents(state, parents[rows]), tokens[rows]))
        if len(steps) == 1:
            return steps[0]
        states = [step.state for step in steps]
        return Step(
            np.concatenate([step.logits for step in steps]),
            _State(np.concatenate([part.hidden for part in states]), np.concatenate([part.cell for part in states])),
            np.concatenate([step.attention for step in steps]),
        )

    def decode_greedy(self, memory: _Memory, state: _State) -> GreedySteps:
        """See `Engine.decode_greedy`."""
        return GreedySteps(*step_greedily(partial(self._step, memory), state, len(memory.values), self.max_length))

    def use_threads(self, count: int) -> None:
        """See `Engine.use_threads`. The first call with another count loads the graphs again."""
        self._begin_after_fork()
        self._local.threads = count

    def _step(self, memory: _Memory, state: _State, tokens: npt.NDArray[np.int64]) -> Step:
        _, step = self._encoder_and_step()
        feeds = dict(zip((*MEMORY, *STATE, "tokens"), (*memory, *state, tokens), strict=True))
        logits, hidden, cell, attention = step.run(None, feeds)
        return Step(logits, _State(hidden, cell), attention.reshape(len(tokens), self._map_rows, -1))

    def _begin(self, threads: int) -> None:
        """In a new process, which has no sessions yet."""
        self._threads = threads
        self._local = threading.local()
        self._lock = threading.Lock()
        self._sessions: dict[int, tuple[ort.InferenceSession, ort.InferenceSession]] = {}
        self._process = os.getpid()

    def _begin_after_fork(self) -> None:
        if self._process != os.getpid():
            self._begin(1)

    def _encoder_and_step(self) -> tuple[ort.InferenceSession, ort.InferenceSession]:
        """The sessions for the threads of the calling thread; in a forked child new ones, of one thread."""
        self._begin_after_fork()
        count = getattr(self._local, "threads", self._threads)
        with self._lock:
            if count not in self._sessions:
                files = self.folder / ENCODER, self.folder / STEP
                sessions = _session(files[0], count), _session(files[1], count)
                # ONNX Runtime does not say what a session loaded, so hash the files right after.
                content = tuple(map(sha256_of, files))
                self._content = self._content or content
                if content != self._content:
                    raise _replaced(self.folder)
                self._sessions[count] = sessions
            return self._sessions[count]

    def _try_out(self) -> None:
        """One step on an empty canvas: the two graphs fit each other, and the metadata fits them."""
        width = self.preprocessing.widths[0]
        canvas = np.zeros((1, self.preprocessing.height, width, 3), np.uint8)
        try:
            self._step(*self.encode(canvas, np.array([width])), np.zeros(1, np.int64))
        except Exception as error:  # ONNX Runtime raises various types
            reason = f"they do not run on a canvas of {canvas.shape[1]} × {width} with map_rows {self._map_rows}"
            raise GraphError(f"{self.folder}: {reason} ({error}); export the model again") from error


def _of_crops(memory: _Memory, crops: npt.NDArray[np.int64]) -> _Memory:
    return _Memory(memory.values[crops], memory.keys[crops], memory.padding[crops])


def _of_parents(state: _State, parents: npt.NDArray[np.int64]) -> _State:
    return _State(state.hidden[parents], state.cell[parents])


def _load_same(folder: Path, threads: int, content: tuple[str, ...]) -> OnnxEngine:
    """The engine of a folder whose graphs still have this content."""
    engine = OnnxEngine(folder, threads)
    if engine._content != content:
        raise _replaced(folder)
    return engine


def _replaced(folder: Path) -> GraphError:
    return GraphError(f"{folder} was replaced while it was in use: load the model again")


def _session(path: Path, threads: int) -> ort.InferenceSession:
    if not path.is_file():
        raise GraphError(f"{path}: no such file; export the model again")
    try:
        return open_session(path, threads)
    except Exception as error:  # ONNX Runtime raises various types
        raise GraphError(f"{path}: not a graph that ONNX Runtime can run ({error}); export it again") from error


def _read_header(folder: Path, encoder: ort.InferenceSession, step: ort.InferenceSession) -> GraphHeader:
    """What `str-app export` wrote into both graphs."""
    texts = [session.get_modelmeta().custom_metadata_map.get(METADATA_KEY) for session in (encoder, step)]
    if texts[0] is None:
        raise GraphError(
            f"{folder / ENCODER}: an ONNX graph that `str-app export` did not write; export the model with it"
        )
    if texts[0] != texts[1]:
        raise GraphError(f"{folder}: {ENCODER} and {STEP} are of different exports; export the model again")
    return GraphHeader.parse(texts[0], folder / ENCODER)


_Signature = dict[str, tuple[str, tuple[int | None, ...]]]  # name → type and shape; None is a size that is not checked
_CARRIED: _Signature = {
    "values": ("float", (None, None, None)),
    "keys": ("float", (None, None, None)),
    "padding": ("bool", (None, None)),
    "hidden": ("float", (None, None)),
    "cell": ("float", (None, None)),
}


def _check_signatures(
    folder: Path, header: GraphHeader, encoder: ort.InferenceSession, step: ort.InferenceSession
) -> None:
    """Raise GraphError unless inputs and outputs are those of an export with this header."""
    crops: _Signature = {
        "canvases": ("uint8", (None, header.preprocessing.height, None, 3)),
        "widths": ("int64", (None,)),
    }
    scores: _Signature = {
        "logits": ("float", (None, header.charset.num_classes)),
        **{f"next_{name}": _CARRIED[name] for name in STATE},
        "attention": ("float", (None, None)),
    }
    _check(f"{folder / ENCODER}: input", encoder.get_inputs(), crops)
    _check(f"{folder / ENCODER}: output", encoder.get_outputs(), _CARRIED)
    _check(f"{folder / STEP}: input", step.get_inputs(), _CARRIED | {"tokens": ("int64", (None,))})
    _check(f"{folder / STEP}: output", step.get_outputs(), scores)


def _check(place: str, tensors: list[ort.NodeArg], expected: _Signature) -> None:
    names = [tensor.name for tensor in tensors]
    if names != list(expected):
        raise GraphError(f"{place}s are {', '.join(names)}, not {', '.join(expected)}; export the model again")
    for tensor, (kind, shape) in zip(tensors, expected.values(), strict=True):
        sizes = tensor.shape
        fits = len(sizes) == len(shape) and all(a is None or a == b for a, b in zip(shape, sizes, strict=True))
        if tensor.type != f"tensor({kind})" or not fits:
            wanted = f"{kind} ({', '.join('any' if size is None else str(size) for size in shape)})"
            raise GraphError(
                f"{place} {tensor.name!r} is {tensor.type} {sizes}, but charset and preprocessing in its metadata need "
                f"{wanted}; export the model again"
            )
