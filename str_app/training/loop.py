"""The training loop: one run from its first step, or from where it stopped, to its last."""

from __future__ import annotations

import itertools
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from str_app.datasets.augmentation import Augmentation
from str_app.datasets.opening import open_source
from str_app.engines.load import checkpoint_file, make_engine
from str_app.engines.precision import has_bf16, resolve_precision
from str_app.errors import StrAppError
from str_app.evaluation.protocol import SetResult, evaluate_source
from str_app.models.charset import PRINTABLE_94, Charset
from str_app.models.checkpoint import load_checkpoint, save_checkpoint
from str_app.models.recognizer import Recognizer
from str_app.models.transfer import transfer_weights
from str_app.reader import Reader
from str_app.training.distributed import World, join_world, share_batch_norms
from str_app.training.finishing import calibrate_and_score
from str_app.training.objective import Objective
from str_app.training.optimizers import Optimizers
from str_app.training.run_logger import RunLogger
from str_app.training.samples import Batch, Positions, TrainingSamples
from str_app.training.settings import TrainSettings, save_settings
from str_app.training.state import load_state, save_state


class Stopped(StrAppError):  # noqa: N818 - not a failure: the run was asked to stop and can go on
    """A signal ended the run after its state was written."""

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message)
        self.signum = signum


def train(settings: TrainSettings, out: Path, *, resume: bool = False) -> None:
    """Run the settings; write `last.pt` (state), `best.safetensors`, `last.safetensors` and metrics under `out`.

    Interrupted at any step and resumed, it ends with the weights of an uninterrupted run (on the CPU, with the same
    number of threads). Under torchrun, `batch_size` is shared among the processes.

    Args:
        settings: see `TrainSettings`.
        out: the run's folder.
        resume: go on from `out/last.pt`.

    Raises:
        StrAppError: settings that do not fit each other, data that cannot be used, a loss that is no number.
        Stopped: SIGINT or SIGTERM came; the state has been written.
    """
    device = torch.device(settings.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if settings.threads:
        torch.set_num_threads(settings.threads)
    with join_world(device) as world, _stop_signals() as stop:
        if device.type == "cuda":
            device = torch.device("cuda", world.local_rank)
            torch.cuda.set_device(device)
        if settings.batch_size % world.size:
            raise StrAppError(f"batch_size={settings.batch_size} cannot be shared by {world.size} processes")
        _Run(settings, out, device, world, resume).go(stop)


class _Run:
    """The objects of one run. `go` is the loop; the rest is what it is made of."""

    def __init__(self, settings: TrainSettings, out: Path, device: torch.device, world: World, resume: bool) -> None:
        self.settings, self.out, self.device, self.world = settings, out, device, world
        self.state_path = out / "last.pt"
        self.precision = resolve_precision(settings.precision, has_bf16(device))
        if not resume and self.state_path.exists():
            raise StrAppError(f"{out} holds a run already: add --resume to go on with it, or choose another --out")
        self.sources = [open_source(Path(path)) for path in settings.train]
        self.validation = [open_source(Path(path)) for path in settings.validation]

        # Processes that step alone between means exchange nothing else either.
        self.alone = world.size > 1 and settings.average_every > 0
        self.partners = World() if self.alone else world
        torch.manual_seed(settings.seed)
        self.model, self.before = _initial_model(settings, resume)
        if settings.frozen_stages:
            self.model.backbone.freeze(settings.frozen_stages)
        if self.partners.size > 1:
            share_batch_norms(self.model)
        self.objective = Objective(
            self.model,
            settings.label_smoothing,
            ctc=settings.ctc_weight > 0 or settings.ctc_weight_end > 0,
            attention=settings.attention_weight > 0 or settings.attention_weight_end > 0,
        ).to(device)
        self.objective.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.averaged = AveragedModel(self.model, multi_avg_fn=_averaging(settings.ema_decay))
        self.optimizers = Optimizers(self.objective, settings)
        self.step = 0
        self.best = -1.0
        self.seen = 0
        self.unusable = 0
        if resume:
            self._restore(load_state(self.state_path))
        elif world.is_main:
            out.mkdir(parents=True, exist_ok=True)
            save_settings(self.settings, out / "settings.json")
        self.wrapped: nn.Module = self.objective
        if self.partners.size > 1:
            ids = [device.index] if device.type == "cuda" else None
            # Batch statistics are the same everywhere (share_batch_norms), so there is nothing to broadcast.
            self.wrapped = DistributedDataParallel(self.objective, device_ids=ids, broadcast_buffers=False)

    def go(self, stop: list[int]) -> None:
        settings = self.settings
        self.objective.train()
        losses = torch.zeros(5, device=self.device)  # the objective's three sums, characters + ends, characters
        logged = written = time.monotonic()
        logged_step = self.step
        with RunLogger(self.out, self.step, settings.steps, quiet=not self.world.is_main) as logger:
            logger.say(self._describe())
            for batch in self._batches():
                losses += self._update(batch.to(self.device))
                self._count(batch, logger)
                self.step += 1
                logger.advance(self.step)
                last = self.step == settings.steps
                if self.alone:
                    if self.step % settings.average_every and not last:
                        continue
                    self.world.average_([*self.objective.state_dict().values(), *self.optimizers.tensors()])
                if self.step % settings.log_every == 0 or last:
                    now = time.monotonic()
                    rate = (self.step - logged_step) * settings.batch_size / (now - logged)
                    self._log(logger, losses, rate)
                    losses.zero_()
                    logged, logged_step = now, self.step
                if self.validation and (self.step % settings.validate_every == 0 or last):
                    self._validate(logger)
                    logged, logged_step = time.monotonic(), self.step
                stopping = self._any(bool(stop))
                if last or stopping or self._any(time.monotonic() - written > 60 * settings.checkpoint_minutes):
                    self._write()
                    self._any(False)  # the others wait here
                    written = time.monotonic()
                if stopping and not last:
                    signum = stop[0] if stop else signal.SIGTERM
                    raise Stopped(f"stopped after step {self.step}; go on with --out {self.out} --resume", signum)
            if self.world.is_main:
                self._finish(logger)

    def _batches(self) -> Iterator[Batch]:
        """This process's batches from the present step on."""
        settings, model = self.settings, self.model
        samples = TrainingSamples(
            self.sources,
            settings.weights,
            model.charset,
            model.preprocessing,
            model.architecture.max_length,
            Augmentation(settings.augmentation),
            settings.seed,
            settings.group,
        )
        first, world = self.step, self.world
        positions = Positions(first, settings.steps, settings.batch_size, settings.group, world.rank, world.size)
        groups: DataLoader[list[Batch]] = DataLoader(
            samples,
            batch_sampler=positions,
            num_workers=settings.workers,
            collate_fn=list,
            prefetch_factor=2 if settings.workers else None,
            pin_memory=self.device.type == "cuda",
            worker_init_fn=_start_worker,
        )
        batches = itertools.chain.from_iterable(groups)
        return itertools.islice(batches, first % settings.group, first % settings.group + settings.steps - first)

    def _update(self, batch: Batch) -> Tensor:
        """One optimiser step; the batch's loss sums and counts, (5,)."""
        settings = self.settings
        self.optimizers.set_rate(schedule(self.step, settings))
        # Dropout depends on the step alone, so a resumed run needs no generator state.
        torch.manual_seed((settings.seed * 1_000_003 + self.step) * 1009 + self.world.rank)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            sums = self.wrapped(*batch[:5])
        characters = batch.lengths.sum()
        counts = self.partners.sum(torch.stack([characters + len(batch.lengths), characters]).to(sums))
        falling = min(1.0, 2 * self.step / settings.steps)
        ctc = settings.ctc_weight + (settings.ctc_weight_end - settings.ctc_weight) * falling
        outside = settings.attention_weight + (settings.attention_weight_end - settings.attention_weight) * falling
        loss = sums[0] / counts[0] + (ctc * sums[1] + outside * sums[2]) / counts[1].clamp_min(1)
        self.optimizers.zero_grad()
        (loss * self.partners.size).backward()  # DDP takes the mean over processes; the sums are of the whole batch
        nn.utils.clip_grad_norm_(self.objective.parameters(), settings.clip_norm)
        self.optimizers.step()
        self.averaged.update_parameters(self.model)
        return torch.cat([self.partners.sum(sums.detach()), counts])

    def _count(self, batch: Batch, logger: RunLogger) -> None:
        """Keep the share of unusable samples in view; stop when it is past the limit."""
        seen, unusable = self.partners.sum(torch.tensor([batch.seen, len(batch.unusable)])).tolist()
        for reason in batch.unusable[: max(0, 5 - self.unusable)]:
            logger.say(f"skipped: {reason}")
        self.seen += seen
        self.unusable += unusable
        limit = self.settings.unusable_limit
        if self.seen >= 1000 and self.unusable > limit * self.seen:
            raise StrAppError(
                f"{self.unusable} of {self.seen} samples are unusable, more than unusable_limit={limit:g}; "
                f"the last: {batch.unusable[-1] if batch.unusable else 'in another process'}"
            )

    def _log(self, logger: RunLogger, losses: Tensor, rate: float) -> None:
        characters, ctc, outside, ends, count = losses.tolist()
        values = {
            "loss/characters": characters / ends,
            "loss/ctc": ctc / max(count, 1),
            "loss/attention": outside / max(count, 1),
            "learning_rate": self.settings.learning_rate * schedule(self.step - 1, self.settings),
            "samples_per_second": rate,
            "unusable": float(self.unusable),
        }
        if not all(map(math.isfinite, values.values())):
            raise StrAppError(
                f"step {self.step}: the loss is no number any more; {self.state_path} is from before: resume with a "
                "lower learning_rate"
            )
        parts = (f"loss {values['loss/characters']:.3f}", f"ctc {values['loss/ctc']:.3f}", f"{rate:.0f} crops/s")
        logger.metrics(self.step, values, "  ".join(parts))

    def _validate(self, logger: RunLogger) -> None:
        """Score the averaged weights; keep them as best.safetensors when they are."""
        if self.world.is_main:
            limit = self.settings.validation_limit or None
            reader = Reader(make_engine(self._averaged_model(), device=str(self.device)), batch_size=64)
            # Without a search: young weights are sure of nothing, and all would be searched.
            results = [evaluate_source(reader, source, limit=limit, beam=1) for source in self.validation]
            scores = [result.score() for result in results]
            accuracy = sum(score.correct for score in scores) / sum(score.n for score in scores) * 100
            values = {f"accuracy/{score.name}": score.accuracy for score in scores}
            text = "  ".join(f"{score.name} {score.accuracy:.1f}" for score in scores)
            logger.metrics(self.step, {"accuracy": accuracy, **values}, f"validation {accuracy:.2f} ({text})")
            if accuracy > self.best:
                self.best = accuracy
                self._release("best.safetensors", results)
        self._any(False)  # the others wait here

    def _finish(self, logger: RunLogger) -> None:
        """Calibrate and score the best weights, or without validation data take the last as the best."""
        best = self.out / "best.safetensors"
        if not self.validation:
            self._release(best.name, [])
            return
        scores = [result.score() for result in calibrate_and_score(best, self.validation, str(self.device))]
        logger.say(f"{best}: " + ", ".join(f"{s.name} {s.accuracy:.2f} (n = {s.n}, ECE {s.ece:.1f})" for s in scores))

    def _release(self, name: str, results: list[SetResult]) -> None:
        info = {
            "name": self.settings.preset,
            "training": {
                "data": [source.name for source in self.sources],
                "steps": self.step,
                "batch_size": self.settings.batch_size,
                "samples_seen": self.step * self.settings.batch_size,
                **({"before": self.before} if self.before else {}),
            },
            "metrics": {"validation": [result.score().as_json() for result in results]},
        }
        save_checkpoint(self.out / name, self._averaged_model(), info)

    def _averaged_model(self) -> Recognizer:
        model = self.averaged.module
        assert isinstance(model, Recognizer)
        return model

    def _write(self) -> None:
        if not self.world.is_main:
            return
        self._release("last.safetensors", [])
        save_state(
            self.state_path,
            {
                "step": self.step,
                "best": self.best,
                "seen": self.seen,
                "unusable": self.unusable,
                "before": self.before,
                "objective": self.objective.state_dict(),
                "averaged": self.averaged.state_dict(),
                "optimizers": self.optimizers.state_dict(),
            },
        )

    def _restore(self, state: dict[str, Any]) -> None:
        try:
            self.objective.load_state_dict(state["objective"])
            self.averaged.load_state_dict(state["averaged"])
            self.optimizers.load_state_dict(state["optimizers"])
            self.step, self.best = state["step"], state["best"]
            self.seen, self.unusable = state["seen"], state["unusable"]
            self.before = state.get("before", {})
        except (KeyError, RuntimeError, ValueError) as error:
            raise StrAppError(f"{self.state_path} does not fit these settings: {error}") from error
        if self.step >= self.settings.steps:
            raise StrAppError(f"{self.out}: all {self.settings.steps} steps are done; --set steps=N goes on to N")

    def _any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        return (self.world.size > 1 and bool(self.world.sum(torch.tensor(int(flag), device=self.device)))) or flag

    def _describe(self) -> str:
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        samples = sum(len(source) for source in self.sources)
        return (
            f"{self.settings.preset}: {parameters / 1e6:.1f}M parameters, {samples:,} samples in "
            f"{len(self.sources)} sets, step {self.step} of {self.settings.steps}, {self.device}, "
            f"{self.precision}, {self.world.size} process(es), {torch.get_num_threads()} threads"
        )


COOLING = 0.2  # share of a run in which a constant rate falls at last


def schedule(step: int, settings: TrainSettings) -> float:
    """Learning rate as a share of its peak: linear warm-up, then `settings.schedule` to a hundredth."""
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    if settings.schedule == "constant":
        return 0.01 + 0.99 * min(1.0, (settings.steps - step) / (COOLING * settings.steps))
    progress = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))


def _initial_model(settings: TrainSettings, resume: bool) -> tuple[Recognizer, dict[str, Any]]:
    """The network before its first step, and the training that the weights it starts from have had."""
    model = Recognizer(settings.architecture, Charset(settings.charset or PRINTABLE_94), settings.preprocessing)
    before: dict[str, Any] = {}
    if settings.start_from and not resume:
        start, info = load_checkpoint(checkpoint_file(settings.start_from))
        transfer_weights(start, model)
        before = info.get("training", {})
    return model, before


def _averaging(decay: float) -> Any:
    @torch.no_grad()
    def average(averaged: list[Tensor], current: list[Tensor], count: Tensor | int) -> None:
        # The young average follows quickly, or it would carry the random start along.
        weight = 1 - min(decay, (1 + int(count)) / (10 + int(count)))
        torch._foreach_lerp_(averaged, current, weight)

    return average


def _start_worker(worker: int) -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    # Ctrl-C and service managers signal the whole group. The main process decides when to stop: a worker that died
    # of the same signal would be an error there. Workers end with their parent in any case.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM instead of dying of the first; the second one of a kind acts as usual."""
    received: list[int] = []
    previous: dict[signal.Signals, Any] = {}

    def note(signum: int, frame: object) -> None:
        received.append(signum)
        signal.signal(signum, previous[signal.Signals(signum)])

    for signum in (signal.SIGINT, signal.SIGTERM):
        previous[signum] = signal.signal(signum, note)
    try:
        yield received
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
