"""How an engine shall run, checked once for every engine, the command line and the server."""

from __future__ import annotations

import re
from dataclasses import dataclass
from numbers import Integral
from typing import get_args

from str_app.engines.precision import Precision
from str_app.errors import StrAppError

MAX_THREADS = 1024  # each is started, busy or not: a slip of the hand would take all that the machine can start


def is_whole(value: object, least: int) -> bool:
    """Whether a value is a whole number of any type, NumPy's too, and at least `least`."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


@dataclass(frozen=True)
class EngineOptions:
    """How an engine shall run; one that has no use for an option ignores it.

    Attributes:
        device: `"cpu"`, `"cuda"`, `"cuda:1"`, …
        threads: CPU threads, up to `MAX_THREADS`, with torch a setting of the whole process; None: the engine's own
            choice.
        precision: `"int8"` or `"fp32"` of exported graphs, `"bf16"` or `"fp32"` of torch's backbone. `"auto"` is that
            of the graphs where there are any; with torch bfloat16 on a CPU that has instructions for it, where it takes
            half the time, else float32.

    Raises:
        StrAppError: a value that no engine takes.
    """

    device: str = "cpu"
    threads: int | None = None
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        if not isinstance(self.device, str) or not re.fullmatch(r"cpu|cuda(:\d+)?", self.device):
            raise StrAppError(f"device {self.device!r}: must be cpu, cuda or cuda:N")
        if self.threads is not None and (type(self.threads) is not int or not 1 <= self.threads <= MAX_THREADS):
            raise StrAppError(f"threads {self.threads!r}: must be a whole number from 1 to {MAX_THREADS}")
        if self.precision not in get_args(Precision):
            raise StrAppError(f"precision {self.precision!r} is not one of {', '.join(get_args(Precision))}")
