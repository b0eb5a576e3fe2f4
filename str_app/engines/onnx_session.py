"""Graphs opened with ONNX Runtime on a CPU: the options that all of this project's graphs run with."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import onnxruntime as ort

from str_app.cpu import usable_cores

# Sessions that a forked child has from its parent. To delete one would wait for threads that the child does not have.
_inherited: list[ort.InferenceSession] = []

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


class SessionOfProcess:
    """A session that a forked child opens again, with one thread: a fork copies none of ONNX Runtime's threads.

    Args:
        open_with: opens it for a number of threads.
        threads: CPU threads of a call; all usable cores if None.
    """

    def __init__(self, open_with: Callable[[int | None], ort.InferenceSession], threads: int | None) -> None:
        self._open_with = open_with
        self._opened = os.getpid(), open_with(threads)

    def __call__(self) -> ort.InferenceSession:
        """The session of this process."""
        process, session = self._opened
        if process != os.getpid():
            keep_inherited(session)
            session = self._open_with(1)
            self._opened = os.getpid(), session
        return session


def keep_inherited(*sessions: ort.InferenceSession) -> None:
    """Keep sessions of the parent process, which a forked child cannot use, from being deleted."""
    _inherited.extend(sessions)
