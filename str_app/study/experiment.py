"""The interface of an experiment, and the training of one run."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from str_app.datasets.sample import DataError
from str_app.datasets.text_files import read_json_object
from str_app.errors import StrAppError
from str_app.installation import provenance
from str_app.models.checkpoint import replace_file
from str_app.models.gates.statistics import Record, watch_gates
from str_app.study.variants import Variant, count_parameters
from str_app.training.state import load_state, save_state, stop_signals

Carry = tuple[Tensor, ...] | None


@dataclass(frozen=True)
class Metric:
    """One metric of an experiment.

    Attributes:
        name: with its unit.
        better: whether lower or higher values are better.
        solved: a task with this value or a better one counts as solved; None: the task cannot be solved.
        chance: value of a network that has not learnt the dependency; a reference line in the plots.
        curve: name of the metric that plots of the training show; by default this one. Every evaluation has it, while
            only the last must have the metric itself.
        log: whether it spans orders of magnitude: plots are logarithmic, and runs are compared by their ratio.
    """

    name: str
    better: Literal["lower", "higher"]
    solved: float | None = None
    chance: float | None = None
    curve: str = ""
    log: bool = False

    def passes(self, value: float) -> bool:
        """Whether a value counts as solved."""
        if self.solved is None:
            return False
        return value <= self.solved if self.better == "lower" else value >= self.solved


@dataclass(frozen=True)
class Training:
    """Training settings, the same for every variant of an experiment.

    Attributes:
        steps: number of AdamW steps.
        batch_size: sequences per step.
        learning_rate: of AdamW.
        cosine: whether the learning rate falls to 0 along a cosine; otherwise it is constant.
        clip_norm: maximum norm of the gradients.
        evaluate_every: steps between evaluations.
        weight_decay: of AdamW.
    """

    steps: int
    batch_size: int
    learning_rate: float = 1e-3
    cosine: bool = False
    clip_norm: float = 1.0
    evaluate_every: int = 100
    weight_decay: float = 0.0

    def rate(self, step: int) -> float:
        """Learning rate at `step`."""
        factor = 0.5 * (1 + math.cos(math.pi * step / self.steps)) if self.cosine else 1.0
        return self.learning_rate * factor


class Experiment(Protocol):
    """A task at one difficulty, the same for every variant."""

    @property
    def name(self) -> str:
        """For example `adding, T = 100`."""

    @property
    def metric(self) -> Metric:
        """The metric that is compared."""

    def run(self, variant: Variant, seed: int, folder: Path, watch: bool) -> Run:
        """Train one variant, continue from its state in `folder`, or return its finished result from there.

        Args:
            variant: unit and gates.
            seed: of initial weights, data and dropout.
            folder: for this experiment's results and states.
            watch: whether to record its gates after training.

        Raises:
            KeyboardInterrupt: stopped by a signal; the state has been written.
        """

    def settings(self) -> dict[str, Any]:
        """Everything that determines the result; stored in the report and compared before a run is continued."""


class Task(Experiment, Protocol):
    """An experiment that `train_run` trains: data, network, loss and metrics."""

    @property
    def training(self) -> Training:
        """Optimiser settings and number of steps."""

    def build(self, variant: Variant) -> nn.Module:
        """The network with new weights."""

    def loss(self, model: nn.Module, step: int, seed: int, carry: Carry) -> tuple[Tensor, Carry]:
        """Loss of the step's batch, which depends on (step, seed) only, and the state to carry to the next step."""

    def evaluate(self, model: nn.Module, final: bool) -> dict[str, float]:
        """Metrics on held-out data, the same for every variant and seed; `final`: after the last step."""


@dataclass(frozen=True)
class Outcome:
    """What tables need of a run.

    Attributes:
        experiment, variant, seed, parameters, hidden_size, seconds, diverged_at: see `Run`.
        value: the metric's; None if the run diverged.
        solved_at: step of the first evaluation from which on every value counts as solved; None if there is none.
    """

    experiment: str
    variant: str
    seed: int
    parameters: int
    hidden_size: int
    seconds: float
    value: float | None
    solved_at: int | None
    diverged_at: int | None


@dataclass
class Run:
    """The result of training one variant with one seed.

    Attributes:
        experiment, variant, seed: identify the run.
        parameters, hidden_size: of the network.
        curve: (step, metrics) of each evaluation.
        seconds: CPU time of training without evaluation, on one thread.
        gates: layer → gate → shares and histograms, from one batch after training; first seed only.
        gradients: layer → (recurrence step, norm of the gradient at h), from the same batch.
        diverged_at: the step at which a NaN or infinite loss ended the run; None if it finished.
        made: date, processor and versions, from `provenance`; written with the result.
    """

    experiment: str
    variant: str
    seed: int
    parameters: int
    hidden_size: int
    curve: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    seconds: float = 0.0
    gates: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    gradients: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    diverged_at: int | None = None
    made: dict[str, str | None] = field(default_factory=dict)

    def value(self, metric: Metric) -> float:
        """The result of a run that did not diverge: at the last evaluation."""
        return self.curve[-1][1][metric.name]

    def outcome(self, metric: Metric) -> Outcome:
        """The run without its curve and gates."""
        ended = self.diverged_at is None
        first = None
        for step, values in self.curve if ended and metric.solved is not None else []:
            first = (first if first is not None else step) if metric.passes(values[metric.name]) else None
        return Outcome(
            self.experiment,
            self.variant,
            self.seed,
            self.parameters,
            self.hidden_size,
            self.seconds,
            self.value(metric) if ended else None,
            first,
            self.diverged_at,
        )


@contextmanager
def flush_denormals() -> Iterator[None]:
    """Treat denormal numbers as zero: vanishing gradients become denormal, and a processor is slow at those.

    At T = 200 a step of the adding problem takes a sixth of the time.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@flush_denormals()
def train_run(experiment: Task, variant: Variant, seed: int, folder: Path, watch: bool) -> Run:
    """Train one variant, or continue from its state, and write the result to `folder/VARIANT-SEED.json`.

    A run that was interrupted (by one of `STOPPING`) or killed and is called again ends with the same result: batch and
    dropout of every step depend on (step, seed) only.

    Raises:
        KeyboardInterrupt: stopped by a signal; the state has been written.
    """
    result = folder / f"{variant}-{seed}.json"
    key = run_key(experiment.settings(), variant, seed)
    stored = load_result(result, key)
    if stored:
        return stored
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    model = experiment.build(variant)
    run = Run(experiment.name, str(variant), seed, count_parameters(model), _hidden_size(model))
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=experiment.training.weight_decay)
    state = folder / f"{variant}-{seed}.pt"
    step, carry = _restore(state, key, model, optimizer, run)
    training = experiment.training
    started, written = time.process_time(), time.monotonic()
    with stop_signals() as stop:
        while step < training.steps:
            model.train()
            torch.manual_seed(run.seed * 1_000_003 + step)  # for dropout
            loss, carry = experiment.loss(model, step, run.seed, carry)
            if not math.isfinite(loss.item()):
                run.diverged_at = step  # divergence is a result, too
                run.seconds += time.process_time() - started
                break
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), training.clip_norm)
            for group in optimizer.param_groups:
                group["lr"] = training.rate(step)
            optimizer.step()
            step += 1
            if step % training.evaluate_every == 0 or step == training.steps:
                run.seconds += time.process_time() - started
                model.eval()
                with torch.no_grad():
                    values = experiment.evaluate(model, final=step == training.steps)
                if not all(map(math.isfinite, values.values())):
                    run.diverged_at = step
                    break
                run.curve.append((step, values))
                started = time.process_time()
            if stop or time.monotonic() - written > 60:
                seconds = run.seconds + time.process_time() - started
                progress = {"key": json.dumps(key), "step": step, "curve": run.curve, "seconds": seconds}
                tensors = {"module": model.state_dict(), "optimizer": optimizer.state_dict()}
                save_state(state, {**progress, **tensors, "carry": None if carry is None else list(carry)})
                written = time.monotonic()
            if stop:
                raise KeyboardInterrupt(stop[0])
    if watch and run.diverged_at is None:
        _record_gates(experiment, model, run)
    save_result(result, key, run)
    state.unlink(missing_ok=True)
    return run


def run_key(settings: dict[str, Any], variant: Variant, seed: int) -> dict[str, Any]:
    """What identifies a run, in the form that a JSON file returns."""
    key: dict[str, Any] = json.loads(json.dumps({"settings": settings, "variant": str(variant), "seed": seed}))
    return key


def save_result(result: Path, key: dict[str, Any], run: Run) -> None:
    """Write the run for `load_result`, with where it was made."""
    run.made = provenance()
    replace_file(result, (json.dumps({"key": key, **asdict(run)}) + "\n").encode())


def load_result(result: Path, key: dict[str, Any]) -> Run | None:
    """The finished run stored at `result`; None if there is none.

    Raises:
        StrAppError: it is damaged, or of other settings; a study never replaces what took hours.
    """
    if not result.is_file():
        return None
    try:
        stored = read_json_object(result)
    except DataError as error:
        raise StrAppError(f"{error}; delete it to repeat this run") from None
    if stored.pop("key", None) != key:
        raise StrAppError(f"{result}: a run with other settings; choose another --out, or delete it")
    stored["curve"] = [(step, values) for step, values in stored["curve"]]
    stored["gradients"] = {layer: [tuple(p) for p in curve] for layer, curve in stored["gradients"].items()}
    return Run(**stored)


def _restore(
    path: Path, key: dict[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer, run: Run
) -> tuple[int, Carry]:
    """Step and carry to continue from; 0 and None if there is no state.

    Raises:
        StrAppError: it is of other settings.
    """
    if not path.is_file():
        return 0, None
    state = load_state(path)
    if state["key"] != json.dumps(key):
        raise StrAppError(f"{path}: an unfinished run with other settings; choose another --out, or delete it")
    model.load_state_dict(state["module"])
    optimizer.load_state_dict(state["optimizer"])
    run.curve, run.seconds = [(step, values) for step, values in state["curve"]], state["seconds"]
    return state["step"], None if state["carry"] is None else tuple(state["carry"])


def _record_gates(experiment: Task, model: nn.Module, run: Run) -> None:
    """Record gates and gradients on one new batch, without dropout."""
    model.eval()
    with watch_gates(model) as watched:
        loss, _ = experiment.loss(model, experiment.training.steps, run.seed, None)
        loss.backward()
    run.gates, run.gradients = summarize(watched)


def summarize(
    records: dict[str, Record],
) -> tuple[dict[str, dict[str, dict[str, Any]]], dict[str, list[tuple[int, float]]]]:
    """`gates` and `gradients` of a `Run`."""
    gates = {layer: {name: _shares(record, name) for name in record.gates} for layer, record in records.items()}
    return gates, {layer: record.gradient_curve() for layer, record in records.items()}


def _shares(record: Record, name: str) -> dict[str, Any]:
    gate = record.gates[name]
    return {
        **record.summary()[name],
        "vanilla": gate.vanilla.counts.tolist(),
        "effective": gate.effective.counts.tolist(),
    }


def _hidden_size(model: nn.Module) -> int:
    return next(int(part.hidden_size) for part in model.modules() if isinstance(part, nn.RNNBase | nn.RNNCellBase))
