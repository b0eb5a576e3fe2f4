"""How processes that load training data start."""

from __future__ import annotations

import signal

import cv2
import torch

from str_app.datasets.processes import end_with_parent
from str_app.training.state import STOPPING


def start_worker(worker: int) -> None:
    """The `worker_init_fn` of a run's DataLoader."""
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    end_with_parent()  # at once: a run that is started again needs the lock, which is inherited
    # Ctrl-C, a closed terminal and service managers signal the whole process group. The main process decides when to
    # stop, and a worker killed by the same signal would raise an error there.
    for signum in STOPPING:
        signal.signal(signum, signal.SIG_IGN)
