"""Crops a second of CPU time on one core: `str-app synth`'s renderer and trdg, in turn.

    python -m venv /tmp/trdg && /tmp/trdg/bin/pip install trdg "pillow<10" "numpy<2"
    python scripts/bench_renderer.py --trdg /tmp/trdg/bin/python

Both draw words at 32 pixels or so and encode them as JPEG. trdg is asked for the variety it has: blur, skew and waves
on a noisy ground; it knows neither perspective nor outlines nor where the characters are.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer

from datasets.renderer import (
    Renderer,
    Style,
    TextSource,
    WordList,
    encode,
    find_fonts,
    find_photographs,
    frequent_words,
)

TRDG = """
import io, sys, time
from trdg.generators import GeneratorFromStrings
words = open(sys.argv[1]).read().split()
made = GeneratorFromStrings(words, count=-1, size=32, blur=1, random_blur=True, background_type=0, distorsion_type=1,
                            skewing_angle=5, random_skew=True)
for _ in range(100): next(made)
began, count = time.process_time(), 0
while time.process_time() - began < float(sys.argv[2]):
    next(made)[0].convert("RGB").save(io.BytesIO(), "JPEG", quality=88)
    count += 1
print(count / (time.process_time() - began))
"""


def main(
    trdg: Annotated[Path | None, typer.Option(help="A Python with trdg installed.")] = None,
    seconds: Annotated[float, typer.Option(help="CPU time of a round.")] = 10.0,
    rounds: Annotated[int, typer.Option()] = 3,
    warm: Annotated[int, typer.Option(help="Crops drawn before: faces and glyphs are kept once drawn.")] = 20_000,
) -> None:
    """Print the medians and their ratio."""
    cv2.setNumThreads(1)
    words = frequent_words()
    renderer = Renderer(find_fonts(), TextSource(words), 0, Style(), find_photographs())
    for index in range(warm):
        renderer.render(index)
    ours, theirs, first = [], [], warm
    for _ in range(rounds):
        began, index = time.process_time(), first
        while time.process_time() - began < seconds:
            encode(renderer.render(index).image)
            index += 1
        ours.append((index - first) / (time.process_time() - began))
        first = index
        if trdg is not None:
            theirs.append(_trdg(trdg, words, seconds))
    print(f"str-app synth: {statistics.median(ours):.0f} crops a second of one core ({rounds} rounds of {seconds:g} s)")
    if theirs:
        ratio = statistics.median(ours) / statistics.median(theirs)
        print(f"trdg: {statistics.median(theirs):.0f}; ratio {ratio:.1f}")


def _trdg(python: Path, words: WordList, seconds: float) -> float:
    rng = np.random.default_rng(0)
    text = "\n".join(words.draw(rng) for _ in range(5000))
    path = Path(f"/tmp/trdg-words-{os.getpid()}.txt")
    path.write_text(text)
    try:
        done = subprocess.run(
            [str(python), "-c", TRDG, str(path), str(seconds)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
    finally:
        path.unlink()
    if done.returncode:
        sys.exit(f"trdg does not run in {python}: {done.stderr.strip().splitlines()[-1]}")
    return float(done.stdout.strip().splitlines()[-1])


if __name__ == "__main__":
    typer.run(main)
