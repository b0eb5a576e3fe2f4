"""What a study asks of every variant, and how one run of it is trained."""

from __future__ import annotations

import json
import math
import signal
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from str_app.models.checkpoint import replace_file
from str_app.models.gates.statistics import Record, watch_gates
from str_app.study.variants import Variant, count_parameters
from str_app.training.state import load_state, save_state

Carry = tuple[Tensor, ...] | None


@dataclass(frozen=True)
class Metric:
    """What is measured.

    Attributes:
        name: with its unit.
        better: which way.
        solved: from this value on the task counts as learnt.
        chance: what a network that has learnt nothing of the dependency gets, for the plots.
        chosen_by: another metric's name: its best evaluation is the one whose value counts. Default: the last.
        log: whether plots of it are logarithmic.
    """

    name: str
    better: Literal["lower", "higher"]
    solved: float | None = None
    chance: float | None = None
    chosen_by: str = ""
    log: bool = False

    def passes(self, value: float) -> bool:
        """Whether a value counts as solved."""
        if self.solved is None:
            return False
        return value <= self.solved if self.better == "lower" else value >= self.solved


@dataclass(frozen=True)
class Training:
    """How every variant of an experiment is trained.

    Attributes:
        steps: of Adam.
        batch_size: sequences a step.
        learning_rate: Adam's.
        cosine: whether the rate falls to 0 along a cosine; otherwise it is constant.
        clip_norm: gradients are scaled down to this norm.
        evaluate_every: steps between evaluations.
        weight_decay: AdamW's.
    """

    steps: int
    batch_size: int
    learning_rate: float = 1e-3
    cosine: bool = False
    clip_norm: float = 1.0
    evaluate_every: int = 100
    weight_decay: float = 0.0

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        factor = 0.5 * (1 + math.cos(math.pi * step / self.steps)) if self.cosine else 1.0
        return self.learning_rate * factor


class Experiment(Protocol):
    """A task at one difficulty, the same for every variant."""

    @property
    def name(self) -> str:
        """E.g. `adding, T = 100`."""

    @property
    def metric(self) -> Metric:
        """The one that counts."""

    def run(self, variant: Variant, seed: int, folder: Path, watch: bool) -> Run:
        """Train one variant, or go on where its state in `folder` says, or read its result there.

        Args:
            variant: unit and gates.
            seed: of initial weights, data and dropout.
            folder: of this experiment's results and states.
            watch: whether to look at its gates afterwards.

        Raises:
            KeyboardInterrupt: a signal came; the state has been written.
        """

    def settings(self) -> dict[str, Any]:
        """Everything that decides the result, for the report and to tell whose unfinished runs these are."""


class Task(Protocol):
    """What `train_run` trains: data, network, loss, metrics."""

    @property
    def name(self) -> str:
        """See `Experiment`."""

    @property
    def training(self) -> Training:
        """Optimiser and steps."""

    def build(self, variant: Variant) -> nn.Module:
        """The network with fresh weights."""

    def loss(self, model: nn.Module, step: int, seed: int, carry: Carry) -> tuple[Tensor, Carry]:
        """Loss of the step's batch, a function of (step, seed) alone, and what the next step is handed."""

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Metrics on data that no step trains on; the same data for every variant and seed."""

    def settings(self) -> dict[str, Any]:
        """See `Experiment`."""


@dataclass
class Run:
    """One variant and seed, trained.

    Attributes:
        experiment, variant, seed: which.
        parameters, hidden_size: of the network.
        curve: evaluations: step → metrics.
        seconds: of training alone, of one thread's own time, so that other work on the machine counts little.
        gates: place → gate → shares and histograms, from one batch after training; only of the first seed.
        gradients: place → (step of the recurrence, norm of the gradient at h) from the same batch.
        diverged_at: the step at which the loss was no finite number any more, where that ended the run.
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

    def value(self, metric: Metric) -> float:
        """What counts, if the run did not diverge: the last evaluation's value, or that where `chosen_by` is best."""
        if not metric.chosen_by:
            return self.curve[-1][1][metric.name]
        return min(self.curve, key=lambda point: point[1][metric.chosen_by])[1][metric.name]

    def solved_at(self, metric: Metric) -> int | None:
        """The first evaluation from which on the metric passes to the end."""
        if self.diverged_at is not None:
            return None
        first = None
        for step, values in self.curve:
            first = (first if first is not None else step) if metric.passes(values[metric.name]) else None
        return first


def train_run(experiment: Task, variant: Variant, seed: int, folder: Path, watch: bool) -> Run:
    """Train one variant, or go on where its state says, and write `folder/…json`.

    Interrupted (SIGTERM, SIGINT) or killed and called again, it ends with the same numbers: every step's batch and
    dropout depend on (step, seed) alone.

    Raises:
        KeyboardInterrupt: a signal came; the state has been written.
    """
    result = folder / f"{variant}-{seed}.json"
    key = run_key(experiment.settings(), variant, seed)
    done = finished(result, key)
    if done:
        return done
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    model = experiment.build(variant)
    run = Run(experiment.name, str(variant), seed, count_parameters(model), _hidden_size(model))
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=experiment.training.weight_decay)
    state = folder / f"{variant}-{seed}.pt"
    step, carry = _restore(state, key, model, optimizer, run)
    _train(experiment, model, optimizer, run, step, carry, state, key)
    if watch and run.diverged_at is None:
        _look(experiment, model, run)
    keep_result(result, key, run)
    state.unlink(missing_ok=True)
    return run


def run_key(settings: dict[str, Any], variant: Variant, seed: int) -> dict[str, Any]:
    """What tells a run from others, as it comes back from JSON."""
    key: dict[str, Any] = json.loads(json.dumps({"settings": settings, "variant": str(variant), "seed": seed}))
    return key


def keep_result(result: Path, key: dict[str, Any], run: Run) -> None:
    """Write the run for `finished`."""
    replace_file(result, (json.dumps({"key": key, **asdict(run)}) + "\n").encode())


def finished(result: Path, key: dict[str, Any]) -> Run | None:
    """The run that lies at `result`, if it is of these settings, variant and seed."""
    if not result.is_file():
        return None
    stored = json.loads(result.read_text(encoding="utf-8"))
    if stored.pop("key") != key:
        return None
    stored["curve"] = [(step, values) for step, values in stored["curve"]]
    stored["gradients"] = {place: [tuple(p) for p in curve] for place, curve in stored["gradients"].items()}
    return Run(**stored)


def _train(
    experiment: Task,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    run: Run,
    step: int,
    carry: Carry,
    state: Path,
    key: dict[str, Any],
) -> None:
    training = experiment.training
    stop: list[int] = []
    handlers = {s: signal.signal(s, lambda number, frame: stop.append(number)) for s in (signal.SIGINT, signal.SIGTERM)}
    began, written = time.process_time(), time.monotonic()
    try:
        while step < training.steps:
            model.train()
            torch.manual_seed(run.seed * 1_000_003 + step)  # dropout's
            loss, carry = experiment.loss(model, step, run.seed, carry)
            if not math.isfinite(loss.item()):
                run.diverged_at = step  # a result, too
                run.seconds += time.process_time() - began
                return
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), training.clip_norm)
            for group in optimizer.param_groups:
                group["lr"] = training.rate(step)
            optimizer.step()
            step += 1
            if step % training.evaluate_every == 0 or step == training.steps:
                run.seconds += time.process_time() - began
                model.eval()
                with torch.no_grad():
                    values = experiment.evaluate(model)
                if not all(map(math.isfinite, values.values())):
                    run.diverged_at = step
                    return
                run.curve.append((step, values))
                began = time.process_time()
            if stop or time.monotonic() - written > 60:
                seconds = run.seconds + time.process_time() - began
                carried = None if carry is None else list(carry)
                parts = {"module": model.state_dict(), "optimizer": optimizer.state_dict(), "carry": carried}
                save_state(
                    state, {"key": json.dumps(key), "step": step, "curve": run.curve, "seconds": seconds, **parts}
                )
                written = time.monotonic()
            if stop:
                raise KeyboardInterrupt
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _restore(
    path: Path, key: dict[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer, run: Run
) -> tuple[int, Carry]:
    """Step and carry to go on from; 0 and nothing where there is no state of these settings."""
    if not path.is_file():
        return 0, None
    state = load_state(path)
    if state["key"] != json.dumps(key):
        return 0, None
    model.load_state_dict(state["module"])
    optimizer.load_state_dict(state["optimizer"])
    run.curve, run.seconds = [(step, values) for step, values in state["curve"]], state["seconds"]
    return state["step"], None if state["carry"] is None else tuple(state["carry"])


def _look(experiment: Task, model: nn.Module, run: Run) -> None:
    """Gates and gradients of one fresh batch, dropout off."""
    model.eval()
    with watch_gates(model) as watched:
        loss, _ = experiment.loss(model, experiment.training.steps, run.seed, None)
        loss.backward()
    run.gates, run.gradients = watched_shares(watched)


def watched_shares(
    watched: dict[str, Record],
) -> tuple[dict[str, dict[str, dict[str, Any]]], dict[str, list[tuple[int, float]]]]:
    """`gates` and `gradients` of a `Run`, from what was recorded."""
    gates = {place: {name: _shares(record, name) for name in record.gates} for place, record in watched.items()}
    return gates, {place: record.gradient_curve() for place, record in watched.items()}


def _shares(record: Record, name: str) -> dict[str, Any]:
    gate = record.gates[name]
    return {
        **record.summary()[name],
        "vanilla": gate.vanilla.counts.tolist(),
        "effective": gate.effective.counts.tolist(),
    }


def _hidden_size(model: nn.Module) -> int:
    return next(int(part.hidden_size) for part in model.modules() if isinstance(part, nn.RNNBase | nn.RNNCellBase))
