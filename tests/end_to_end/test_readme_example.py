"""The README's example of a refined LSTM trains, and is one line away from torch's."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest
import torch

README = Path(__file__).resolve().parents[2] / "README.md"


@pytest.mark.parametrize("kind", ["refined", "torch"])
def test_one_line_is_changed_and_it_trains(kind: str) -> None:
    after = README.read_text(encoding="utf-8").split("## Refined gates elsewhere")[1]
    example = after.split("```python\n")[1].split("```")[0]
    if kind == "torch":
        (line,) = (line for line in example.splitlines() if "# was: " in line)
        example = example.replace(line, "layer = " + line.split("# was: ")[1])
    torch.manual_seed(0)
    names: dict[str, list[float]] = {}
    exec(example, names)
    first, last = statistics.fmean(names["losses"][:10]), statistics.fmean(names["losses"][-10:])
    assert last < 0.5 * first
