"""`python -m tests.serve.held_server`: a server by the environment's settings; a line on stdin lets a batch through.

Where STR_APP_MODEL names a file, its content is the name of the model, loaded anew at each reload.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from str_app.reader import Fitted, Reader, Reading
from str_app.serve.http.server import run
from str_app.serve.settings import Settings
from tests.str_app.fake_engine import FakeEngine


class StdinReader(Reader):
    """Waits for a line before each batch after the warm-up: one, then 1, 2, 3, 4, 6, 8, 12, 16, 24, 32."""

    warm_ups = 11

    def read_fitted(self, fitted: Sequence[Fitted], **options: Any) -> list[Reading]:
        if self.warm_ups:
            self.warm_ups -= 1
        else:
            sys.stdin.readline()
        return super().read_fitted(fitted, **options)


def load() -> Reader:
    reader = StdinReader(FakeEngine())
    if settings.model != "small":
        reader.engine.name = Path(settings.model).read_text()
    return reader


if __name__ == "__main__":
    settings = Settings()
    run(settings, load)
