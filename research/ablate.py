"""What single choices contribute: networks trained with and without each of them, scored on real crops.

    python research/ablate.py renderer --out runs/ablation --val validation/IIIT5K_train --val validation/IC15_train
    python research/ablate.py continued --out runs/ablation --val …
    python research/ablate.py recipe --out runs/ablation-recipe --steps 1000 --val …

`renderer` continues training the released network without a group of the renderer's effects: what it unlearns is what
they teach. (Short runs from scratch cannot show this, because easier crops are learnt sooner.) `continued` continues it
with one regularisation setting changed, which short runs from scratch cannot judge either. `recipe` changes one setting
of a run from scratch, with a reduced network. After an interruption, run the same command again. The first two share a
folder and their first row.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, fields
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Literal

import torch
import typer

from str_app.datasets.opening import open_source
from str_app.datasets.renderer.style import Style
from str_app.engines.load import make_engine
from str_app.evaluation.protocol import evaluate_source
from str_app.models.backbones.conv_norm import fold_batch_norms
from str_app.models.checkpoint import load_checkpoint
from str_app.models.recognizer import Recognizer
from str_app.reader import Reader
from str_app.study.report import students_t
from str_app.study.studies import REDUCED
from str_app.training.run_logger import read_metrics
from str_app.training.selection import scores

Scores = dict[str, tuple[int, int, float, float]]  # set → correct words, crops, nats of the labels, tokens


@dataclass(frozen=True)
class Kind:
    """One row of the table.

    Attributes:
        name: of the row.
        off: effects that are switched off in its crops.
        settings: training settings that it changes.
    """

    name: str
    off: tuple[str, ...] = ()
    settings: Mapping[str, object] = field(default_factory=dict)

    @property
    def slug(self) -> str:
        return self.name.replace(" ", "-")


EVERYTHING = Kind("all effects")
PLAIN = Kind("plain", tuple(effect.name for effect in fields(Style)))
LETTERS = (
    *("outline", "depth", "shadow", "halo", "emboss", "relief", "neon"),
    *("two_tone", "stripes", "gradient", "texture", "many_colours", "faded", "worn"),
)
RENDERER = (
    EVERYTHING,
    PLAIN,
    Kind("tilt", ("slant", "rotation")),
    Kind("perspective", ("perspective", "narrow")),
    Kind("baselines", ("curve", "bounce", "stacked")),
    Kind("spacing", ("wide_spacing",)),
    Kind("surroundings", ("neighbours", "cut", "plate", "rule")),
    Kind("photographs", ("photographs",)),
    Kind("letters", LETTERS),
    Kind("light", ("light", "bloom")),
    Kind("blur", ("motion", "defocus", "soft", "low_resolution")),
    Kind("camera", ("sharpen", "noise", "tone", "jpeg")),
)
CONTINUED = (
    EVERYTHING,
    Kind("no dropout", settings={"architecture.decoder.dropout": 0}),
    Kind("no augmentation", settings={"augmentation": "none"}),
    Kind("strong augmentation", settings={"augmentation": "strong"}),
    Kind("label smoothing", settings={"label_smoothing": 0.1}),
)
RECIPE = (
    Kind("as it is"),
    Kind("no CTC", settings={"ctc_weight": 0, "ctc_weight_end": 0}),
    Kind("no boxes", settings={"attention_weight": 0, "attention_weight_end": 0}),
    Kind("constant rate", settings={"schedule": "constant"}),
)
STUDIES = {"renderer": RENDERER, "continued": CONTINUED, "recipe": RECIPE}
BATCH = 64
COMMON = {"batch_size": BATCH, "optimizer": "muon", "learning_rate": 0.001, "workers": 0, "threads": 1}
GOING_ON = COMMON | {"matrix_learning_rate": 0.005, "warmup_steps": 20, "ema_decay": 0.98, "attention_weight": 0.05}
FROM_SCRATCH = COMMON | {
    "matrix_learning_rate": 0.02,
    "warmup_steps": 100,
    "ema_decay": 0.99,
    **{
        f"architecture.{section}.{name}": value if isinstance(value, str) else json.dumps(value)
        for section in ("backbone", "decoder")
        for name, value in asdict(REDUCED)[section].items()
    },
}


def main(
    what: Annotated[Literal["renderer", "continued", "recipe"], typer.Argument(help="What to vary.")],
    out: Annotated[Path, typer.Option(help="Folder for the crops, the runs and their scores.")],
    val: Annotated[list[Path], typer.Option(help="Real crops to score on; repeatable.")],
    crops: Annotated[int, typer.Option(help="Number of crops to render for each kind.")] = 32_000,
    steps: Annotated[int, typer.Option(help="Steps of each run, with 64 crops each.")] = 200,
    seeds: Annotated[int, typer.Option(help="Runs of each kind.")] = 2,
    jobs: Annotated[int, typer.Option(help="Runs in parallel, with one thread each.")] = 2,
) -> None:
    """Render, train, score, and print the table."""
    out.mkdir(parents=True, exist_ok=True)
    kinds = STUDIES[what]
    with ProcessPoolExecutor(jobs, get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for drawn in [
            pool.submit(draw, out, kind, crops) for kind in {data(out, kind): kind for kind in kinds}.values()
        ]:
            drawn.result()
        tasks: dict[Future[Scores], tuple[str, int]] = {
            pool.submit(learn_and_read, out, kind, what != "recipe", steps, seed, val): (kind.name, seed)
            for seed in range(1, seeds + 1)
            for kind in kinds
        }
        scores_of: dict[tuple[str, int], Scores] = {}
        for task, key in tasks.items():
            scores_of[key] = task.result()
            print(
                *key, {name: round(100 * right / n, 2) for name, (right, n, _, _) in scores_of[key].items()}, flush=True
            )
    print("\n" + table(out, kinds, scores_of, seeds))


def data(out: Path, kind: Kind) -> Path:
    """Path of a kind's crops; kinds with all effects share theirs."""
    return out / f"{(kind if kind.off else EVERYTHING).slug}.lmdb"


def draw(out: Path, kind: Kind, crops: int) -> None:
    """Render crops without the kind's effects, from one seed, so that the words are the same for all kinds."""
    path = data(out, kind)
    if not path.exists():
        off = [option for effect in kind.off for option in ("--set", f"{effect}=0")]
        run("synth", "--out", str(path), "--count", str(crops), "--seed", "900", *off)


def learn_and_read(out: Path, kind: Kind, going_on: bool, steps: int, seed: int, val: Sequence[Path]) -> Scores:
    """Train one kind, and score its last averaged weights on the real crops with greedy decoding."""
    folder = out / f"{kind.slug}-{seed}"
    result, weights = folder.with_suffix(".json"), folder / "best.safetensors"
    if not result.exists():
        if not weights.exists():
            settings = {**(GOING_ON if going_on else FROM_SCRATCH), **kind.settings, "steps": steps, "seed": seed}
            options = ["--out", str(folder), "--train", str(data(out, kind))]
            if (folder / "last.pt").exists():
                options.append("--resume")
            elif going_on:
                options += ["--from", "small"]
            run("train", *options, *[part for key, value in settings.items() for part in ("--set", f"{key}={value}")])
        network, _ = load_checkpoint(weights)
        reader, folded = Reader(make_engine(network, device="cpu"), batch_size=64), fold_batch_norms(network.eval())
        assert isinstance(folded, Recognizer)
        measured: Scores = {}
        for path in val:
            source = open_source(path)
            score = evaluate_source(reader, source, beam=1).score()
            samples = [source[index] for index in range(len(source))]
            costs = [
                (cost.total, len(sample.text) + 1)
                for sample, cost in zip(samples, scores(folded, samples), strict=True)
                if cost
            ]
            nats, characters = (sum(part) for part in zip(*costs, strict=True))
            measured[source.name] = (score.correct, score.n, -nats, characters)
        result.write_text(json.dumps(measured))
    stored: Scores = json.loads(result.read_text())
    return stored


def seconds(run: Path) -> float:
    """Seconds that a run's steps took, from its log."""
    rates = {line["step"]: line["samples_per_second"] for line in read_metrics(run) if "samples_per_second" in line}
    return sum((step - before) * BATCH / rates[step] for before, step in pairwise([0, *sorted(rates)]))


def table(out: Path, kinds: Sequence[Kind], scores_of: Mapping[tuple[str, int], Scores], seeds: int) -> str:
    """Means over seeds, and the difference of each kind from the first with a 95 % interval.

    The interval is Student's t with a common variance: the residual variance of the scores after subtracting the means
    of each kind and of each seed.
    """
    names = list(next(iter(scores_of.values())))

    def share(kind: Kind, seed: int, sets: Sequence[str] = names) -> float:
        measured = scores_of[kind.name, seed]
        return 100 * sum(measured[name][0] for name in sets) / sum(measured[name][1] for name in sets)

    def cost(kind: Kind, seed: int) -> float:
        measured = scores_of[kind.name, seed]
        return sum(measured[name][2] for name in names) / sum(measured[name][3] for name in names)

    def compared(measure: Callable[[Kind, int], float]) -> list[str]:
        rows = [[measure(kind, seed) for seed in range(1, seeds + 1)] for kind in kinds]
        means = [statistics.mean(row) for row in rows]
        columns = [statistics.mean(column) for column in zip(*rows, strict=True)]
        grand, freedom = statistics.mean(means), (len(rows) - 1) * (seeds - 1)
        residual = sum(
            (value - mean - column + grand) ** 2
            for row, mean in zip(rows, means, strict=True)
            for value, column in zip(row, columns, strict=True)
        )
        half = f" ± {students_t(freedom) * math.sqrt(residual / freedom * 2 / seeds):.3f}" if freedom else ""
        return [f"{means[0]:.3f} | ", *(f"{mean:.3f} | {mean - means[0]:+.3f}{half}" for mean in means[1:])]

    lines = [
        f"| | {' | '.join(names)} | all, % | difference | nats a character | difference | seconds |",
        "|---|" + "---:|" * (len(names) + 5),
    ]
    for kind, right, nats in zip(kinds, compared(share), compared(cost), strict=True):
        per_set = [f"{statistics.mean(share(kind, s, [name]) for s in range(1, seeds + 1)):.1f}" for name in names]
        spent = statistics.mean(seconds(out / f"{kind.slug}-{s}") for s in range(1, seeds + 1))
        lines.append(f"| {kind.name} | {' | '.join(per_set)} | {right} | {nats} | {spent:.0f} |")
    return "\n".join(lines)


def run(*arguments: str) -> None:
    """Run a `str-app` command on one thread."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    if arguments[0] == "train":  # keep freed buffers, as scripts/recipe.sh does; rendering would need 4 GB with this
        environment |= {
            "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
            "MALLOC_TRIM_THRESHOLD_": "100000000000",
            "MALLOC_MMAP_THRESHOLD_": "100000000000",
        }
    command = [sys.executable, "-m", "str_app", *arguments]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    typer.run(main)
