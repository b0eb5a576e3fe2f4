"""The synthetic tasks: adding, two kinds of counting, and copy memory. Every step draws new data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from str_app.study.experiment import Carry, Metric, Run, Training, train_run
from str_app.study.variants import Variant

_EVALUATION = 1_000_000_007  # seed of the evaluation data, far from the seeds of training steps


class _Reader(nn.Module):
    """A recurrent layer and a linear map of its last `steps` outputs, or of all outputs (0)."""

    def __init__(self, layer: nn.Module, hidden_size: int, outputs: int, steps: int) -> None:
        super().__init__()
        self.layer, self.head, self.steps = layer, nn.Linear(hidden_size, outputs), steps

    def forward(self, inputs: Tensor) -> Tensor:
        """(T, B, I) → (steps, B, outputs)."""
        states: Tensor = self.layer(inputs)[0]
        outputs: Tensor = self.head(states[-self.steps :] if self.steps else states)
        return outputs


@dataclass(frozen=True)
class _Task:
    """Base of the tasks: one recurrent layer reads a random sequence.

    Attributes:
        length: of the dependency, T; each task defines its meaning.
        training: settings, the same for every variant.
        hidden_size: the same for every variant: inputs are so small that refined gates add hardly any parameters.
    """

    length: int
    training: Training
    hidden_size: int = 128

    sizes: ClassVar[tuple[int, int, int]]  # input size, output size, number of output steps (0: all)
    metric: ClassVar[Metric]

    @property
    def name(self) -> str:
        """See `Experiment`."""
        raise NotImplementedError

    def build(self, variant: Variant) -> nn.Module:
        """See `Experiment`."""
        inputs, outputs, steps = self.sizes
        return _Reader(variant.layer(inputs, self.hidden_size, self.longest), self.hidden_size, outputs, steps)

    @property
    def longest(self) -> int:
        """The longest dependency, for chrono initialisation."""
        return self.length

    def loss(self, model: nn.Module, step: int, seed: int, carry: Carry) -> tuple[Tensor, Carry]:
        """See `Task`."""
        inputs, targets = self.draw(_generator(seed, step), self.training.batch_size)
        return self.criterion(model(inputs), targets), None

    def evaluate(self, model: nn.Module, final: bool = True) -> dict[str, float]:
        """See `Task`; always 1,000 sequences."""
        inputs, targets = self.draw(_generator(_EVALUATION, 0), 1000)
        return self.score(model(inputs), targets)

    def run(self, variant: Variant, seed: int, folder: Path, watch: bool) -> Run:
        """See `Experiment`."""
        return train_run(self, variant, seed, folder, watch)

    def settings(self) -> dict[str, Any]:
        """See `Experiment`."""
        return {"task": type(self).__name__, **asdict(self)}

    def draw(self, generator: torch.Generator, count: int) -> tuple[Tensor, Tensor]:
        """Random inputs (T, count, I) and their targets."""
        raise NotImplementedError

    def criterion(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The training loss."""
        raise NotImplementedError

    def score(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        """The metrics of an evaluation."""
        raise NotImplementedError


@dataclass(frozen=True)
class Adding(_Task):
    """The adding problem (Hochreiter & Schmidhuber 1997; in this form Le et al. 2015, arXiv 1504.00941).

    The input is T pairs of a number from U(0, 1) and a mark. One number in each half is marked; the target is the sum
    of the two. The constant answer 1 has a mean squared error of 1/6.
    """

    sizes = (2, 1, 1)
    metric = Metric("mean squared error", "lower", solved=0.01, chance=1 / 6, log=True)

    @property
    def name(self) -> str:
        """See `Experiment`."""
        return f"adding, T = {self.length}"

    def draw(self, generator: torch.Generator, count: int) -> tuple[Tensor, Tensor]:
        """See `_Task`."""
        numbers = torch.rand(self.length, count, generator=generator)
        half = self.length // 2
        first = torch.randint(0, half, (1, count), generator=generator)
        second = torch.randint(half, self.length, (1, count), generator=generator)
        marks = torch.zeros_like(numbers).scatter_(0, first, 1.0).scatter_(0, second, 1.0)
        return torch.stack([numbers, marks], dim=-1), (numbers * marks).sum(0)

    def criterion(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """See `_Task`."""
        return F.mse_loss(outputs[0, :, 0], targets)

    def score(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        """See `_Task`."""
        return {self.metric.name: float(self.criterion(outputs, targets))}


@dataclass(frozen=True)
class MarkedCount(_Task):
    """Counting between two marks: the number of occurrences of the first of 4 symbols between them.

    A task of our own: the paper does not define its counting task. An answer is correct if it rounds to the target.
    """

    sizes = (5, 1, 1)
    metric = Metric("right counts, %", "higher", solved=95.0)

    @property
    def name(self) -> str:
        """See `Experiment`."""
        return f"counting between marks, T = {self.length}"

    def draw(self, generator: torch.Generator, count: int) -> tuple[Tensor, Tensor]:
        """See `_Task`."""
        symbols = torch.randint(0, 4, (self.length, count), generator=generator)
        ends = torch.stack([torch.randperm(self.length, generator=generator)[:2].sort().values for _ in range(count)])
        steps = torch.arange(self.length).unsqueeze(1)
        first, last = ends[:, 0], ends[:, 1]
        marks = ((steps == first) | (steps == last)).float()
        counted = (symbols == 0) & (steps > first) & (steps < last)
        return torch.cat([F.one_hot(symbols, 4).float(), marks.unsqueeze(-1)], dim=-1), counted.sum(0).float()

    def criterion(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """See `_Task`."""
        return F.mse_loss(outputs[0, :, 0], targets)

    def score(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        """See `_Task`."""
        answers = outputs[0, :, 0]
        accuracy = 100 * (answers.round() == targets).float().mean()
        return {self.metric.name: float(accuracy), "mean squared error": float(F.mse_loss(answers, targets))}


@dataclass(frozen=True)
class EqualNumbers(_Task):
    """aⁿbⁿ (Gers & Schmidhuber 2001): trained with n up to `length`, evaluated on every n up to four times that.

    The network predicts the next symbol at each step. After the first b every symbol is determined: n − 1 more b, then
    the end. An n is correct if all of these are; the metric is the largest n up to which every n is correct.
    """

    sizes = (3, 3, 0)  # start, a, b in; a, b, end out
    metric = Metric("counts up to n", "higher")

    @property
    def name(self) -> str:
        """See `Experiment`."""
        return f"aⁿbⁿ, trained to n = {self.length}"

    @property
    def longest(self) -> int:
        """See `_Task`."""
        return 2 * self.length

    def draw(self, generator: torch.Generator, count: int) -> tuple[Tensor, Tensor]:
        """See `_Task`; targets (T, count), −1 where the next symbol is not determined or the word has ended."""
        return self.words(torch.randint(1, self.length + 1, (count,), generator=generator))

    def words(self, n: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs (2 n_max + 1, B, 3) and targets of the words with these n (B,), padded."""
        steps = torch.arange(2 * int(n.max()) + 1).unsqueeze(1)
        symbols = torch.where(steps == 0, 0, torch.where(steps <= n, 1, 2))
        following = torch.where(steps < 2 * n, 1, 2)
        return F.one_hot(symbols, 3).float(), torch.where((steps > n) & (steps <= 2 * n), following, -1)

    def criterion(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """See `_Task`."""
        return F.cross_entropy(outputs.flatten(0, 1), targets.flatten(), ignore_index=-1)

    def evaluate(self, model: nn.Module, final: bool = True) -> dict[str, float]:
        """See `Experiment`."""
        inputs, targets = self.words(torch.arange(1, 4 * self.length + 1))
        predicted = model(inputs).argmax(-1)
        correct = ((predicted == targets) | (targets < 0)).all(0).tolist()
        return {self.metric.name: float(correct.index(False) if False in correct else len(correct))}


@dataclass(frozen=True)
class CopyMemory(_Task):
    """Copy memory (Hochreiter & Schmidhuber 1997; in this form Arjovsky et al. 2016, arXiv 1511.06464).

    Ten symbols out of 8, then `length` − 1 blanks, then a signal to repeat the ten in order. The paper does not define
    its third synthetic task; this is the usual one.
    """

    sizes = (10, 8, 10)
    metric = Metric("right symbols, %", "higher", solved=99.0, chance=12.5)

    @property
    def name(self) -> str:
        """See `Experiment`."""
        return f"copy memory, delay {self.length}"

    @property
    def longest(self) -> int:
        """See `_Task`."""
        return self.length + 20

    def draw(self, generator: torch.Generator, count: int) -> tuple[Tensor, Tensor]:
        """See `_Task`; targets (10, count)."""
        symbols = torch.randint(0, 8, (10, count), generator=generator)
        blank = torch.full((self.length, count), 8)
        signal = torch.full((1, count), 9)
        inputs = torch.cat([symbols, blank[1:], signal, blank[:1].expand(10, -1)])
        return F.one_hot(inputs, 10).float(), symbols

    def criterion(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """See `_Task`."""
        return F.cross_entropy(outputs.flatten(0, 1), targets.flatten())

    def score(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        """See `_Task`."""
        return {self.metric.name: float(100 * (outputs.argmax(-1) == targets).float().mean())}


def _generator(seed: int, step: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed * 10_000_019 + step)
