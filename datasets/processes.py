"""What worker processes have in common."""

from __future__ import annotations

import multiprocessing
import os
import threading
from multiprocessing.connection import Connection, wait


def end_with_parent(lifeline: Connection | None = None) -> None:
    """Let this worker process end when its parent has, even if that was killed: a pool's process would wait forever.

    Args:
        lifeline: it ends too when the parent closes its end of this pipe.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    signals = [parent.sentinel, *([lifeline] if lifeline else [])]
    threading.Thread(target=_wait_and_end, args=(signals,), daemon=True).start()


def _wait_and_end(signals: list[int | Connection]) -> None:
    wait(signals)
    os._exit(1)
