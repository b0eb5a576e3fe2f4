"""How lines too long for one canvas are read: right, too long, and wrong but sure, as a Markdown table.

    python research/seams.py --count 14 --seed 11 --seed 12
    python research/seams.py --count 40 --shortest 41 --longest 90 --gap 0

Plain rendered lines, by default of 12 to 40 characters, spaced by 0 to 25 pixels besides what the font leaves; letters
are 28 pixels high.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import typer

from str_app.datasets.renderer import find_fonts, frequent_words
from str_app.datasets.renderer.probes import Probe, ProbeSource
from str_app.reader import Reader

GAPS = (0, 4, 8, 12, 18, 25)
SURE = 0.8


class Line(NamedTuple):
    """A line's text and reading, in lower case."""

    label: str
    text: str
    confidence: float


def main(
    count: Annotated[int, typer.Option(help="Lines of each kind and gap.")] = 14,
    shortest: Annotated[int, typer.Option(help="Fewest characters of a line.")] = 12,
    longest: Annotated[int, typer.Option(help="Most characters of a line.")] = 40,
    gap: Annotated[
        list[int] | None, typer.Option(help=f"Pixels between characters; repeatable. Default: {GAPS}.")
    ] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Seeds of the probes; repeatable. Default: 1.")] = None,
    model: Annotated[str, typer.Option(help="A name of `str-app models`, or a checkpoint.")] = "small",
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
) -> None:
    """Render, read, and print the table."""
    reader = Reader.load(model, precision="fp32", threads=threads)
    fonts, words = find_fonts(None), frequent_words()
    print(f"| lines | n | right, % | too long, % | wrong | of these above {SURE}, % |\n|---|---:|---:|---:|---:|---:|")
    every: list[Line] = []
    for kind in ("digits", "codes", "words"):
        lines: list[Line] = []
        for start in seed or [1]:
            for pixels in gap or GAPS:
                probe = Probe(length=(shortest, longest), text=kind, gap=pixels, letter_height=28)
                source = ProbeSource(fonts, words, probe, count, 1000 * start + pixels)
                samples = [source[index] for index in range(count)]
                for sample, reading in zip(samples, reader.read_crops(sample.image for sample in samples), strict=True):
                    lines.append(Line(sample.text.lower(), reading.text.lower(), reading.confidence))
        print(row(kind, lines))
        every += lines
    print(row("all", every))


def row(name: str, lines: list[Line]) -> str:
    """A row of the table."""
    wrong = [line for line in lines if line.text != line.label]
    sure = sum(line.confidence > SURE for line in wrong)
    longer = sum(len(line.text) > len(line.label) for line in wrong)
    right = 100 * (1 - len(wrong) / len(lines))
    return (
        f"| {name} | {len(lines)} | {right:.1f} | {100 * longer / len(lines):.1f} | {len(wrong)} | "
        f"{100 * sure / max(1, len(wrong)):.1f} |"
    )


if __name__ == "__main__":
    typer.run(main)
