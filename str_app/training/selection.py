"""Which crops are worth learning from, told by how surely a trained network reads each one's label already."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from torch.nn import functional as F

from str_app.datasets.lmdb_store import LmdbSource, LmdbWriter
from str_app.datasets.sample import Sample, UnreadableSample
from str_app.engines.precision import has_bf16
from str_app.models.backbones.resnet import fold_batch_norms
from str_app.models.recognizer import Recognizer
from str_app.training.samples import Prepared, collate, why_unlearnable

Kind = Literal["easy", "hard", "hopeless", "unusable"]
KINDS: tuple[Kind, ...] = get_args(Kind)
CHUNK = 4096  # crops sorted by width together, so that most need a narrow canvas
BATCH = 64


class Score(NamedTuple):
    """Natural log-probability of a crop's own label, the end included, and its mean a character."""

    whole: float
    mean: float


@dataclass(frozen=True)
class Rule:
    """What is kept.

    Attributes:
        sure: from this probability of its label on a crop is easy.
        easy: share of the easy crops that is kept; all others are, but for the next.
        hopeless: a crop whose label costs so many nats a character, or more, is left out; infinite leaves out none.
        seed: which easy ones are kept.
    """

    sure: float = 0.95
    easy: float = 0.25
    hopeless: float = 2.5
    seed: int = 0

    def kind(self, score: Score | None) -> Kind:
        """What a crop is; None stands for one without a score."""
        if score is None:
            return "unusable"
        if score.whole >= math.log(self.sure):
            return "easy"
        return "hopeless" if score.mean <= -self.hopeless else "hard"


@dataclass
class Selected:
    """What has been looked at so far, by kind: numbers of crops, their loss in nats, and how many were kept."""

    crops: Counter[Kind] = field(default_factory=Counter)
    nats: dict[Kind, float] = field(default_factory=lambda: defaultdict(float))
    kept: int = 0


def select(network: Recognizer, source: LmdbSource, writer: LmdbWriter, rule: Rule, device: str) -> Iterator[Selected]:
    """Write what the rule keeps of `source`, byte for byte and in its order; what came of it so far, chunk by chunk.

    Args:
        network: left as it is.
        source: crops with labels.
        writer: of the new data set.
        rule: what is kept.
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
                selected.nats[kind] -= score.whole
            if sample is not None and (kind == "hard" or (kind == "easy" and chance < rule.easy)):
                writer.add(source.image_bytes(index), sample.text, sample.boxes)
                selected.kept += 1
        yield selected


def _sample(source: LmdbSource, index: int) -> Sample | None:
    try:
        return source[index]
    except UnreadableSample:
        return None


def scores(folded: Recognizer, samples: Sequence[Sample | None]) -> list[Score | None]:
    """The score of each sample; None for those that are not there, and for labels the network cannot write.

    Args:
        folded: in evaluation mode.
        samples: of any order and size.
    """
    prepared: dict[int, Prepared] = {}
    for place, sample in enumerate(samples):
        if sample and not why_unlearnable(sample.text, folded.charset, folded.architecture.max_length):
            canvas, covered = folded.preprocessing(sample.image)
            prepared[place] = Prepared(canvas, covered, folded.charset.encode(sample.text), None)
    order = sorted(prepared, key=lambda place: (prepared[place].width, len(prepared[place].target)))
    found: list[Score | None] = [None] * len(samples)
    device = next(folded.parameters()).device
    for first in range(0, len(order), BATCH):
        places = order[first : first + BATCH]
        batch = collate([prepared[place] for place in places], folded.preprocessing)
        batch = batch.to(device)
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=has_bf16(device)):
            logits, _, _ = folded(folded.normalize(batch.canvases), batch.widths, batch.targets)
        steps = F.log_softmax(logits.float(), dim=-1).gather(2, batch.targets.unsqueeze(2)).squeeze(2)  # (B, T)
        counted = torch.arange(steps.shape[1], device=steps.device) <= batch.lengths.unsqueeze(1)  # end included
        whole = (steps * counted).sum(dim=1)
        for place, total, length in zip(places, whole.tolist(), batch.lengths.tolist(), strict=True):
            found[place] = Score(total, total / (length + 1))
    return found
