"""Graphs opened with ONNX Runtime on a CPU: the options that all of this project's graphs run with."""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Callable
from pathlib import Path

import onnxruntime as ort

from str_app.cpu import usable_cores

_opened: weakref.WeakSet[ort.InferenceSession] = weakref.WeakSet()

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
    session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    _opened.add(session)
    return session


def _keep_inherited() -> None:
    """Never delete the parent's sessions, not even at exit: that waits for threads which a fork does not copy."""
    for session in list(_opened):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_inherited)


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
            session = self._open_with(1)
            self._opened = os.getpid(), session
        return session
