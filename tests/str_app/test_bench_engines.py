"""Engines under the clock: their processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from str_app.bench import engines
from str_app.bench.engines import Contender, measure


def test_a_contender_that_cannot_be_loaded_leaves_no_process_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    class Process:
        def __init__(self, contender: Contender, *_: object) -> None:
            if contender.name == "second":
                raise RuntimeError("cannot be loaded")
            self.name = contender.name

        def end(self) -> None:
            ended.append(self.name)

    ended: list[str] = []
    monkeypatch.setattr(engines, "_Process", Process)
    rivals = [Contender(name, "torch", "fp32") for name in ("first", "second")]
    with pytest.raises(RuntimeError, match="cannot be loaded"):
        measure(rivals, "small", Path("samples"), count=1, turns=1)
    assert ended == ["first"]
