"""Speed and memory of a reader by engine and precision, and of PP-OCR's recogniser where rapidocr is installed.

Each contender runs in a process of its own, pinned to one core. They take turns at the same crops, since only ratios
within one run mean something on a machine that is not idle; every figure is the median over the turns.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from str_app.datasets.opening import open_source
from str_app.datasets.sample import DataError
from str_app.engines.graph_folder import graph_folder, has_graphs, weights_file
from str_app.errors import StrAppError
from str_app.evaluation.protocol import PROTOCOLS
from str_app.evaluation.sources import evenly_spaced
from str_app.installation import provenance

Crops = Sequence[npt.NDArray[np.uint8]]
PEER = "PP-OCRv6-small (rapidocr)"
BATCH = 32


class Contender(NamedTuple):
    """What reads: an engine of `str_app.engines.load` in a precision, or the peer, which has none."""

    name: str
    engine: str = ""
    precision: str = ""


class Result(NamedTuple):
    """Of one contender.

    Attributes:
        name: of the contender.
        single, batched: crops a second, one by one and in batches of `BATCH`.
        first_reading_s: from the start of Python to the first text.
        megabytes: resident after all turns, largest value, without the crops.
        accuracy: percentage of the crops read right, under the field's protocol.
    """

    name: str
    single: float
    batched: float
    first_reading_s: float
    megabytes: float
    accuracy: float


def contenders(model: str) -> list[Contender]:
    """Those that can run here."""
    found = [Contender("exported graphs", "onnx", "auto")] if has_graphs(graph_folder(model)) else []
    if find_spec("torch") is not None and not weights_file(model).is_dir():
        import torch

        from str_app.engines.precision import has_bf16

        precisions = ("bf16", "fp32") if has_bf16(torch.device("cpu")) else ("fp32",)
        found += [Contender(f"torch, {precision}", "torch", precision) for precision in precisions]
    return [*found, Contender(PEER)] if find_spec("rapidocr") is not None else found


def measure(
    rivals: Sequence[Contender],
    model: str,
    data: Path,
    count: int,
    turns: int,
    on_turn: Callable[[], None] = lambda: None,
) -> list[Result]:
    """Time contenders.

    Args:
        rivals: from `contenders`.
        model: see `Reader.load`.
        data: labelled crops.
        count: how many of them, evenly spaced.
        turns: rounds of all contenders.
        on_turn: called after each contender's turn.

    Raises:
        Exception: from a contender's process.
    """
    processes: list[_Process] = []
    try:
        for contender in rivals:
            processes.append(_Process(contender, model, data, count))
        for _ in range(turns):
            for process in processes:
                process.take_turn()
                on_turn()
        return [process.result() for process in processes]
    finally:
        for process in processes:
            process.end()


class _Process:
    def __init__(self, contender: Contender, model: str, data: Path, count: int) -> None:
        self._contender = contender
        self._turns: list[tuple[float, float]] = []
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_run, args=(theirs, contender, model, data, count), daemon=True)
        started = time.time()
        with theirs:
            self._process.start()
        self._first_reading_s = self._receive() - started

    def take_turn(self) -> None:
        self._connection.send("turn")
        self._turns.append(self._receive())

    def result(self) -> Result:
        self._connection.send("end")
        megabytes, accuracy = self._receive()
        single, batched = (statistics.median(speeds) for speeds in zip(*self._turns, strict=True))
        return Result(self._contender.name, single, batched, self._first_reading_s, megabytes, accuracy)

    def end(self) -> None:
        self._connection.close()
        self._process.join()

    def _receive(self) -> Any:
        try:
            message = self._connection.recv()
        except (EOFError, OSError):
            raise StrAppError(f"{self._contender.name}: its process was killed") from None
        if isinstance(message, Exception):
            raise message
        return message


def _run(connection: Connection, contender: Contender, model: str, data: Path, count: int) -> None:
    """A contender's process: the time of its first reading, then speeds at each turn, then memory and accuracy."""
    try:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        read = _peer() if contender.name == PEER else _reader(contender, model)
        source = open_source(data)
        indices = evenly_spaced(len(source), count)
        first = source[indices[0]].image
        read([first])
        connection.send(time.time())
        before = _resident_megabytes()
        samples = [source[index] for index in indices]
        crops = [sample.image for sample in samples]
        of_crops = _resident_megabytes() - before
        texts = [read([crop])[0] for crop in crops]
        peak = 0.0
        while _next(connection) == "turn":
            single = _speed(lambda: [read([crop]) for crop in crops], len(crops))
            batched = _speed(lambda: read(crops), len(crops))
            peak = max(peak, _resident_megabytes())
            connection.send((single, batched))
        fold = PROTOCOLS["field"].fold
        right = [fold(text) == fold(sample.text) for text, sample in zip(texts, samples, strict=True)]
        connection.send((peak - of_crops, 100 * statistics.mean(right)))
    except Exception as error:
        text = f"{contender.name}: {error}"
        connection.send(StrAppError(text) if isinstance(error, StrAppError | DataError) else RuntimeError(text))


def _next(connection: Connection) -> str:
    try:
        return str(connection.recv())
    except (EOFError, OSError):  # the parent has ended
        raise SystemExit from None


def _reader(contender: Contender, model: str) -> Callable[[Crops], list[str]]:
    from str_app.reader import Reader

    options: dict[str, Any] = {"engine": contender.engine, "precision": contender.precision}
    reader = Reader.load(model, threads=1, batch_size=BATCH, **options)
    return lambda crops: [reading.text for reading in reader.read_crops(crops)]


def _peer() -> Callable[[Crops], list[str]]:
    """PP-OCR's recogniser alone, as rapidocr runs it, on one thread and in the same batches."""
    from rapidocr import RapidOCR
    from rapidocr.ch_ppocr_rec.typings import TextRecInput

    engine: Any = RapidOCR(
        params={
            "EngineConfig.onnxruntime.intra_op_num_threads": 1,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
            "Rec.rec_batch_num": BATCH,
            "Global.log_level": "error",
        }
    )
    engine(np.zeros((48, 96, 3), np.uint8), use_det=False, use_cls=False, use_rec=True)  # loads the recogniser
    return lambda crops: list(engine.text_rec(TextRecInput(img=[crop[:, :, ::-1] for crop in crops])).txts)


def _speed(work: Callable[[], Any], count: int) -> float:
    started = time.perf_counter()
    work()
    return count / (time.perf_counter() - started)


def _resident_megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def as_json(results: Sequence[Result], data: str, count: int, turns: int) -> dict[str, Any]:
    """The content of `--json`."""
    return {
        "made": provenance(),
        "data": data,
        "count": count,
        "turns": turns,
        "results": [result._asdict() for result in results],
    }


def as_markdown(results: Sequence[Result]) -> str:
    """A table; speeds also relative to the peer's, or to the last contender's."""
    base = results[-1]
    rows = ["| | one by one | in batches | first reading, s | MB | right, % |", "|---|---:|---:|---:|---:|---:|"]
    rows += [
        f"| {result.name} | {result.single:.0f} ({result.single / base.single:.1f}×) | {result.batched:.0f} "
        f"({result.batched / base.batched:.1f}×) | {result.first_reading_s:.1f} | {result.megabytes:.0f} | "
        f"{result.accuracy:.1f} |"
        for result in results
    ]
    return "\n".join(rows)
