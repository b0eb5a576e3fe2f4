"""Language modelling of words or characters, with truncated backpropagation through time and carried state."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from str_app.datasets.text_corpus import Corpus
from str_app.study.experiment import Carry, Metric, Run, Training, train_run
from str_app.study.variants import Variant, count_parameters, equal_size

CURVE_TOKENS = 20_000  # of the validation text; all of it would take longer than training
STREAMS = 10  # of a text that is evaluated
LEAST_TOKENS = 2 * STREAMS  # of such a text: each stream predicts all tokens but its first


@dataclass(frozen=True)
class LanguageSizes:
    """Sizes and dropout of the network.

    Attributes:
        embedding: size of the token embedding, to which the output weights are tied (Press & Wolf 2017, arXiv
            1608.05859).
        hidden: hidden size of the vanilla unit; other gates get the size with the same number of parameters.
        layers: number of recurrent layers.
        dropout_embedding: share of the vocabulary whose embeddings are dropped in a batch.
        dropout: on inputs, between layers and on outputs, with one mask per sequence.
        dropout_weights: on the recurrent weights, with one mask per batch. All three as in AWD-LSTM (Merity et al.
            2018, arXiv 1708.02182).
    """

    embedding: int = 128
    hidden: int = 128
    layers: int = 1
    dropout_embedding: float = 0.0
    dropout: float = 0.2
    dropout_weights: float = 0.0


class LanguageModel(nn.Module):
    """Embedding → recurrent layers → projection to the embedding size → logits by the tied embedding weights."""

    def __init__(self, variant: Variant, tokens: int, sizes: LanguageSizes, hidden: int, longest: int) -> None:
        super().__init__()
        self.sizes = sizes
        self.embedding = nn.Embedding(tokens, sizes.embedding)
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        inputs = [sizes.embedding] + [hidden] * (sizes.layers - 1)
        self.layers = nn.ModuleList(variant.layer(size, hidden, longest) for size in inputs)
        self.project = nn.Linear(hidden, sizes.embedding, bias=False)
        self.bias = nn.Parameter(torch.zeros(tokens))

    def forward(self, tokens: Tensor, carry: Carry) -> tuple[Tensor, Carry]:
        """Token ids (T, B) and the previous states → logits (T, B, tokens) and the new states."""
        sizes = self.sizes
        weight = self.embedding.weight
        if self.training and sizes.dropout_embedding:
            weight = weight * F.dropout(weight.new_ones(len(weight), 1), sizes.dropout_embedding)
        x = self._locked(F.embedding(tokens, weight))
        states: list[Tensor] = []
        per_layer = len(carry) // len(self.layers) if carry is not None else 0
        for index, layer in enumerate(self.layers):
            before = None if carry is None else carry[index * per_layer : (index + 1) * per_layer]
            x, after = self._run(layer, x, before)
            x = self._locked(x)
            states += after
        logits = F.linear(self._locked(self.project(x)), self.embedding.weight, self.bias)
        return logits, tuple(state.detach() for state in states)

    def _run(self, layer: nn.Module, x: Tensor, before: Carry) -> tuple[Tensor, tuple[Tensor, ...]]:
        """One layer; in training mode with dropout on its recurrent weights."""
        initial = None if before is None else before if len(before) == 2 else before[0]
        share = self.sizes.dropout_weights if self.training else 0.0
        if share:
            whole = layer.get_parameter("weight_hh_l0")
            del layer.weight_hh_l0
            layer.weight_hh_l0 = F.dropout(whole, share)  # the layer accepts a plain tensor as its weights
        output, state = layer(x, initial)
        if share:
            del layer.weight_hh_l0
            layer.weight_hh_l0 = whole
        return output, state if isinstance(state, tuple) else (state,)

    def _locked(self, x: Tensor) -> Tensor:
        """Dropout with the same mask at all steps (Gal & Ghahramani 2016, arXiv 1512.05287)."""
        if not self.training or not self.sizes.dropout:
            return x
        return x * F.dropout(x.new_ones(1, *x.shape[1:]), self.sizes.dropout)


@dataclass(frozen=True)
class Language:
    """Predicting the next token of a corpus.

    Attributes:
        corpus: token ids of each split.
        training: a step takes `bptt` tokens from each of `batch_size` streams.
        sizes: of the network.
        bptt: number of steps through which gradients are propagated.
        longest: longest dependency, for chrono initialisation.
        suffix: of the name, which tells lengths of one study apart.
    """

    corpus: Corpus
    training: Training
    sizes: LanguageSizes = field(default_factory=LanguageSizes)
    bptt: int = 70
    longest: int = 70
    suffix: str = ""

    @property
    def name(self) -> str:
        """See `Experiment`."""
        return self.corpus.name + self.suffix

    @property
    def unit(self) -> str:
        """Name of the metric: perplexity of words or bits per character."""
        return "perplexity" if self.corpus.kind == "words" else "bits per character"

    @property
    def metric(self) -> Metric:
        """See `Experiment`."""
        return Metric(f"test {self.unit}", "lower", curve=f"validation {self.unit}")

    def build(self, variant: Variant) -> nn.Module:
        """See `Experiment`."""
        with torch.random.fork_rng():
            target = count_parameters(self._model(Variant(variant.unit, "none"), self.sizes.hidden))
            hidden = equal_size(lambda size: self._model(variant, size), target, self.sizes.hidden)
        return self._model(variant, hidden)

    def _model(self, variant: Variant, hidden: int) -> LanguageModel:
        return LanguageModel(variant, len(self.corpus.vocabulary), self.sizes, hidden, self.longest)

    @cached_property
    def _train(self) -> Tensor:
        return _streams(self.corpus.train, self.training.batch_size)

    def loss(self, model: nn.Module, step: int, seed: int, carry: Carry) -> tuple[Tensor, Carry]:
        """See `Experiment`. Passes through the corpus in order; the state is reset at the start of each pass."""
        windows = (len(self._train) - 1) // self.bptt
        window = step % windows
        first = window * self.bptt
        tokens = self._train[first : first + self.bptt + 1]
        logits, carry = model(tokens[:-1], carry if window else None)
        return F.cross_entropy(logits.flatten(0, 1), tokens[1:].flatten()), carry

    def evaluate(self, model: nn.Module, final: bool) -> dict[str, float]:
        """See `Task`. The beginning of the validation text; at the end the whole test text, too.

        The state is carried throughout.
        """
        texts = {"validation": self.corpus.validation[:CURVE_TOKENS]}
        if final:
            texts["test"] = self.corpus.test
        nats = {name: _mean_loss(model, ids) for name, ids in texts.items()}
        words = self.corpus.kind == "words"
        return {f"{name} {self.unit}": _perplexity(x) if words else x / math.log(2) for name, x in nats.items()}

    def run(self, variant: Variant, seed: int, folder: Path, watch: bool) -> Run:
        """See `Experiment`."""
        return train_run(self, variant, seed, folder, watch)

    def settings(self) -> dict[str, Any]:
        """See `Experiment`."""
        return {
            "task": "Language",
            "corpus": {"name": self.corpus.name, "digest": self.corpus.digest},
            "training": asdict(self.training),
            "sizes": asdict(self.sizes),
            "bptt": self.bptt,
            "longest": self.longest,
        }


def _streams(ids: Tensor, count: int) -> Tensor:
    """(tokens,) → (steps, count): `count` consecutive parts of the text; the remainder is dropped."""
    steps = len(ids) // count
    return ids[: steps * count].view(count, steps).t().contiguous()


def _perplexity(nats: float) -> float:
    try:
        return math.exp(nats)
    except OverflowError:  # the perplexity of a diverging run may exceed a float
        return math.inf


def _mean_loss(model: nn.Module, ids: Tensor) -> float:
    """Mean −ln p of all tokens except the first of each stream."""
    window = 200
    tokens, carry, total, count = _streams(ids, STREAMS), None, 0.0, 0
    for first in range(0, len(tokens) - 1, window):
        part = tokens[first : first + window + 1]
        logits, carry = model(part[:-1], carry)
        total += F.cross_entropy(logits.flatten(0, 1), part[1:].flatten(), reduction="sum").item()
        count += part[1:].numel()
    return total / count
