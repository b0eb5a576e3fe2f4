"""Tables of results in README.md, docs/ and the model card, made from docs/results/*.json.

    python scripts/result_tables.py            # rewrite the text between `<!-- table: NAME -->` and `<!-- end -->`
    python scripts/result_tables.py models     # first count parameters, GMAC and bytes into docs/results/models.json
    python scripts/result_tables.py studies runs/study-adding runs/study-copy   # first take in these reports

The JSON files are written by the commands in docs/how-to/release.md and by `str-app study`; figures of others, with
their sources, are in peers.json. `tests/end_to_end/test_result_tables.py` fails if a page differs from what this script
writes.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts import study_tables
from str_app.bench.engines import PEER

ROOT = study_tables.ROOT
RESULTS = ROOT / "docs/results"
BLOCK = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
# Set → samples of the complete test set; of IC13, of the subset most figures are for.
SETS = {"IIIT5K": 3000, "SVT": 647, "IC13": 1015, "IC15": 2077, "SVTP": 645}
# Results of `str-app bench engines` → the words that were read; on a processor with AMX, and on one with AVX2 alone.
SPEEDS = {"engines": "clear", "engines-blurred": "blurred"}
SPEEDS_AVX2 = {"engines-avx2": "clear", "engines-avx2-blurred": "blurred"}
ENGINES = {"int8": "graphs in 8 bits, the default on a CPU", "fp32": "torch, float32"}


def load(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown; all columns but the first aligned to the right."""
    rule = "|" + "|".join(["---", *["---:"] * (len(heading) - 1)]) + "|"
    return "\n".join([_row(heading), rule, *map(_row, rows)])


def _row(cells: Sequence[str]) -> str:
    return "|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|"


def accuracies(scores: Mapping[str, Any]) -> dict[str, dict[int, float]]:
    """Set → number of samples → accuracy."""
    found: dict[str, dict[int, float]] = {}
    for row in scores["sets"]:
        found.setdefault(row["name"], {})[row["n"]] = row["accuracy"]
    return found


def peer_accuracies(peer: Mapping[str, Any]) -> dict[str, dict[int, float]]:
    """The same of an entry of peers.json, whose keys are `SET` or `SET (samples)`."""
    found: dict[str, dict[int, float]] = {}
    for key, value in peer.items():
        match = re.fullmatch(r"(\w+)(?: \((\d+)\))?", key)
        if match and match[1] in SETS:
            found.setdefault(match[1], {})[int(match[2] or SETS[match[1]])] = value
    return found


def cell(by_count: Mapping[int, float], count: int) -> str:
    """Accuracies on a set, with the number of samples where it is not `count`."""
    order = sorted(by_count, key=lambda n: n != count)
    return ", ".join(f"{by_count[n]:.1f}" + ("" if n == count else f" ({n})") for n in order)


def readme() -> str:
    ours, peers = load("benchmarks-int8"), load("peers")
    named = ("PP-OCRv6-small", "PARSeq", "Tesseract 5.3")
    others = [peers["recognisers"][name] for name in named]
    rows: list[list[str]] = []
    for name in ("IIIT5K", "SVT", "IC15"):
        count = SETS[name]
        values = [accuracies(ours)[name][count], *(peer_accuracies(peer).get(name, {}).get(count) for peer in others)]
        measured = [
            value for value, peer in zip(values, [{"measured": ""}, *others], strict=True) if "measured" in peer
        ]
        best = max(value for value in measured if value is not None)
        cells = [f"**{value:.1f}**" if value == best else f"{value:.1f}" if value else "" for value in values]
        cells[2] += " (published)" if cells[2] else ""
        rows.append([f"{name}, words right of {count:,}, %", *cells])
    photographs = load("photographs")
    labelled, h_mean = photographs["end_to_end"]["labelled"], photographs["end_to_end"]["h_mean"]
    theirs = next(iter(peers["photographs"].values()))["end_to_end"]["h_mean"]
    photo_row = (
        f"ICDAR 2015 photographs 1–100: {labelled} words, found and read, harmonic mean of precision and recall, %"
    )
    rows.append([photo_row, *bold_best(h_mean, theirs, 1), "", ""])
    for name, words in SPEEDS.items():
        fastest = bold_best(speeds(name)["exported graphs"], speeds(name)[PEER], 0)
        rows.append([f"{words} words per second, one core, one by one", *fastest, "", ""])
    sizes = [str(peer["megabytes"]) for peer in others]
    sizes[1] += f" ({others[1]['parameters']}M parameters)"
    rows.append(["weights, MB", f"{load('models')['small']['graphs'] / 1e6:.1f}", *sizes])
    alone = [(words, speeds(name)) for name, words in SPEEDS_AVX2.items()]
    elsewhere = " and ".join(f"{one['exported graphs']:.0f} {words} ({one[PEER]:.0f})" for words, one in alone)
    # Crops of 0.4 to 0.8 got variants after the blurred words were timed; a new measurement has them.
    timed_before = load("engines-blurred")["made"]["date"] < "2026-12-01"
    slower = "since 2026-12-01 blurred words take about a tenth longer; " if timed_before else ""
    note = (
        f"Words right: `str-app evaluate --data benchmarks --engine onnx`, {ours['made']['date']}; peers with the same "
        f"scorer on the same\ncrops. Speed: IIIT5K_train (clear) and IC15_train (blurred), `str-app bench engines`, "
        f"{made(load('engines'))};\n{slower}with AVX2 only, words per second (of\nPP-OCRv6-small): {elsewhere} "
        "([speed](docs/how-to/export.md#speed)).\nBold: the best that was measured here."
    )
    return table(["", "str-app `small`", *named], rows) + "\n\n" + note


def speeds(name: str) -> dict[str, float]:
    """Crops per second one by one, by what reads."""
    return {row["name"]: row["single"] for row in load(name)["results"]}


def bold_best(ours: float, theirs: float, digits: int) -> list[str]:
    return [
        f"**{value:.{digits}f}**" if value == max(ours, theirs) else f"{value:.{digits}f}" for value in (ours, theirs)
    ]


def made(results: Mapping[str, Any]) -> str:
    return f"{results['made']['processor']}, {results['made']['date']}"


def engine_accuracy() -> str:
    """Accuracy and ECE of `small` by engine."""
    rows = []
    for engine, what in ENGINES.items():
        scores, validation = load(f"benchmarks-{engine}"), load(f"validation-{engine}")
        by_set = accuracies(scores)
        cells = [f"{by_set[name][count]:.2f}" for name, count in SETS.items()]
        cells += [f"{scores['weighted']:.2f}", f"{scores['total']['ece']:.2f}"]
        rows.append([what, *cells, f"{validation['weighted']:.2f}", f"{validation['total']['ece']:.2f}"])
    total, validated = load("benchmarks-int8")["total"]["n"], load("validation-int8")["total"]["n"]
    heading = ["", *(f"{name} ({count})" for name, count in SETS.items()), f"total ({total})", "ECE"]
    return table([*heading, f"validation ({validated})", "ECE"], rows) + dated(load("benchmarks-int8"))


def dated(results: Mapping[str, Any]) -> str:
    return f"\n\nMeasured on {results['made']['date']}."


def published() -> str:
    """`small` beside other recognisers."""
    rows = []
    for name, peer in load("peers")["recognisers"].items():
        cells = [cell(peer_accuracies(peer).get(key, {}), count) for key, count in SETS.items()]
        size = f"{peer['parameters']}M" if "parameters" in peer else ""
        origin = f"measured here: {peer['measured']}" if "measured" in peer else peer["source"]
        rows.append([name, peer["data"], *cells, size, origin])
    ours = accuracies(load("benchmarks-int8"))
    size = f"{load('models')['small']['parameters'] / 1e6:.1f}M"
    cells = [cell(ours[key], count) for key, count in SETS.items()]
    rows.append(["**`small`**, 8 bits", "own renderings", *cells, size, "measured here"])
    return table(["model", "training data", *SETS, "parameters", "source"], rows)


def models() -> str:
    counted = load("models")
    small = counted["small"]
    size = f"{small['weights'] / 1e6:.1f} MB in float16, {small['graphs'] / 1e6:.1f} MB as graphs in 8 bits"
    rows = [
        ["parameters", *(f"{counted[name]['parameters'] / 1e6:.1f}M" for name in ("small", "base"))],
        ["GMAC of the backbone, canvas of 96 columns", *(f"{counted[name]['gmac']:.2f}" for name in ("small", "base"))],
        ["size", size, "no weights are released: for training from scratch"],
        ["charset", "94 printable ASCII characters", "the same"],
    ]
    return table(["", "`small`", "`base`"], rows)


def scores_table(name: str) -> Callable[[], str]:
    """All rows of a file of `str-app evaluate --json`."""

    def make() -> str:
        scores = load(name)
        rows = []
        for row in [*scores["sets"], scores["total"]]:
            label = row["name"] + (f" ({row['subset']})" if row["subset"] else "")
            if row["name"] in SETS and row["n"] != SETS[row["name"]]:
                label += " †"
            low, high = row["interval"]
            values = (row["accuracy_62"], row["accuracy_94"], row["ned"], row["cer"], row["ece"])
            cells = [str(row["n"]), f"{row['accuracy']:.2f}", f"{low:.1f}–{high:.1f}", *(f"{v:.2f}" for v in values)]
            rows.append([label, *cells, str(row["unreadable"]), str(row["dropped"])])
        rows.append(["plain mean", "", f"{scores['mean']:.2f}", *[""] * 8])
        columns = ("n", "accuracy", "95 %", "62", "94", "1−NED", "CER", "ECE", "unreadable", "dropped")
        return table(["set", *columns], rows) + dated(scores)

    return make


def speed(files: Mapping[str, str]) -> str:
    by_words = [load(name)["results"] for name in files]
    rows = []
    for of_contender in zip(*by_words, strict=True):
        cells = [
            f"{row[key]:.0f} ({row[key] / results[-1][key]:.1f}×)"
            for row, results in zip(of_contender, by_words, strict=True)
            for key in ("single", "batched")
        ]
        first = of_contender[0]
        rows.append([first["name"], *cells, f"{first['first_reading_s']:.1f}", f"{first['megabytes']:.0f}"])
    columns = [f"{words}, {how}" for words in files.values() for how in ("one by one", "in batches of 32")]
    made_with = load(next(iter(files)))
    versions = ", ".join(f"{name} {made_with['made'][name]}" for name in ("onnxruntime", "torch"))
    note = f"Crops per second, one core; {made(made_with)}, {versions}."
    return table(["", *columns, "first reading, s", "memory, MB"], rows) + "\n\n" + note


def confidence() -> str:
    """Accuracy at coverages, and thresholds for accuracies."""
    scores = load("validation-fp32")
    rows = []
    for row in scores["sets"]:
        kept = [f"{row['accuracy_at_coverage'][share]:.1f}" for share in ("80", "90", "95", "100")]
        limits = [row["threshold_for_accuracy"][goal] for goal in ("99", "97", "95")]
        needed = [f"≥ {at['confidence']:.3f} keeps {at['coverage']:.1f} %" if at else "never" for at in limits]
        rows.append([row["name"], str(row["n"]), *kept, *needed, f"{row['aurc']:.2f}", f"{row['ece']:.1f}"])
    total = scores["total"]
    kept = [f"{total['accuracy_at_coverage'][share]:.1f}" for share in ("80", "90", "100")]
    rows.append(["all together", str(total["n"]), *kept[:2], "", kept[2], "", "", "", "", f"{total['ece']:.1f}"])
    heading = ["set", "n", "most confident 80 %", "90 %", "95 %", "all"]
    goals = ["for 99 % right", "for 97 % right", "for 95 % right", "AURC", "ECE"]
    return table([*heading, *goals], rows) + dated(scores)


def photographs() -> str:
    results = {
        "`str-app evaluate-photos --data photos --threads 1`": load("photographs"),
        "the same with `--longest-side 960`": load("photographs-960"),
        **load("peers")["photographs"],
    }
    keys = ("precision", "recall", "h_mean")
    rows = []
    for name, scores in results.items():
        cells = [f"{scores[task][key]:.1f}" for task in ("detection", "end_to_end") for key in keys]
        rows.append([name, *cells, f"{scores['seconds']['median']:.2f}" if "seconds" in scores else ""])
    columns = ["precision, %", "recall, %", "harmonic mean, %"]
    heading = ["", *(f"{what}: {column}" for what in ("found", "found and read") for column in columns)]
    return table([*heading, "median seconds a photograph"], rows) + dated(load("photographs"))


_TABLES: dict[str, Callable[[], str]] = {
    "readme": readme,
    "accuracy": engine_accuracy,
    "published": published,
    "models": models,
    "benchmarks": scores_table("benchmarks-fp32"),
    "validation": scores_table("validation-fp32"),
    "speed": partial(speed, SPEEDS),
    "speed-avx2": partial(speed, SPEEDS_AVX2),
    "confidence": confidence,
    "photographs": photographs,
}


def tables() -> dict[str, Callable[[], str]]:
    """Name of a table on a page → what makes it."""
    return _TABLES | study_tables.tables()


def pages() -> list[Path]:
    return [ROOT / "README.md", ROOT / "models/weights/small.md", *sorted((ROOT / "docs").rglob("*.md"))]


def filled(text: str) -> str:
    """A page with its tables made anew."""
    known = tables()
    return BLOCK.sub(lambda block: f"{block[1]}{known[block[2]]()}\n\n{block[3]}", text)


def count_models() -> dict[str, dict[str, float]]:
    """Parameters, GMAC of the backbone for a canvas of 96 columns, and bytes, by preset."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from str_app.engines.graph_folder import folder_bytes, graph_folder
    from str_app.models.charset import Charset
    from str_app.models.presets import get_preset, list_models, weights_path
    from str_app.models.recognizer import Recognizer

    counted: dict[str, dict[str, float]] = {}
    for name in list_models():
        preset = get_preset(name)
        network = Recognizer(preset.architecture, Charset(preset.charset), preset.preprocessing).eval()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network.backbone(torch.zeros(1, 3, 32, 96))
        counted[name] = {
            "parameters": preset.parameters,  # tested against the network
            "gmac": round(counter.get_total_flops() / 2e9, 3),  # two operations each
        }
        if weights_path(name).is_file():
            counted[name]["weights"] = weights_path(name).stat().st_size
            counted[name]["graphs"] = folder_bytes(graph_folder(name))
    return counted


def changes() -> Iterator[tuple[Path, str]]:
    """Pages whose tables differ from the results, with their new text."""
    for page in pages():
        text = page.read_text(encoding="utf-8")
        if filled(text) != text:
            yield page, filled(text)


if __name__ == "__main__":
    if sys.argv[1:] == ["models"]:
        (RESULTS / "models.json").write_text(json.dumps(count_models(), indent=2) + "\n", encoding="utf-8")
    if sys.argv[1:2] == ["studies"]:
        study_tables.collect([Path(folder) for folder in sys.argv[2:]])
    for changed, content in changes():
        changed.write_text(content, encoding="utf-8")
        print(changed.relative_to(ROOT))
