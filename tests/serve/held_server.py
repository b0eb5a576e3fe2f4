"""`python -m tests.serve.held_server`: a server by the environment's settings; a line on stdin lets a batch through."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import numpy as np

from serve.server import run
from serve.settings import Settings
from str_app.reader import Reader, Reading
from tests.str_app.fake_engine import FakeEngine


class StdinReader(Reader):
    """Waits for a line before each batch after the warm-up over 1, 2, 4, 8, 16, 32."""

    warm_ups = 6

    def read_crops(self, crops: Iterable[np.ndarray], **options: object) -> list[Reading]:
        if self.warm_ups:
            self.warm_ups -= 1
        else:
            sys.stdin.readline()
        return super().read_crops(crops)


if __name__ == "__main__":
    run(Settings(), StdinReader(FakeEngine()))
