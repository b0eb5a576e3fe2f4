"""Trains a word detector: one run, from its first step or its last state to its last step."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn
from torch.utils.data import DataLoader

from str_app.datasets.labelled_photos import LabelledPhoto, open_photos
from str_app.engines.graph_folder import sha256_of
from str_app.engines.precision import has_bf16
from str_app.errors import StrAppError
from str_app.models.checkpoint import replace_file
from str_app.models.detectors.word_detector import WordDetector, WordDetectorConfig
from str_app.training.averaging import averaged_copy
from str_app.training.data_workers import start_worker
from str_app.training.detection.objective import Losses, detector_losses
from str_app.training.detection.samples import DetectorBatch, SceneCrops, collate
from str_app.training.optimizers import Optimizers
from str_app.training.run_logger import METRICS, open_metrics
from str_app.training.schedules import constant
from str_app.training.state import load_state, lock_run, naming, save_state, stop_signals

STATE, WEIGHTS, SETTINGS = "last.pt", "last.safetensors", "settings.json"
FORMAT = "str-app-detector/1"  # of the weights


@dataclass(frozen=True)
class DetectorSettings:
    """Settings of a run; each is an option of `research/train_detector.py`.

    Attributes:
        steps: optimiser steps.
        batch_size: crops per step.
        side: of the crops, in pixels; a multiple of 32.
        optimizer: `muon` or `adamw`, as in `TrainSettings`.
        learning_rate, matrix_learning_rate: peaks of AdamW and Muon.
        warmup_steps: steps over which they rise to their peaks.
        cooling: share of the steps, at the end, over which they fall to a hundredth: until then, a run can be made
            longer or shorter (arXiv 2405.18392).
        weight_decay: on filters only.
        clip_norm: maximum norm of the gradients.
        ema_decay: of the averaged weights, which are the ones saved.
        seed: of initial weights and crops.
        workers: processes that cut crops; 0 does it in the training process.
        checkpoint_minutes: time between two states.
        log_every: steps between lines of losses.
    """

    steps: int = 60_000
    batch_size: int = 8
    side: int = 512
    optimizer: str = "muon"
    learning_rate: float = 1e-3
    matrix_learning_rate: float = 0.02
    warmup_steps: int = 50
    cooling: float = 0.2
    weight_decay: float = 0.01
    clip_norm: float = 5.0
    ema_decay: float = 0.999
    seed: int = 0
    workers: int = 1
    checkpoint_minutes: float = 3.0
    log_every: int = 50


def train_detector(
    out: Path, folders: Sequence[Path], settings: DetectorSettings, *, resume: bool = False, say: Any = print
) -> int:
    """Train; write `last.pt` (state) and `last.safetensors` (averaged weights) to `out`.

    Args:
        out: folder of the run.
        folders: of labelled photographs or scenes, for `open_photos`.
        settings: of the run.
        resume: continue from the state in `out`.
        say: gets lines of progress.

    Returns:
        0 at the last step, or the number of the signal that stopped the run.

    Raises:
        StrAppError: a run that exists already, does not or is going on, or a loss that is NaN or infinite.
    """
    if settings.side % 32:
        raise StrAppError(f"side={settings.side} is not a multiple of 32")
    if resume != (out / STATE).is_file():
        raise StrAppError(f"{out} holds {'no' if resume else 'a'} run: {'leave out' if resume else 'add'} --resume")
    if not resume and (out / WEIGHTS).exists():
        raise StrAppError(f"{out} holds the weights of a run, {WEIGHTS}, without its state: choose another folder")
    photos = [photo for folder in folders for photo in open_photos(folder)]
    torch.manual_seed(settings.seed % 2**63)
    model = WordDetector().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    averaged = averaged_copy(model, settings.ema_decay)
    if settings.optimizer not in ("muon", "adamw"):
        raise StrAppError(f"optimizer {settings.optimizer!r} is neither 'muon' nor 'adamw'")
    optimizers = Optimizers(model, settings)
    step = 0
    if resume:
        state = load_state(out / STATE)
        model.load_state_dict(state["model"])
        averaged.load_state_dict(state["averaged"])
        optimizers.load_state_dict(state["optimizers"])
        step = int(state["step"])
    out.mkdir(parents=True, exist_ok=True)
    lock = lock_run(out)
    replace_file(out / SETTINGS, (json.dumps(dataclasses.asdict(settings), indent=1) + "\n").encode())
    say(f"{model.num_parameters / 1e6:.2f}M parameters, {len(photos)} pictures, step {step} of {settings.steps}")

    def write() -> None:
        state = {
            "step": step,
            "model": model.state_dict(),
            "averaged": averaged.state_dict(),
            "optimizers": optimizers.state_dict(),
        }
        save_state(out / STATE, state)
        save_detector(out / WEIGHTS, averaged.module, {"steps": step, "crops": step * settings.batch_size})

    model.train()
    sums = torch.zeros(len(Losses._fields))
    written = logged = time.monotonic()
    logged_step = step
    bf16 = has_bf16(torch.device("cpu"))
    with lock, open_metrics(out, step) as metrics, stop_signals() as stop:
        for batch in _batches(photos, settings, step):
            optimizers.set_rate(constant(step, settings.steps, settings.warmup_steps, settings.cooling))
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                maps = model(batch.pictures.float().contiguous(memory_format=torch.channels_last))
            losses = detector_losses(maps, batch)
            optimizers.zero_grad()
            losses.total().backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
            if not norm.isfinite():
                raise StrAppError(f"step {step + 1}: gradients are NaN or infinite; resume with a lower learning rate")
            optimizers.step()
            averaged.update_parameters(model)
            step += 1
            sums += torch.stack([part.detach() for part in losses])
            now = time.monotonic()
            if step % settings.log_every == 0:
                values = dict(zip(Losses._fields, (sums / (step - logged_step)).tolist(), strict=True))
                parts = "  ".join(f"{name} {value:.3f}" for name, value in values.items())
                rate = (step - logged_step) * settings.batch_size / (now - logged)
                say(f"step {step}  {parts}  {rate:.1f} crops/s")
                with naming(out / METRICS):
                    metrics.write(json.dumps({"step": step, **values}) + "\n")
                    metrics.flush()
                sums.zero_()
                logged, logged_step = now, step
            if stop or step == settings.steps or now - written > 60 * settings.checkpoint_minutes:
                write()
                written = now
            if stop:
                return stop[0]
    return 0


def save_detector(path: Path, model: nn.Module, training: dict[str, Any]) -> None:
    """Write the weights with their settings, replacing `path` atomically."""
    assert isinstance(model, WordDetector)
    header = {"format": FORMAT, "config": dataclasses.asdict(model.config), "training": training}
    tensors = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    replace_file(path, safetensors.torch.save(tensors, metadata={"str_app": json.dumps(header)}))


def load_detector(path: Path) -> tuple[WordDetector, dict[str, Any]]:
    """What `save_detector` wrote: the network in evaluation mode, and facts with `sha256` of the file.

    Raises:
        StrAppError: missing, damaged, or other weights.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {})["str_app"])
        if header["format"] != FORMAT:
            raise ValueError(f"format {header['format']!r}; this version reads {FORMAT!r}")
        config: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in header["config"].items()}
        model = WordDetector(WordDetectorConfig(**config))
        model.load_state_dict(safetensors.torch.load_file(path))
    except (OSError, safetensors.SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise StrAppError(f"{path}: no weights of a word detector ({error})") from error
    facts = {**header["training"], "sha256": sha256_of(path)}
    return model.eval(), facts


def _batches(photos: Sequence[LabelledPhoto], settings: DetectorSettings, first: int) -> DataLoader[DetectorBatch]:
    size = settings.batch_size
    positions = [list(range(step * size, (step + 1) * size)) for step in range(first, settings.steps)]
    return DataLoader(
        SceneCrops(photos, settings.side, settings.seed),  # type: ignore[arg-type]
        batch_sampler=positions,
        num_workers=settings.workers,
        collate_fn=collate,
        prefetch_factor=4 if settings.workers else None,
        worker_init_fn=start_worker,
    )
