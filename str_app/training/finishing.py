"""The last step of a run: calibrate the best weights and score them on the complete validation sets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from str_app.datasets.sample import Source
from str_app.decoding.word_prior import WordPrior
from str_app.engines.load import make_engine
from str_app.evaluation.protocol import SetResult, evaluate_source
from str_app.models.checkpoint import load_checkpoint, replace_info
from str_app.reader import Reader
from str_app.training.calibration import fit_temperature


def calibrate_and_score(
    checkpoint: Path,
    validation: Sequence[Source],
    device: str = "cpu",
    on_progress: Callable[[int], None] | None = None,
) -> list[SetResult]:
    """Fit the temperature, score the validation sets with it, and write both into the checkpoint's metadata.

    Args:
        checkpoint: replaced atomically; its weights do not change.
        validation: labelled crops that were not trained on.
        device: where to run.
        on_progress: called with the number of crops read since the last call.
    """
    model, info = load_checkpoint(checkpoint)
    info = {**info, "temperature": fit_temperature(make_engine(model, device=device), validation)}
    reader = Reader(make_engine(model, info, device), batch_size=64, prior=WordPrior.released())
    results = [evaluate_source(reader, source, on_progress=on_progress) for source in validation]
    info["metrics"] = {"validation": [result.score().as_json() for result in results]}
    replace_info(checkpoint, info)
    return results
