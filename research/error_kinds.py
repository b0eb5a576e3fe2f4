"""Which crops a model misreads, and how: Markdown tables over one or several data sets.

    python research/error_kinds.py --data validation/IC15_train --data validation/SVT_train --model small

Properties refer to the original crop: height in pixels, aspect ratio, length of the label, and detail, the standard
deviation of the Laplacian at the network's input height (low if the crop is blurred or enlarged from few pixels).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from difflib import SequenceMatcher
from pathlib import Path
from typing import Annotated, NamedTuple

import cv2
import numpy as np
import typer

from str_app.datasets.opening import open_source
from str_app.decoding.word_prior import WEIGHT, WordPrior
from str_app.evaluation.metrics import edit_distance, wilson_interval
from str_app.evaluation.protocol import evaluate_source, protocol_of
from str_app.reader import Reader


class Case(NamedTuple):
    """One crop: its label and reading as the protocol compares them, their edit distance, and its properties."""

    label: str
    text: str
    edits: int
    height: int
    aspect: float
    detail: float
    bonus: float


class Property(NamedTuple):
    """A property and the bounds that divide its values into intervals."""

    name: str
    of: Callable[[Case], float]
    bounds: tuple[float, ...]


PROPERTIES = (
    Property("height, pixels", lambda case: case.height, (12, 16, 24, 40, 80)),
    Property("width / height", lambda case: case.aspect, (1, 2, 3, 4, 6)),
    Property("letters and digits", lambda case: len(case.label), (4, 7, 10, 13)),
    Property("detail", lambda case: case.detail, (5, 10, 20, 40)),
    Property("ln(frequency / unknown)", lambda case: case.bonus / WEIGHT, (0.01, 12)),
)


def main(
    data: Annotated[list[Path], typer.Option(help="Data sets; repeatable.")],
    model: Annotated[str, typer.Option(help="A name of `str-app models`, or a checkpoint.")] = "small",
    prior: Annotated[bool, typer.Option(help="Prefer known words and numbers.")] = True,
) -> None:
    """Read the data sets and print the tables."""
    reader, bonus = Reader.load(model, prior=prior), WordPrior.released()
    fold = protocol_of(reader.charset).fold
    network_height = reader.preprocessing.height
    cases = []
    for path in data:
        source = open_source(path)
        for prediction in evaluate_source(reader, source).predictions:
            if prediction.readable:
                image = source[prediction.index].image
                height, width = image.shape[:2]
                label, text = fold(prediction.label), fold(prediction.text)
                edits = edit_distance(label, text)
                properties = height, width / height, detail(image, network_height), bonus(prediction.label)
                cases.append(Case(label, text, edits, *properties))
    wrong = [case for case in cases if case.edits]
    print(f"{len(cases)} crops, {len(wrong)} misread ({100 * len(wrong) / len(cases):.1f} %)")
    for prop in PROPERTIES:
        print(f"\n| {prop.name} | crops | misread, % (95 %) | of all mistakes, % |\n|---|---:|---:|---:|")
        for low, high in zip((0.0, *prop.bounds), (*prop.bounds, float("inf")), strict=True):
            members = [case for case in cases if low <= prop.of(case) < high]
            if members:
                count = sum(case.edits > 0 for case in members)
                interval = "–".join(f"{100 * share:.0f}" for share in wilson_interval(count, len(members)))
                name = f"{low:g}–{high:g}" if np.isfinite(high) else f"from {low:g}"
                share = f"{100 * count / len(members):.0f} ({interval})"
                print(f"| {name} | {len(members)} | {share} | {100 * count / len(wrong):.0f} |")
    print("\n| edits from reading to label | mistakes, % |\n|---|---:|")
    distances = Counter(min(case.edits, 4) for case in wrong)
    for edits, name in ((1, "1"), (2, "2"), (3, "3"), (4, "4 and more")):
        print(f"| {name} | {100 * distances[edits] / len(wrong):.0f} |")
    kinds: Counter[str] = Counter()
    pairs: Counter[str] = Counter()
    for case in wrong:
        if case.edits == 1:
            kind, pair = single_edit(case.label, case.text)
            kinds[kind] += 1
            pairs[pair] += 1
    singles = max(1, sum(kinds.values()))
    print("\nOf the single edits: " + ", ".join(f"{kind} {100 * n / singles:.0f} %" for kind, n in kinds.most_common()))
    print("Most often: " + ", ".join(f"{pair} {count}" for pair, count in pairs.most_common(15)))


def detail(image: np.ndarray, network_height: int) -> float:
    """Standard deviation of the Laplacian of the grey crop at the network's input height."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    width = max(3, round(grey.shape[1] * network_height / grey.shape[0]))
    scaled = cv2.resize(grey, (width, network_height), interpolation=cv2.INTER_AREA)
    return float(cv2.Laplacian(scaled, cv2.CV_32F).std())


def single_edit(label: str, text: str) -> tuple[str, str]:
    """The kind of the single edit between two texts, and its characters as `read → label`."""
    edits = [code for code in SequenceMatcher(None, text, label, autojunk=False).get_opcodes() if code[0] != "equal"]
    kind, i, j, k, m = edits[0]
    name = {"replace": "another character", "delete": "one too many", "insert": "one missing"}[kind]
    return name, f"{text[i:j] or '∅'} → {label[k:m] or '∅'}"


if __name__ == "__main__":
    typer.run(main)
