"""`load_pipeline` checks its values before it opens a network: here nothing is ever opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from typer.testing import CliRunner

from str_app.cli import app
from str_app.errors import StrAppError
from str_app.photos import load, separator, word_detector
from str_app.photos.load import load_pipeline


class Opened(NamedTuple):
    """A detector that remembers what it was made with."""

    threads: int | None
    longest_side: int
    unit: str = "word"


@pytest.fixture
def nothing_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(*arguments: Any, **options: Any) -> Any:
        pytest.fail(f"opened with {arguments} {options}")

    for name in load.DETECTORS:
        monkeypatch.setitem(load.DETECTORS, name, opened)
    for module in (separator, word_detector):
        monkeypatch.setattr(module, "open_session", opened)


@pytest.mark.parametrize("threads", [0, -3, 50_000, "2", 1.5, True])
def test_threads_are_checked_first(nothing_opens: None, tmp_path: Path, threads: Any) -> None:
    own = tmp_path / "own.onnx"
    own.write_bytes(b"never opened")
    for detector in ("auto", str(own)):
        with pytest.raises(StrAppError, match=f"^threads {threads!r}: must be a whole number from 1 to 1024"):
            load_pipeline(detector, threads)


@pytest.mark.parametrize("verb", [["read", "samples/images/01.jpg"], ["evaluate-photos", "--data"]])
def test_the_command_line_says_so(nothing_opens: None, tmp_path: Path, verb: list[str]) -> None:
    (tmp_path / "a.jpg").touch()
    (tmp_path / "labels.jsonl").write_text('{"image": "a.jpg", "words": []}')
    data = [str(tmp_path)] if verb[-1] == "--data" else []
    result = CliRunner().invoke(app, [*verb, *data, "--threads", "50000"])
    assert result.exit_code == 1
    assert f"str-app {verb[0]}: threads 50000: must be a whole number from 1 to 1024" in result.stderr


@pytest.mark.parametrize("side", [0, -5, 63, 1.5, 1280.0, None, "x", True])
def test_the_longest_side_is_checked_first(nothing_opens: None, side: Any) -> None:
    with pytest.raises(StrAppError, match=f"^longest_side {side!r}: must be a whole number of pixels, at least 64"):
        load_pipeline(longest_side=side)


@pytest.mark.parametrize("side", [64, np.int64(960)])
def test_values_that_are_right(monkeypatch: pytest.MonkeyPatch, side: Any) -> None:
    monkeypatch.setitem(load.DETECTORS, "auto", Opened)
    assert load_pipeline(threads=2, longest_side=side).detector == (2, int(side), "word")
