"""Fits the temperature that calibrates confidences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from str_app.buckets import batches_by_width
from str_app.datasets.sample import Source, UnreadableSample
from str_app.decoding.greedy import decoded_steps
from str_app.decoding.scoring import ScoredGreedy, log_softmax, other_case_log_probs
from str_app.engines.base import Engine
from str_app.errors import StrAppError
from str_app.evaluation.protocol import Protocol, protocol_of
from str_app.evaluation.sources import evenly_spaced
from str_app.models.preprocessing import Preprocessing

TEMPERATURES = np.geomspace(0.5, 4.0, 141)  # steps of 1.5 %


def fit_temperature(engine: Engine, sources: Sequence[Source]) -> float:
    """The temperature that calibrates the confidences of greedy readings (temperature scaling, arXiv 1706.04599).

    Minimises the negative log-likelihood of a reading being correct, under the protocol of the model's charset, where
    the confidence of the whole reading is its probability.

    Args:
        engine: runs the network; its greedy readings do not depend on the temperature.
        sources: labelled crops that were not trained on; at most 2000 of each count, evenly spaced.

    Raises:
        StrAppError: no readable labelled crop.
    """
    tables: list[npt.NDArray[np.float64]] = []
    other_case = np.array(engine.charset.other_case)
    correct: list[bool] = []
    protocol = protocol_of(engine.charset)
    for source in sources:
        crops = _load(source, evenly_spaced(len(source), 2000), engine.preprocessing, protocol)
        for indices in batches_by_width([crop.canvas.shape[1] for crop in crops], 64):
            batch = [crops[index] for index in indices]
            covered = np.array([crop.covered for crop in batch], dtype=np.int64)
            logits, attention = engine.decode_greedy(*engine.encode(np.stack([crop.canvas for crop in batch]), covered))
            log_probs = log_softmax(logits)
            decoded = decoded_steps(ScoredGreedy(log_probs, attention), engine.charset, engine.max_length)
            for all_steps, result, crop in zip(log_probs, decoded, batch, strict=True):
                steps = all_steps[: len(result.text) + 1]
                tokens = np.array(engine.charset.encode(result.text))[:, None]
                others = other_case_log_probs(steps, tokens, other_case)
                tables.append(np.column_stack([np.take_along_axis(steps, tokens, axis=1), others, steps]))
                correct.append(protocol.fold(result.text) == crop.label)
    if not correct:
        raise StrAppError("no readable labelled crop to calibrate on; check the validation data")
    return best_temperature(tables, np.array(correct))


def best_temperature(readings: Sequence[npt.NDArray[np.float64]], correct: npt.NDArray[np.bool_]) -> float:
    """The temperature of `TEMPERATURES` with the lowest negative log-likelihood.

    Args:
        readings: (L, 2 + V) each: log-probabilities at each step of the chosen class, of its other case (-inf if it has
            none), and of all classes.
        correct: bool (len(readings),).
    """
    losses = [_loss(readings, correct, temperature) for temperature in TEMPERATURES]
    return float(TEMPERATURES[int(np.argmin(losses))])


class _Crop(NamedTuple):
    canvas: npt.NDArray[np.uint8]
    covered: int
    label: str


def _load(source: Source, indices: Sequence[int], preprocessing: Preprocessing, protocol: Protocol) -> list[_Crop]:
    """The readable crops whose label has a character that the protocol compares."""
    crops = []
    for index in indices:
        try:
            sample = source[index]
        except UnreadableSample:
            continue
        if protocol.fold(sample.text):
            crops.append(_Crop(*preprocessing(sample.image), protocol.fold(sample.text)))
    return crops


def _loss(readings: Sequence[npt.NDArray[np.float64]], correct: npt.NDArray[np.bool_], temperature: float) -> float:
    """Mean negative log-likelihood of the readings being correct or not, at this temperature."""
    log_confidence = np.empty(len(readings))
    for index, table in enumerate(readings):
        scaled = table / temperature
        chosen = np.logaddexp(scaled[:, 0], scaled[:, 1])
        log_confidence[index] = (chosen - np.logaddexp.reduce(scaled[:, 2:], axis=1)).sum()
    confidence = np.clip(np.exp(log_confidence), 1e-6, 1 - 1e-6)
    return float(-np.where(correct, np.log(confidence), np.log1p(-confidence)).mean())
