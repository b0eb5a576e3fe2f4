"""Graphs opened with ONNX Runtime on a CPU: the options that all of this project's graphs run with."""

from __future__ import annotations

from pathlib import Path

import onnxruntime as ort

from str_app.cpu import usable_cores

ort.set_default_logger_severity(3)  # errors alone: warnings are about the processor's identification


def open_session(graph: str | Path | bytes, threads: int | None = None, *, arena: bool = True) -> ort.InferenceSession:
    """A session that runs a graph.

    Args:
        graph: its file, or the file's content.
        threads: CPU threads of a call; all usable cores if None.
        arena: keep freed memory for the next call. Where inputs have many sizes, it would grow for every one of them.

    Raises:
        Exception: of various types of ONNX Runtime, for a file that is missing, damaged or no graph.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or usable_cores()
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # plans memory for one shape, and shapes vary
    options.enable_cpu_mem_arena = arena
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    source = graph if isinstance(graph, bytes) else str(graph)
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
