"""Selects crops worth training on by the probability that a trained network gives to their labels."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch

from str_app.datasets.lmdb_writer import LmdbWriter
from str_app.datasets.opening import AnySource
from str_app.datasets.sample import Sample, UnreadableSample
from str_app.engines.precision import has_bf16
from str_app.models.backbones.conv_norm import fold_batch_norms
from str_app.models.recognizer import Recognizer
from str_app.training.objective import label_nats
from str_app.training.samples import Prepared, collate, prepared_for, spelled, why_unlearnable

Kind = Literal["easy", "hard", "hopeless", "unusable"]
KINDS: tuple[Kind, ...] = get_args(Kind)
CHUNK = 4096  # crops sorted by width together, so that most batches need only a narrow canvas
BATCH = 64


class Score(NamedTuple):
    """Natural log-probability of a crop's label including the end token, and its mean per token."""

    total: float
    mean: float


@dataclass(frozen=True)
class Rule:
    """Which crops are kept: all hard ones and a share of the easy ones.

    Attributes:
        sure: a crop is easy if its label has at least this probability.
        easy: share of the easy crops to keep.
        hopeless: a crop is hopeless, and dropped, from this loss on, in nats per token; infinite: never.
        seed: of the choice among the easy crops.
    """

    sure: float = 0.95
    easy: float = 0.25
    hopeless: float = 2.5
    seed: int = 0

    def kind(self, score: Score | None) -> Kind:
        """The kind of a crop by its score; crops without a score are unusable."""
        if score is None:
            return "unusable"
        if score.total >= math.log(self.sure):
            return "easy"
        return "hopeless" if score.mean <= -self.hopeless else "hard"


@dataclass
class Selected:
    """Counts so far.

    Attributes:
        crops: number of crops, by kind.
        nats: their loss in nats, by kind.
        kept: number of crops kept.
        reason: why the first unusable crop is that.
    """

    crops: Counter[Kind] = field(default_factory=Counter)
    nats: dict[Kind, float] = field(default_factory=lambda: defaultdict(float))
    kept: int = 0
    reason: str = ""


def select(network: Recognizer, source: AnySource, writer: LmdbWriter, rule: Rule, device: str) -> Iterator[Selected]:
    """Copy the crops that the rule keeps, in order and with the same image bytes; yields the counts after each chunk.

    Args:
        network: scores the crops; it is not changed.
        source: labelled crops.
        writer: of the new data set.
        rule: which crops are kept.
        device: where the network runs.
    """
    folded = fold_batch_norms(network)
    assert isinstance(folded, Recognizer)
    folded = folded.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    random = np.random.default_rng(rule.seed)
    selected = Selected()
    for first in range(0, len(source), CHUNK):
        indices = range(first, min(first + CHUNK, len(source)))
        samples = [_sample(source, index) for index in indices]
        for index, sample, score, chance in zip(
            indices, samples, scores(folded, samples), random.random(len(indices)).tolist(), strict=True
        ):
            kind = rule.kind(score)
            selected.crops[kind] += 1
            if score is not None:
                selected.nats[kind] -= score.total
            elif not selected.reason:
                selected.reason = _why_unusable(network, source, index)
            if sample is not None and (kind == "hard" or (kind == "easy" and chance < rule.easy)):
                writer.add(source.image_bytes(index), sample.text, sample.boxes, source.identifier(index))
                selected.kept += 1
        yield selected


def _sample(source: AnySource, index: int) -> Sample | None:
    try:
        return source[index]
    except UnreadableSample:
        return None


def _why_unusable(network: Recognizer, source: AnySource, index: int) -> str:
    try:
        sample = spelled(source[index], network.charset)
    except UnreadableSample as error:
        return str(error)
    reason = why_unlearnable(sample.text, network.charset, network.architecture.max_length)
    return f"{source.name}, {source.identifier(index)}: {reason}"


def scores(network: Recognizer, samples: Sequence[Sample | None]) -> list[Score | None]:
    """The score of each sample; None for missing samples and for labels that the network cannot produce.

    Args:
        network: in evaluation mode.
        samples: in any order and of any size.
    """
    prepared: dict[int, Prepared] = {}
    for index, stored in enumerate(samples):
        if stored and (sample := prepared_for(network, stored)):
            prepared[index] = sample
    order = sorted(prepared, key=lambda index: (prepared[index].width, len(prepared[index].target)))
    result: list[Score | None] = [None] * len(samples)
    device = next(network.parameters()).device
    for first in range(0, len(order), BATCH):
        indices = order[first : first + BATCH]
        batch = collate([prepared[index] for index in indices], network.preprocessing).to(device)
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=has_bf16(device)):
            logits, _, _ = network(network.normalize(batch.canvases), batch.widths, batch.targets)
        counted = torch.arange(logits.shape[1], device=device) <= batch.lengths.unsqueeze(1)  # with the end token
        totals = -label_nats(logits.float(), batch.targets, counted)
        for index, total, length in zip(indices, totals.tolist(), batch.lengths.tolist(), strict=True):
            result[index] = Score(total, total / (length + 1))
    return result
