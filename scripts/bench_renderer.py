"""Crops per second of CPU time on one core: `str-app synth`'s renderer, trdg and SynthTIGER, in turn.

    python -m venv /tmp/trdg && /tmp/trdg/bin/pip install trdg "pillow<10" "numpy<2"
    python -m venv /tmp/tiger && /tmp/tiger/bin/pip install synthtiger "pillow<10" "numpy<2"
    python scripts/bench_renderer.py --trdg /tmp/trdg/bin/python \\
        --synthtiger /tmp/tiger/bin/python --examples synthtiger/examples/synthtiger

All encode their crops as JPEG. trdg draws words about 32 pixels high with the variety it has: blur, skew and waves on a
noisy background; it has no perspective, outlines or character boxes. SynthTIGER uses the template and the horizontal
configuration of its repository (`--examples`, of a clone), 40 to 80 pixels high, with our words, photographs and 200 of
our fonts in place of its own.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import numpy.typing as npt
import typer

from str_app.datasets.renderer import (
    FontSet,
    Renderer,
    Style,
    TextSource,
    encode,
    find_fonts,
    find_photographs,
    frequent_words,
)
from str_app.datasets.renderer.fonts import PRINTABLE

TRDG = """
import io, sys, time
from trdg.generators import GeneratorFromStrings
words = open(sys.argv[1]).read().split()
made = GeneratorFromStrings(words, count=-1, size=32, blur=1, random_blur=True, background_type=0, distorsion_type=1,
                            skewing_angle=5, random_skew=True)
for _ in range(100): next(made)
start, count = time.process_time(), 0
while time.process_time() - start < float(sys.argv[2]):
    next(made)[0].convert("RGB").save(io.BytesIO(), "JPEG", quality=88)
    count += 1
print(count / (time.process_time() - start))
"""
TIGER = """
import io, sys, time
from PIL import Image
from synthtiger import gen
examples, seconds = sys.argv[1], float(sys.argv[2])
config = gen.read_config(examples + "/config_horizontal.yaml")
made = gen.generator(examples + "/template.py", "SynthTiger", config, seed=0)
for _ in range(20): next(made)
start, count = time.process_time(), 0
while time.process_time() - start < seconds:
    _, data = next(made)
    Image.fromarray(data["image"][..., :3].astype("uint8")).save(io.BytesIO(), "JPEG", quality=data["quality"])
    count += 1
print(count / (time.process_time() - start))
"""
TIGER_FONTS = 200


def main(
    trdg: Annotated[Path | None, typer.Option(help="A Python with trdg installed.")] = None,
    synthtiger: Annotated[Path | None, typer.Option(help="A Python with synthtiger installed.")] = None,
    examples: Annotated[Path | None, typer.Option(help="examples/synthtiger of a clone of its repository.")] = None,
    seconds: Annotated[float, typer.Option(help="CPU seconds per round.")] = 10.0,
    rounds: Annotated[int, typer.Option()] = 3,
    warm: Annotated[int, typer.Option(help="Crops drawn first: faces and glyphs are cached.")] = 20_000,
) -> None:
    """Print the medians and their ratios."""
    if (synthtiger is None) != (examples is None):
        sys.exit("--synthtiger and --examples go together: its template and configuration are not in its package")
    cv2.setNumThreads(1)
    words, fonts, photographs = frequent_words(), find_fonts(), find_photographs()
    renderer = Renderer(fonts, TextSource(words), 0, Style(), photographs)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "words.txt").write_text("\n".join(words.draw(rng) for _ in range(5000)))
        commands: dict[str, list[str]] = {}
        if trdg is not None:
            commands["trdg"] = [str(trdg), "-c", TRDG, "words.txt", str(seconds)]
        if synthtiger is not None and examples is not None:
            lay_out_resources(folder, fonts, photographs)
            commands["SynthTIGER"] = [str(synthtiger), "-c", TIGER, str(examples.resolve()), str(seconds)]
        for index in range(warm):
            renderer.render(index)
        own_rates: list[float] = []
        other_rates: dict[str, list[float]] = {name: [] for name in commands}
        index = warm
        for _ in range(rounds):
            start, first = time.process_time(), index
            while time.process_time() - start < seconds:
                encode(renderer.render(index).image)
                index += 1
            own_rates.append((index - first) / (time.process_time() - start))
            for name, command in commands.items():
                other_rates[name].append(crops_a_second(name, command, folder))
    own = statistics.median(own_rates)
    print(f"str-app synth: {own:.0f} crops per second of one core ({rounds} rounds of {seconds:g} s)")
    for name, rates in other_rates.items():
        print(f"{name}: {statistics.median(rates):.1f}; ratio {own / statistics.median(rates):.1f}")


def lay_out_resources(folder: Path, fonts: FontSet, photographs: Sequence[npt.NDArray[np.uint8]]) -> None:
    """Write the files that SynthTIGER's configuration expects in its working directory."""
    resources = folder / "resources"
    for name in ("corpus", "font", "image", "colormap", "charset"):
        (resources / name).mkdir(parents=True)
    for name in ("mjsynth", "synthtext"):
        shutil.copy(folder / "words.txt", resources / "corpus" / f"{name}.txt")
    complete = [
        font for font in fonts.fonts if font.glyphs.issuperset(PRINTABLE) and Path(font.path).suffix in (".ttf", ".otf")
    ]
    for index, font in enumerate(complete[:: max(1, len(complete) // TIGER_FONTS)][:TIGER_FONTS]):
        (resources / "font" / f"{index}{Path(font.path).suffix}").symlink_to(font.path)
        (resources / "font" / f"{index}.txt").write_text("".join(sorted(font.glyphs)))
    for index, photograph in enumerate(photographs):
        cv2.imwrite(str(resources / "image" / f"{index}.jpg"), photograph[:, :, ::-1])
    rng = np.random.default_rng(0)  # grey values and their standard deviations, for two and three parts of a crop
    for parts in (2, 3):
        with (resources / "colormap" / "iiit5k_gray.txt").open("a") as file:
            for _ in range(500):
                file.write("\t".join(f"{grey:.1f}\t20" for grey in sorted(rng.uniform(0, 255, parts))) + "\n")
    (resources / "charset" / "alphanum_special.txt").write_text(PRINTABLE)


def crops_a_second(name: str, command: Sequence[str], folder: Path) -> float:
    """Run another generator in its own Python; it prints its rate."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if process.returncode:
        sys.exit(f"{name} does not run in {command[0]}: {process.stderr.strip().splitlines()[-1]}")
    return float(process.stdout.strip().splitlines()[-1])


if __name__ == "__main__":
    typer.run(main)
