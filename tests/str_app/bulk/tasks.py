"""Tasks that other processes import."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from str_app.errors import ImageError, StrAppError


class Given(NamedTuple):
    number: int


class Done(NamedTuple):
    number: int
    pid: int


@dataclass(frozen=True)
class Work:
    """Does nothing, but dies at some shards.

    Attributes:
        folder: for marks.
        killed: shards whose first process is killed.
        deadly: shards that kill every process.
        wrong: shards that raise an error.
        endless: shards that never end.
    """

    folder: Path
    killed: tuple[int, ...] = ()
    deadly: tuple[int, ...] = ()
    wrong: tuple[int, ...] = ()
    endless: tuple[int, ...] = ()

    def __call__(self, given: Given) -> Done:
        mark = self.folder / str(given.number)
        if given.number in self.deadly or (given.number in self.killed and not mark.exists()):
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if given.number in self.endless:
            threading.Event().wait()
        if given.number in self.wrong:
            raise StrAppError(f"shard {given.number} has another model") from ImageError("empty", "inner")
        return Done(given.number, os.getpid())
