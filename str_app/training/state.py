"""The training state, everything that a run needs to continue, and the signals that ask it to stop."""

from __future__ import annotations

import io
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Any

import torch

from str_app.datasets.locks import lock_file
from str_app.errors import StrAppError, writing
from str_app.models.checkpoint import replace_file

LOCK = ".str-app-train.lock"
# Ctrl-C, a service manager, a closed terminal; Windows has no SIGHUP.
STOPPING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


def lock_run(folder: Path) -> IO[str]:
    """Keep other processes from training in the folder, which exists, until the returned file is closed.

    Raises:
        StrAppError: another process trains there.
    """
    try:
        return lock_file(folder / LOCK)
    except BlockingIOError:
        raise StrAppError(f"{folder}: another process trains there; choose another --out") from None


def naming(path: Path) -> AbstractContextManager[None]:
    """See `writing`; for files of a run."""
    return writing(path, "; the previous version of the file, if any, is kept")


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collect SIGINT, SIGTERM and SIGHUP, unless ignored; the second signal of a kind has its usual effect."""
    received: list[int] = []
    previous: dict[int, Any] = {}

    def record(signum: int, frame: object) -> None:
        received.append(signum)
        signal.signal(signum, previous[signum])

    for signum in STOPPING:
        if signal.getsignal(signum) is not signal.SIG_IGN:  # as SIGINT is in a script's background, SIGHUP under nohup
            previous[signum] = signal.signal(signum, record)
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write tensors, numbers, strings and containers of them, replacing `path` atomically.

    Raises:
        StrAppError: the file cannot be written.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    with naming(path):
        replace_file(path, buffer.getvalue())


def load_state(path: Path) -> dict[str, Any]:
    """Load what `save_state` wrote. Nothing in the file is executed.

    Raises:
        StrAppError: the file is missing or damaged.
    """
    if not path.is_file():
        raise StrAppError(f"{path}: no such file, so there is no run to resume; leave out --resume to start one")
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many kinds of exceptions for a damaged file
        raise StrAppError(
            f"{path}: damaged training state ({error}); start a new run with --from {path.parent}/best.safetensors"
        ) from error
    return state
