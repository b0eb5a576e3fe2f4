"""Every setting of a training run, with its default and the reason for it."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from str_app.datasets.sample import DataError
from str_app.datasets.text_files import read_json_object
from str_app.engines.load import checkpoint_file
from str_app.engines.options import EngineOptions
from str_app.engines.precision import Precision
from str_app.errors import StrAppError
from str_app.models.backbones import BACKBONES
from str_app.models.checkpoint import load_checkpoint, replace_file
from str_app.models.decoders import DECODERS
from str_app.models.preprocessing import Preprocessing
from str_app.models.presets import get_preset
from str_app.models.recognizer import RecognizerConfig, section_config
from str_app.models.stored_config import FORMER_KEYS
from str_app.models.transfer import can_grow

REGISTRIES: dict[str, Any] = {"backbone": BACKBONES, "decoder": DECODERS}


@dataclass(frozen=True)
class TrainSettings:
    """Settings of a run. `--set key=value` changes any of them but `preset` and `start_from`, which are options.

    Attributes:
        preset: architecture, preprocessing and charset are this preset's, unless `start_from` is given.
        architecture: sizes and choices of the network; single ones by keys such as `architecture.backbone.blocks`,
            `architecture.decoder.hidden_size` or `architecture.max_length`.
        preprocessing: canvases; single choices by `preprocessing.KEY`, also with `start_from`.
        train: data sets to train on, LMDBs or folders.
        weights: share of each training set; empty is in proportion to their sizes.
        validation: data sets by which the best checkpoint is chosen.
        charset: characters to learn, in order; empty is the 94 printable ASCII characters.
        start_from: name or path of a checkpoint to start from; empty is from scratch. Architecture, preprocessing and
            charset are the checkpoint's then, and some defaults are those of `FINE_TUNING`.
        name: of the checkpoints; empty is the preset's name or, with `start_from`, the name of the run's folder.
        frozen_stages: with `start_from`, number of the backbone's first stages that, with the stem, are not trained; 0
            trains everything. 1 saves a seventh of a step's time, and with few crops there is less to forget.
        steps: optimiser steps.
        batch_size: samples per step, over all processes.
        parts: number of parts in which a process's share of a batch passes through the network, while gradients add up:
            less memory, and each part has a canvas as narrow as its own crops need. Batch statistics are a part's.
        average_every: with several processes. 0: gradients are averaged at every step, as if one process trained (on
            other batches, since each sorts its own share of a group). N: each process takes steps of its own on its
            share of the batch, and every N steps weights and moments are averaged (local SGD, arXiv 1805.09767): nearly
            no time is lost, even over a slow connection.
        group: number of batches whose samples are sorted by width together, so that most batches need only a narrow
            canvas; 1 does not sort.
        optimizer: `muon` for filters and matrices with AdamW for the rest, or `adamw` for everything.
        learning_rate: AdamW's peak.
        matrix_learning_rate: Muon's peak.
        warmup_steps: steps over which both rise linearly to their peaks.
        schedule: from there to a hundredth of the peak at the last step: `cosine`, or `constant` until a fifth of the
            steps is left, then linear. With `constant` the length of a run can be changed on the way (arXiv
            2405.18392): resumed with fewer `steps`, it ends as well as one planned that long.
        weight_decay: AdamW's, on matrices and filters only.
        clip_norm: maximum norm of the gradients; recurrent networks have bursts without it.
        ema_decay: of the averaged weights, which are the ones validated and saved as best.
        label_smoothing: of the cross-entropy.
        loss_limit: samples whose cross-entropy exceeds so many nats per token have no part in the losses: illegible or
            mislabelled ones, 2 % of our renderings, make up a fifth of the loss. 0 is no limit. Not from scratch, where
            every sample is above it at first.
        ctc_weight, ctc_weight_end: weight of the auxiliary CTC loss on the feature map, at first and after the first
            half of the run, linear in between. Without it attention aligns only after a quarter of a million crops.
        attention_weight, attention_weight_end: the same of the loss on attention outside a character's box, where
            boxes are known.
        augmentation: `none`, `light` or `strong`.
        precision: `bf16` autocast of the backbone, `fp32`, or `auto`: bf16 where the device has instructions for it.
        seed: of initial weights, order, augmentation and dropout.
        workers: processes that load and augment samples; 0 does it in the training process.
        validate_every: steps between validations.
        validation_limit: crops of each validation set that are used, evenly spaced; 0 is all.
        checkpoint_minutes: maximum time between writes of the training state. The first intervals are shorter, from 30
            seconds on; it is also written at the start and before each validation.
        log_every: steps between lines of metrics.
        unusable_limit: share of unreadable or unlearnable samples above which the run stops.
        device: `cpu`, `cuda`, …; empty is a GPU if there is one.
        threads: torch's threads; 0 keeps torch's default.
    """

    preset: str = "small"
    architecture: RecognizerConfig = field(default_factory=RecognizerConfig)
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    train: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    validation: tuple[str, ...] = ()
    charset: str = ""
    start_from: str = ""
    name: str = ""
    frozen_stages: int = 0
    steps: int = 20_000
    batch_size: int = 64
    parts: int = 1
    average_every: int = 0
    group: int = 8
    optimizer: Literal["muon", "adamw"] = "muon"
    learning_rate: float = 1e-3
    matrix_learning_rate: float = 0.02
    warmup_steps: int = 500
    schedule: Literal["cosine", "constant"] = "cosine"
    weight_decay: float = 0.01
    clip_norm: float = 5.0
    ema_decay: float = 0.999
    label_smoothing: float = 0.0
    loss_limit: float = 0.0
    ctc_weight: float = 0.5
    ctc_weight_end: float = 0.05
    attention_weight: float = 0.5
    attention_weight_end: float = 0.05
    augmentation: Literal["none", "light", "strong"] = "light"
    precision: Precision = "auto"
    seed: int = 0
    workers: int = 1
    validate_every: int = 500
    validation_limit: int = 500
    checkpoint_minutes: float = 5.0
    log_every: int = 50
    unusable_limit: float = 0.05
    device: str = ""
    threads: int = 0

    def check(self) -> None:
        """Raise StrAppError for values that cannot work."""
        if not self.train:
            raise StrAppError("no training data: give --train LMDB")
        for each in dataclasses.fields(self):
            value = getattr(self, each.name)
            if isinstance(value, float) and math.isnan(value):
                raise StrAppError(f"{each.name}={value}: not a number")
        for name, least in LEAST.items():
            if getattr(self, name) < least:
                raise StrAppError(f"{name}={getattr(self, name)}: must be at least {least}")
        EngineOptions(self.device or "cpu", self.threads or None, self.precision)
        for name in ("validate_every", "log_every"):
            if self.average_every and getattr(self, name) % self.average_every:
                raise StrAppError(
                    f"{name}={getattr(self, name)}: must be a multiple of average_every={self.average_every}"
                )
        for name in ("ema_decay", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise StrAppError(f"{name}={getattr(self, name)}: must be at least 0 and below 1")
        for name in ("learning_rate", "matrix_learning_rate", "clip_norm"):
            if getattr(self, name) <= 0:
                raise StrAppError(f"{name}={getattr(self, name)}: must be above 0")
        for name in ("learning_rate", "matrix_learning_rate"):
            if math.isinf(getattr(self, name)):
                raise StrAppError(f"{name}={getattr(self, name)}: must be finite")
        if self.architecture.max_length < 1:
            raise StrAppError(f"architecture.max_length={self.architecture.max_length}: must be at least 1")
        stages = self.architecture.backbone.num_stages
        if not 0 <= self.frozen_stages <= stages:
            raise StrAppError(f"frozen_stages={self.frozen_stages}: the backbone has {stages} stages")
        if self.frozen_stages and not self.start_from:
            raise StrAppError(f"frozen_stages={self.frozen_stages}: fresh weights cannot be frozen; give --from MODEL")
        if self.weights and len(self.weights) != len(self.train):
            raise StrAppError(f"{len(self.weights)} weights for {len(self.train)} training sets: give one per set")
        if self.weights and not (all(0 <= weight < math.inf for weight in self.weights) and any(self.weights)):
            raise StrAppError(f"weights={list(self.weights)}: must all be at least 0, and not all 0")


LEAST = {
    "steps": 1,
    "batch_size": 1,
    "parts": 1,
    "group": 1,
    "validate_every": 1,
    "log_every": 1,
    "average_every": 0,
    "seed": 0,
    "validation_limit": 0,
    "workers": 0,
    "threads": 0,
    "warmup_steps": 0,
    "checkpoint_minutes": 0,
    "weight_decay": 0,
    "loss_limit": 0,
    "ctc_weight": 0,
    "ctc_weight_end": 0,
    "attention_weight": 0,
    "attention_weight_end": 0,
    "unusable_limit": 0,
}

BY_OPTION = {"preset": "preset", "start_from": "from"}  # settings that only an option sets

# Defaults with `--from` that differ from those of a run from scratch; measured in docs/tutorial/fine-tuning.md.
FINE_TUNING: dict[str, Any] = {
    "steps": 1000,
    "optimizer": "adamw",
    "learning_rate": 3e-4,
    "warmup_steps": 50,
    # Attention is aligned already, and the CTC head is not part of a checkpoint: it would start fresh.
    "ctc_weight": 0.0,
    "ctc_weight_end": 0.0,
    "attention_weight": 0.0,
    "attention_weight_end": 0.0,
    "validate_every": 100,
}


def make_settings(overrides: list[str], base: TrainSettings | None = None, **given: Any) -> TrainSettings:
    """Defaults (with `start_from`, the checkpoint's and `FINE_TUNING`), then `given`, then `overrides`.

    Args:
        overrides: `key=value`; lists as comma-separated values or JSON; fields of sections as
            `architecture.backbone.blocks=2,3,3`. Keys of older versions work, with a note on stderr.
        base: settings of a run that is resumed; the preset is not applied again.
        given: fields set by command-line options.

    Raises:
        StrAppError: an unknown key (the message lists the known ones), a value of the wrong type, a checkpoint that
            does not exist, or an override that would change a checkpoint's architecture.
    """
    if base is None:
        given = _starting_point(given) | given
    settings = dataclasses.replace(base or TrainSettings(), **given)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise StrAppError(f"--set {override!r}: write key=value")
        if key in FORMER_KEYS:
            print(f"--set {key}=…: this key is now {FORMER_KEYS[key]}", file=sys.stderr)
            key = FORMER_KEYS[key]
        if key in BY_OPTION or (key == "charset" and base is not None):  # more follows from them than the setting
            raise StrAppError(f"--set {key}=…: give --{BY_OPTION.get(key, key)} with a new run instead")
        try:
            settings = _replaced(settings, key.split("."), text)
        except ValueError as error:
            raise StrAppError(f"--set {override}: {error}") from None
    if settings.start_from and not can_grow(given.get("architecture", settings.architecture), settings.architecture):
        raise StrAppError(
            "--from brings its own architecture: only architecture.backbone.blocks (larger), architecture.backbone.fpn "
            "and architecture.decoder.positional_glimpse (true) and architecture.decoder.dropout may differ; leave out "
            "any other --set architecture.…"
        )
    settings.check()
    if base is None and settings.warmup_steps >= settings.steps:
        print(
            f"warmup_steps={settings.warmup_steps} of {settings.steps} steps: the learning rate never reaches its "
            "peak; --set warmup_steps=N changes that",
            file=sys.stderr,
        )
    return settings


def _starting_point(given: dict[str, Any]) -> dict[str, Any]:
    """Settings that follow from the preset or the checkpoint of a new run."""
    if not given.get("start_from"):
        preset = get_preset(given.get("preset", TrainSettings.preset))
        return {
            "architecture": preset.architecture,
            "preprocessing": preset.preprocessing,
            "charset": preset.charset,
        }
    model, _ = load_checkpoint(checkpoint_file(given["start_from"]))
    return FINE_TUNING | {
        "architecture": model.architecture,
        "preprocessing": model.preprocessing,
        "charset": model.charset.characters,
    }


def _replaced(owner: Any, path: list[str], text: str) -> Any:
    """The dataclass with the field at `path` set to `text`, converted to the field's type.

    Raises:
        ValueError: no such field, or a text that is not of its type.
    """
    name, *rest = path
    hints = typing.get_type_hints(type(owner))
    if name not in hints or (rest and not dataclasses.is_dataclass(getattr(owner, name))):
        raise ValueError(f"unknown key; known: {', '.join(sorted(_keys(owner)))}")
    value = getattr(owner, name)
    if rest == ["name"] and name in REGISTRIES:
        changed = section_config(REGISTRIES[name], name, {"name": text})
        return dataclasses.replace(owner, **{name: value if changed.name == value.name else changed})
    if rest:
        return dataclasses.replace(owner, **{name: _replaced(value, rest, text)})
    if dataclasses.is_dataclass(value):
        raise ValueError(f"a section; set its fields: {', '.join(f'{name}.{key}' for key in sorted(_keys(value)))}")
    try:
        converted = _convert(hints[name], text)
    except (ValueError, TypeError, KeyError):
        raise ValueError(f"expected {_describe(hints[name])}") from None
    return dataclasses.replace(owner, **{name: converted})


def _keys(owner: Any) -> list[str]:
    """Fields of a dataclass; of those that are dataclasses, `section.…`."""
    names = [item.name for item in dataclasses.fields(owner)]
    return [f"{name}.…" if dataclasses.is_dataclass(getattr(owner, name)) else name for name in names]


def _convert(hint: Any, value: Any) -> Any:
    """`value`, a text or what JSON has, as the type `hint`.

    Raises:
        ValueError, TypeError, KeyError: it is not one.
    """
    origin = typing.get_origin(hint)
    if origin is Literal:
        if value not in typing.get_args(hint):
            raise ValueError(value)
        return value
    if origin is tuple:
        kinds = typing.get_args(hint)
        if isinstance(value, str):
            value = json.loads(value) if value.startswith("[") else [item for item in value.split(",") if item]
        if kinds[-1] is Ellipsis:
            return tuple(_convert(kinds[0], item) for item in value)
        return tuple(_convert(kind, item) for kind, item in zip(kinds, value, strict=True))
    if hint is bool and isinstance(value, str):
        return {"true": True, "false": False}[value.lower()]
    return hint(value)  # int takes 1_000 as well


def _describe(hint: Any) -> str:
    origin = typing.get_origin(hint)
    if origin is Literal:
        return "one of " + ", ".join(typing.get_args(hint))
    if origin is tuple:
        return "a list, comma-separated or JSON"
    return {bool: "true or false", int: "a whole number", float: "a number", str: "text"}.get(hint, str(hint))


def save_settings(settings: TrainSettings, path: Path) -> None:
    """Write the settings as JSON, to be read by people and by `--resume`."""
    text = json.dumps(dataclasses.asdict(settings), indent=1)
    replace_file(path, (text + "\n").encode())


def load_settings(path: Path) -> TrainSettings:
    """Settings that `save_settings` wrote, also that of an older version.

    Raises:
        StrAppError: the file is missing or damaged.
    """
    if not path.is_file():
        raise StrAppError(f"{path}: not found, so there is no run to resume; leave out --resume to start one")
    try:
        stored = read_json_object(path)
    except DataError as error:
        raise StrAppError(f"{error}; start a new run") from None
    try:
        architecture = RecognizerConfig.from_dict(stored.pop("architecture"))
        preprocessing = Preprocessing.from_dict(stored.pop("preprocessing"))
        hints = typing.get_type_hints(TrainSettings)
        values = {key: _convert(hints[key], value) for key, value in stored.items()}
        return TrainSettings(architecture=architecture, preprocessing=preprocessing, **values)
    except (ValueError, KeyError, TypeError) as error:
        raise StrAppError(f"{path}: damaged settings ({error}); start a new run") from None
