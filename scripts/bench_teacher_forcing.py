"""CPU time of a training step of `small`: python scripts/bench_teacher_forcing.py TRAIN.lmdb [BATCH]

In one pass, and step by step as torch records it; in bfloat16 on one thread, without the optimizer.
"""

from __future__ import annotations

import sys
import time
from contextlib import nullcontext
from pathlib import Path

import torch

from str_app.datasets.augmentation import Augmentation
from str_app.datasets.opening import open_source
from str_app.models.kernels.dispatch import torch_operations_only
from str_app.models.presets import create_model
from str_app.training.objective import Objective
from str_app.training.samples import TrainingSamples

GROUP = 8


def main(data: Path, batch_size: int) -> None:
    torch.set_num_threads(1)
    network = create_model("small")
    samples = TrainingSamples(
        [open_source(data)],
        (),
        network.charset,
        network.preprocessing,
        network.architecture.max_length,
        Augmentation("light"),
        seed=0,
        group=GROUP,
    )
    batches = samples.__getitems__(list(range(batch_size * GROUP)))[::3]
    widths = [batch.canvases.shape[2] for batch in batches]
    print(f"{len(batches)} batches of {batch_size} crops, canvases of {widths} columns")
    objective = Objective(network, label_smoothing=0.0)
    objective.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    objective.train()
    for repetition in range(4):
        for name, context in (("step by step", torch_operations_only), ("in one pass", nullcontext)):
            start = time.process_time()
            for batch in batches:
                objective.zero_grad()
                with context(), torch.autocast("cpu", torch.bfloat16):  # convolutions are torch's in both
                    sums = objective(*batch[:5])
                (sums.sum() / batch.lengths.sum()).backward()
            spent = (time.process_time() - start) / batch_size / len(batches)
            if repetition:
                print(f"{name:12}  {1e3 * spent:5.2f} ms a crop", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 128)
