"""The training loop: one run, from its first step or its last state to its last step."""

from __future__ import annotations

import itertools
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from str_app.datasets.augmentation import Augmentation
from str_app.datasets.opening import open_source
from str_app.engines.load import checkpoint_file, make_engine, torch_device
from str_app.engines.precision import has_bf16, resolve_precision
from str_app.errors import StrAppError
from str_app.evaluation.protocol import SetResult, evaluate_source, numbered
from str_app.models.charset import PRINTABLE_94, Charset
from str_app.models.checkpoint import load_checkpoint, save_checkpoint
from str_app.models.recognizer import Recognizer
from str_app.models.transfer import transfer_weights
from str_app.reader import Reader
from str_app.training import schedules
from str_app.training.averaging import averaged_copy
from str_app.training.data_workers import start_worker
from str_app.training.distributed import World, join_world, share_batch_norms
from str_app.training.finishing import calibrate_and_score
from str_app.training.objective import Objective
from str_app.training.optimizers import Optimizers
from str_app.training.run_logger import CPU_SECONDS, RunLogger
from str_app.training.sample_usage import SampleUsage
from str_app.training.samples import (
    Batch,
    TrainingSamples,
    advice,
    check_source,
    shares_of_groups,
    why_unlearnable,
    why_unscorable,
)
from str_app.training.settings import TrainSettings, save_settings
from str_app.training.state import load_state, lock_run, naming, save_state, stop_signals

STATE = "last.pt"  # file of a run's training state, in its folder
BEST, LAST = "best.safetensors", "last.safetensors"  # its checkpoints
LEAST_CHECKED = 100  # samples from which on a share of unusable labels counts before the run
_ALLOW = "--set unusable_limit=… allows more"
MAX_SKIPPED = 10  # consecutive steps without finite gradients after which a run stops
FIRST_STATE = 30.0  # seconds of work after which the first state is written; then twice as long, up to the setting


class Diverged(StrAppError):  # noqa: N818 - as Stopped
    """The loss or the weights became NaN or infinite.

    Attributes:
        step: at which that was found.
    """

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step


class Stopped(StrAppError):  # noqa: N818 - not an error: the run was asked to stop and can be continued
    """A signal ended the run after its state had been written."""

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message)
        self.signum = signum


class Finished(StrAppError):  # noqa: N818 - nothing is wrong with the run
    """The run to be continued has done all its steps."""


def train(settings: TrainSettings, out: Path, *, resume: bool = False) -> None:
    """Train; write `last.pt` (state), `best.safetensors`, `last.safetensors` and metrics to `out`.

    A run that is interrupted at any step and resumed ends with the weights of an uninterrupted run (on the CPU, with
    the same number of threads). Under torchrun, `batch_size` is divided among the processes.

    Args:
        settings: see `TrainSettings`.
        out: the run's folder.
        resume: continue from `out/last.pt`.

    Raises:
        StrAppError: settings that contradict each other, unusable data, a file that cannot be written, or a loss that
            stays NaN or infinite.
        Stopped: SIGINT, SIGTERM or SIGHUP was received; the state has been written.
        Finished: nothing is left to continue.
    """
    device = torch_device(settings.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if settings.threads:
        torch.set_num_threads(settings.threads)
    with join_world(device) as world, stop_signals() as stop:
        if device.type == "cuda":
            if world.size > 1 or device.index is None:
                device = torch.device("cuda", world.local_rank)
            torch.cuda.set_device(device)
        if settings.batch_size % (world.size * settings.parts):
            raise StrAppError(
                f"batch_size={settings.batch_size} is not a multiple of the {world.size} processes × "
                f"parts={settings.parts}"
            )
        run = _Run(settings, out, device, world, resume)
        with run.lock or nullcontext():
            run.go(stop)


class _Run:
    """The objects of one run. `go` is the loop, which calls the other methods."""

    def __init__(self, settings: TrainSettings, out: Path, device: torch.device, world: World, resume: bool) -> None:
        self.settings, self.out, self.device, self.world = settings, out, device, world
        self.state_path = out / STATE
        # Fine-tuned weights are not those of the preset any more.
        self.name = settings.name or (out.resolve().name if settings.start_from else settings.preset)
        self.precision = resolve_precision(settings.precision, has_bf16(device))
        if not resume:
            _refuse_earlier_run(out)
        self.sources = [open_source(Path(path)) for path in settings.train]
        self.validation = [open_source(Path(path)) for path in settings.validation]

        # With local SGD, processes exchange nothing between two averages: each is a world of its own.
        self.local_sgd = world.size > 1 and settings.average_every > 0
        self.sync_world = World() if self.local_sgd else world
        torch.manual_seed(settings.seed % 2**63)
        self.model, self.before = _initial_model(settings, resume)
        charset, max_length = self.model.charset, self.model.architecture.max_length

        def problem_of(label: str) -> str:
            return why_unlearnable(charset.spelled(label), charset, max_length)

        checked = [check_source(source, problem_of) for source in self.sources]
        sizes = [len(source) for source in self.sources]
        if sum(sizes) >= LEAST_CHECKED:
            _refuse_unusable(checked, settings.weights or sizes, settings.unusable_limit)
        for source in self.validation:
            check_source(source, lambda text: why_unscorable(text, charset))
        if self.sync_world.size > 1:
            share_batch_norms(self.model)
        if settings.frozen_stages:  # after that: batch norms are new modules
            self.model.backbone.freeze(settings.frozen_stages)
        self.objective = Objective(
            self.model,
            settings.label_smoothing,
            ctc=settings.ctc_weight > 0 or settings.ctc_weight_end > 0,
            attention=settings.attention_weight > 0 or settings.attention_weight_end > 0,
            loss_limit=settings.loss_limit,
        ).to(device)
        self.objective.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.averaged = averaged_copy(self.model, settings.ema_decay)
        self.optimizers = Optimizers(self.objective, settings)
        self.step = 0
        self.best = -1.0
        self.usage = SampleUsage([len(source) for source in self.sources])
        self.skipped = 0  # consecutive steps without an update
        self.pending = False  # whether the validation of this step, or the end of the run, is still to come
        self.finished = False  # whether the best weights of this step's run are calibrated and scored
        if resume:
            self._restore(load_state(self.state_path))
        self.lock: IO[str] | None = None
        if world.is_main:  # only now: settings that cannot be used must not replace those of a run
            out.mkdir(parents=True, exist_ok=True)
            self.lock = lock_run(out)
            with naming(out / "settings.json"):
                save_settings(self.settings, out / "settings.json")
        self.wrapped: nn.Module = self.objective
        if self.sync_world.size > 1:
            ids = [device.index] if device.type == "cuda" else None
            # Batch statistics are the same in all processes (share_batch_norms): no need to broadcast them.
            self.wrapped = DistributedDataParallel(self.objective, device_ids=ids, broadcast_buffers=False)

    def go(self, stop: list[int]) -> None:
        settings = self.settings
        self.objective.train()
        losses = torch.zeros(5, device=self.device)  # sums of the three losses, characters + ends, characters
        logged_step = self.step
        with RunLogger(
            self.out, self.step, settings.steps, quiet=not self.world.is_main, revalidate=self.pending
        ) as logger:
            logger.say(self._describe())
            if self.pending:
                self._validate(logger)
            elif self.step == 0:
                self._write()
            logged = written = time.monotonic()
            cpu_logged = time.process_time()
            patience = FIRST_STATE
            for parts in self._batches():
                losses += self._update([part.to(self.device) for part in parts], logger)
                for reason in itertools.chain.from_iterable(map(self.usage.count, parts)):
                    logger.say(f"skipped: {reason}")
                self.step += 1
                logger.advance(self.step)
                last = self.step == settings.steps
                if self.local_sgd:
                    if self.step % settings.average_every and not last:
                        continue
                    self.world.average_([*self.objective.state_dict().values(), *self.optimizers.tensors()])
                if self.step % settings.log_every == 0 or last:
                    now, cpu_now = time.monotonic(), time.process_time()
                    self._check_usage()
                    rate = (self.step - logged_step) * settings.batch_size / (now - logged)
                    self._log(logger, losses, rate, (cpu_now - cpu_logged) / (self.step - logged_step))
                    losses.zero_()
                    logged, cpu_logged, logged_step = now, cpu_now, self.step
                self.pending = last or (bool(self.validation) and self.step % settings.validate_every == 0)
                stopping = self._any(bool(stop))
                at_risk = min(patience, 60 * settings.checkpoint_minutes)
                if self.pending or stopping or self._any(time.monotonic() - written > at_risk):
                    self._write()
                    written, patience = time.monotonic(), 2 * patience
                if last or (self.pending and not stopping):
                    self._validate(logger)
                    logged, cpu_logged, logged_step = time.monotonic(), time.process_time(), self.step
                if stopping and not last:
                    signum = stop[0] if stop else signal.SIGTERM
                    raise Stopped(
                        f"stopped after step {self.step}; continue with --out {self.out} --resume, or end the run here "
                        f"with --set steps={self.step} as well: that calibrates and scores the best weights",
                        signum,
                    )
            if self.world.is_main:
                self._finish(logger)
            self.pending, self.finished = False, True
            self._write()

    def _batches(self) -> Iterator[tuple[Batch, ...]]:
        """This process's batches from the current step on, each as its parts."""
        settings, model = self.settings, self.model
        samples = TrainingSamples(
            self.sources,
            settings.weights,
            model.charset,
            model.preprocessing,
            model.architecture.max_length,
            Augmentation(settings.augmentation),
            settings.seed,
            settings.group * settings.parts,
        )
        first, world = self.step, self.world
        positions = shares_of_groups(first, settings.steps, settings.batch_size, settings.group, world.rank, world.size)
        groups: DataLoader[list[Batch]] = DataLoader(
            samples,
            batch_sampler=positions,
            num_workers=settings.workers,
            collate_fn=list,
            prefetch_factor=2 if settings.workers else None,
            pin_memory=self.device.type == "cuda",
            worker_init_fn=start_worker,
        )
        batches = zip(*[itertools.chain.from_iterable(groups)] * settings.parts, strict=True)
        return itertools.islice(batches, first % settings.group, first % settings.group + settings.steps - first)

    def _update(self, parts: Sequence[Batch], logger: RunLogger) -> Tensor:
        """One optimiser step. Returns the batch's sums of losses and its counts, (5,); zeros if it was skipped."""
        settings = self.settings
        self.optimizers.set_rate(schedule(self.step, settings))
        # Dropout depends on the step only, so that a resumed run needs no generator state.
        torch.manual_seed(((settings.seed * 1_000_003 + self.step) * 1009 + self.world.rank) % 2**63)
        characters = torch.stack([part.lengths.sum() for part in parts]).sum()
        with_ends = characters + sum(len(part.lengths) for part in parts)
        counts = self.sync_world.sum(torch.stack([with_ends, characters]).float())
        progress = min(1.0, 2 * self.step / settings.steps)
        ctc = settings.ctc_weight + (settings.ctc_weight_end - settings.ctc_weight) * progress
        attention = settings.attention_weight + (settings.attention_weight_end - settings.attention_weight) * progress
        sums = torch.zeros(3, device=self.device)
        self.optimizers.zero_grad()
        for part in parts:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                losses = self.wrapped(*part[:5])
            loss = losses[0] / counts[0].clamp_min(1) + (ctc * losses[1] + attention * losses[2]) / counts[1].clamp_min(
                1
            )
            # DDP averages gradients over the processes, while the loss is normalised by the whole batch.
            (loss * self.sync_world.size).backward()
            sums += losses.detach()
        norm = nn.utils.clip_grad_norm_(self.objective.parameters(), settings.clip_norm)
        sums = self.sync_world.sum(sums)
        if not (norm.isfinite() and sums.isfinite().all()):  # the same in all processes
            self._skip(logger)
            return torch.zeros(5, device=self.device)
        self.skipped = 0
        self.optimizers.step()
        self.averaged.update_parameters(self.model)
        return torch.cat([sums, counts])

    def _skip(self, logger: RunLogger) -> None:
        """Undo what a forward pass with NaN or infinite values changed; stop if there are too many in a row."""
        for buffer, good in zip(self.model.buffers(), self.averaged.module.buffers(), strict=True):
            buffer.copy_(good)  # batch norm statistics; `averaged` has those of the last update
        self.skipped += 1
        logger.say(f"step {self.step + 1} skipped: loss or gradients are NaN or infinite ({self.skipped} in a row)")
        if self.skipped == MAX_SKIPPED:
            raise Diverged(
                f"loss is NaN or infinite at step {self.step + 1}: {MAX_SKIPPED} steps in a row were skipped. "
                f"{self._kept()}; resume with a lower learning_rate",
                self.step + 1,
            )

    def _check_usage(self) -> None:
        """Merge the counts of all processes, and stop if too many samples are unusable."""
        self.usage.merge(self.world)
        seen, unusable = self.usage.seen, len(self.usage.unusable)
        limit = self.settings.unusable_limit
        if self.usage.positions >= 1000 and unusable > limit * seen:
            raise StrAppError(
                f"{unusable} of {seen} samples are unusable, more than unusable_limit={limit:g}; the last: "
                f"{self.usage.last_reason or 'in another process'}{advice(self.usage.last_reason)}; {_ALLOW}"
            )

    def _log(self, logger: RunLogger, losses: Tensor, rate: float, cpu_seconds_per_step: float) -> None:
        cross_entropy, ctc, attention, with_ends, characters = losses.tolist()
        if not with_ends:  # no step of the interval had a usable sample or finite gradients
            return
        values = {
            "loss/characters": cross_entropy / with_ends,
            "loss/ctc": ctc / max(characters, 1),
            "loss/attention": attention / max(characters, 1),
            "learning_rate": self.settings.learning_rate * schedule(self.step - 1, self.settings),
            "samples_per_second": rate,
            CPU_SECONDS: cpu_seconds_per_step,
            "unusable": float(len(self.usage.unusable)),
        }
        parts = (f"loss {values['loss/characters']:.3f}", f"ctc {values['loss/ctc']:.3f}", f"{rate:.0f} crops/s")
        logger.metrics(self.step, values, "  ".join(parts))

    def _validate(self, logger: RunLogger) -> None:
        """Score the averaged weights, and keep them as best.safetensors if they are the best so far."""
        if self.validation and self.world.is_main:
            limit = self.settings.validation_limit or None
            reader = Reader(make_engine(self._averaged_model(), device=str(self.device)), batch_size=64)

            def heartbeat(_: int) -> None:
                logger.heartbeat(f"validating step {self.step} …")

            # Greedy: early in training no reading is certain, and all of them would be searched.
            results = [
                evaluate_source(reader, source, limit=limit, beam=1, on_progress=heartbeat)
                for source in self.validation
            ]
            scores = [result.score() for result in results]
            accuracy = sum(score.correct for score in scores) / sum(score.n for score in scores) * 100
            by_name = dict(zip(numbered(score.name for score in scores), scores, strict=True))
            values = {f"accuracy/{name}": score.accuracy for name, score in by_name.items()}
            text = "  ".join(f"{name} {score.accuracy:.1f}" for name, score in by_name.items())
            logger.metrics(self.step, {"accuracy": accuracy, **values}, f"validation {accuracy:.2f} ({text})")
            if accuracy > self.best:
                self.best = accuracy
                self._release(BEST, results)
        self.pending = self.step == self.settings.steps  # the end is still to come
        self._any(False)  # the other processes wait here

    def _finish(self, logger: RunLogger) -> None:
        """Calibrate and score the best weights; without validation data, the last weights are the best."""
        best = self.out / BEST
        if not self.validation:
            self._release(best.name, [])
            return
        results = calibrate_and_score(
            best, self.validation, str(self.device), lambda _: logger.heartbeat(f"scoring {best} …")
        )
        scores = [result.score() for result in results]
        logger.say(f"{best}: " + ", ".join(f"{s.name} {s.accuracy:.2f} (n = {s.n}, ECE {s.ece:.1f})" for s in scores))

    def _release(self, name: str, results: list[SetResult]) -> None:
        self._check_finite()
        info = {
            "name": self.name,
            "training": {
                "data": [source.name for source in self.sources],
                "steps": self.step,
                "batch_size": self.settings.batch_size,
                "samples_seen": self.step * self.settings.batch_size,
                **({"before": self.before} if self.before else {}),
            },
            "metrics": {"validation": [result.score().as_json() for result in results]},
        }
        with naming(self.out / name):
            save_checkpoint(self.out / name, self._averaged_model(), info)

    def _averaged_model(self) -> Recognizer:
        model = self.averaged.module
        assert isinstance(model, Recognizer)
        return model

    def _check_finite(self) -> None:
        """Raise Diverged rather than overwrite good weights with NaN or infinite ones."""
        for module in (self.objective, self.averaged):
            for name, tensor in module.state_dict().items():
                if not tensor.isfinite().all():
                    raise Diverged(
                        f"weights are NaN or infinite at step {self.step}: {name}. {self._kept()}; resume with a lower "
                        "learning_rate",
                        self.step,
                    )

    def _kept(self) -> str:
        """The files of the run that hold its last good weights, for messages."""
        names = [name for name in (STATE, LAST, BEST) if (self.out / name).is_file()]
        return f"{self.out} keeps {', '.join(names)} from before" if names else f"{self.out} holds no weights yet"

    def _write(self) -> None:
        """Write the state and the averaged weights; the other processes wait."""
        self.usage.merge(self.world)
        if self.world.is_main:
            self._check_finite()
            state = {
                "step": self.step,
                "best": self.best,
                "pending": self.pending,
                "finished": self.finished,
                "scored_on": self._scored_on(),
                "before": self.before,
                "usage": self.usage.state_dict(),
                "objective": self.objective.state_dict(),
                "averaged": self.averaged.state_dict(),
                "optimizers": self.optimizers.state_dict(),
            }
            save_state(self.state_path, state)
            self._release(LAST, [])  # after the state, without which weights keep a run from being started again
        self._any(False)

    def _restore(self, state: dict[str, Any]) -> None:
        try:
            self.objective.load_state_dict(state["objective"])
            self.averaged.load_state_dict(state["averaged"])
            self.optimizers.load_state_dict(state["optimizers"])
            self.step, self.best = state["step"], state["best"]
            # Older states lack these.
            self.before = state.get("before", {})
            self.pending = state.get("pending", False)
            finished, scored_on = state.get("finished", True), self._scored_on()
            if state.get("scored_on", scored_on) != scored_on:
                self.best = -1.0  # of other crops: not to be compared
        except (KeyError, RuntimeError, ValueError) as error:
            raise StrAppError(f"{self.state_path} does not match these settings: {error}") from error
        steps = self.settings.steps
        if self.step > steps and not finished:
            raise StrAppError(
                f"{self.out}: step {self.step} is past steps={steps}; --set steps={self.step} ends the run there, "
                "--set steps=N continues to N"
            )
        if self.step >= steps and not self.pending:
            if finished:
                raise Finished(f"{self.out}: all {steps} steps are done; --set steps=N continues to N")
            self.pending = True

    def _scored_on(self) -> list[str | int]:
        """Names and sizes of the validation sets, and the limit: accuracies of others are not comparable."""
        sets = [part for source in self.validation for part in (source.name, len(source))]
        return [*sets, self.settings.validation_limit]

    def _any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        return (self.world.size > 1 and bool(self.world.sum(torch.tensor(int(flag), device=self.device)))) or flag

    def _describe(self) -> str:
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        samples = sum(len(source) for source in self.sources)
        return (
            f"{self.name}: {parameters / 1e6:.1f}M parameters, {samples:,} samples in "
            f"{len(self.sources)} sets, step {self.step} of {self.settings.steps}, {self.device}, "
            f"{self.precision}, {self.world.size} process(es), {torch.get_num_threads()} threads"
        )


def schedule(step: int, settings: TrainSettings) -> float:
    """Learning rate as a share of its peak."""
    follow = {"cosine": schedules.cosine, "constant": schedules.constant}[settings.schedule]
    return follow(step, settings.steps, settings.warmup_steps)


def new_network(settings: TrainSettings) -> Recognizer:
    """The network of these settings, with fresh weights.

    Raises:
        StrAppError: there can be none, as with a size of 0.
    """
    charset = Charset(settings.charset or PRINTABLE_94)
    try:
        return Recognizer(settings.architecture, charset, settings.preprocessing)
    except (ValueError, RuntimeError, ZeroDivisionError) as error:
        raise StrAppError(f"no network can be built from these settings: {error}") from error


def _initial_model(settings: TrainSettings, resume: bool) -> tuple[Recognizer, dict[str, Any]]:
    """The network before its first step, and the training record of the weights that it starts from."""
    model = new_network(settings)
    before: dict[str, Any] = {}
    if settings.start_from and not resume:
        start, info = load_checkpoint(checkpoint_file(settings.start_from))
        transfer_weights(start, model)
        before = info.get("training", {})
    return model, before


def _refuse_earlier_run(out: Path) -> None:
    """Raise StrAppError if the folder has a run, or its weights: a new one would overwrite them."""
    if (out / STATE).exists():
        raise StrAppError(f"{out} contains a run already: add --resume to continue it, or choose another --out")
    for weights in (BEST, LAST):
        if (out / weights).exists():
            raise StrAppError(
                f"{out} contains the weights of a run, {weights}, without its state, {STATE}: they would be "
                f"overwritten; choose another --out (and --from {out / weights} to go on from them)"
            )


def _refuse_unusable(checked: Sequence[tuple[float, str]], weights: Sequence[float], limit: float) -> None:
    """Raise StrAppError if more labels than `limit` are unusable: the run would stop for them later.

    Args:
        checked: what `check_source` returned for each source.
        weights: of each source.
        limit: `TrainSettings.unusable_limit`.
    """
    share = sum(weight * unusable for weight, (unusable, _) in zip(weights, checked, strict=True)) / sum(weights)
    if share > limit:
        _, reason = max(zip(weights, checked, strict=True), key=lambda each: each[0] * each[1][0])[1]
        raise StrAppError(
            f"{100 * share:.3g} % of the labels checked are unusable, more than unusable_limit={limit:g}; "
            f"one of them: {reason}{advice(reason)}; {_ALLOW}"
        )
