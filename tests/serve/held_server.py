"""`python -m tests.serve.held_server`: a server by the environment's settings; a line on stdin lets a batch through.

Where STR_APP_MODEL names a file, its content is the name of the model, loaded anew at each reload.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from str_app.reader import Reader
from str_app.reading import Reading
from str_app.serve.http.server import run
from str_app.serve.settings import Settings
from str_app.views import Canvas
from tests.str_app.fake_engine import AS_PAINTED, FakeEngine


class StdinReader(Reader):
    """Waits for a line before each batch; the warm-up does not come this way."""

    def read_canvases(self, canvases: Sequence[Canvas], **options: Any) -> list[Reading]:
        sys.stdin.readline()
        return super().read_canvases(canvases, **options)


def load() -> Reader:
    engine = FakeEngine()
    if settings.model != "small":
        engine.name = Path(settings.model).read_text()
    return StdinReader(engine, policy=AS_PAINTED)


if __name__ == "__main__":
    settings = Settings()
    run(settings, load)
