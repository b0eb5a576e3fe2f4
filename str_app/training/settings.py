"""Every setting of a training run, with its default and why."""

from __future__ import annotations

import dataclasses
import json
import sys
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from str_app.engines.load import checkpoint_file
from str_app.engines.precision import Precision
from str_app.errors import StrAppError
from str_app.models.checkpoint import load_checkpoint
from str_app.models.preprocessing import BEFORE_SPREAD, Preprocessing
from str_app.models.presets import architecture
from str_app.models.recognizer import RENAMED, Architecture
from str_app.models.transfer import can_grow


@dataclass(frozen=True)
class TrainSettings:
    """Settings of a run; `--set key=value` changes any of them.

    Attributes:
        preset: whose architecture is trained; `architecture.*` keys change single choices of it.
        architecture: the result, filled in from the preset, or from the checkpoint to start from.
        preprocessing: canvases; `preprocessing.*` keys change single choices of it, also of a checkpoint's.
        train: data sets to learn from, LMDBs or folders.
        weights: one share a data set; empty is in proportion to their sizes.
        validation: data sets to choose the best checkpoint by.
        charset: the characters to learn, in order; empty is the 94 printable ASCII characters.
        start_from: name or path of a checkpoint whose weights to start from; empty is from scratch. Some defaults
            are others then: see `FINE_TUNING`.
        frozen_stages: with `start_from`, so many of the backbone's stages keep their weights, and the stem before them;
            0 trains all. One saves a seventh of a step's time, and on few crops there is less to forget.
        steps: optimiser steps in all.
        batch_size: samples a step, over all processes.
        average_every: where several processes train. 0: they exchange every step's gradients and train as one does. N:
            each steps alone on its share of the batch, and every N steps all take the mean of their weights and
            moments (local SGD, arXiv 1805.09767): nearly the whole speed of each, also without a fast connection.
        group: batches whose samples are sorted by width together, so that most need a narrow canvas; 1 is without.
        optimizer: `muon` for filters and matrices with AdamW for the rest, or `adamw` for all.
        learning_rate: AdamW's peak.
        matrix_learning_rate: Muon's peak.
        warmup_steps: in which both rise to their peaks.
        schedule: their course from there to a hundredth at the last step: `cosine`, or `constant` until a fifth of the
            steps is left, then linear. A constant rate suits runs whose length is settled on the way (arXiv
            2405.18392): resumed with fewer `steps`, such a run ends well wherever it is.
        weight_decay: AdamW's, on matrices and filters only.
        clip_norm: gradients are scaled down to this norm; recurrent training bursts without it.
        ema_decay: of the averaged weights, which are the ones validated and released.
        label_smoothing: of the cross-entropy.
        ctc_weight, ctc_weight_end: auxiliary CTC loss on the encoder; falls linearly over the first half of the
            run. Attention alone takes a quarter of a million crops to align.
        attention_weight, attention_weight_end: loss on attention outside the character's box, where boxes are known.
        augmentation: `none`, `light` or `strong`.
        precision: `bf16` autocast of the encoder, `fp32`, or, `auto`, bf16 where the device has instructions for it.
        seed: of initial weights, order, augmentation and dropout.
        workers: processes that load and augment; 0 does it in this one.
        validate_every: steps between validations.
        validation_limit: crops of each validation set used while training, evenly spaced; 0 is all.
        checkpoint_minutes: wall time between writes of the training state.
        log_every: steps between metric lines.
        unusable_limit: share of samples that may be unreadable or unlearnable before the run stops.
        device: `cpu`, `cuda`, …; empty is a GPU if there is one.
        threads: torch's threads; 0 leaves its choice.
    """

    preset: str = "small"
    architecture: Architecture = field(default_factory=Architecture)
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    train: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    validation: tuple[str, ...] = ()
    charset: str = ""
    start_from: str = ""
    frozen_stages: int = 0
    steps: int = 20_000
    batch_size: int = 64
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
        for name in ("steps", "batch_size", "group", "validate_every", "log_every"):
            if getattr(self, name) < 1:
                raise StrAppError(f"{name}={getattr(self, name)}: must be at least 1")
        if self.average_every < 0:
            raise StrAppError(f"average_every={self.average_every}: must be at least 0")
        for name in ("validate_every", "log_every"):
            if self.average_every and getattr(self, name) % self.average_every:
                raise StrAppError(
                    f"{name}={getattr(self, name)}: must be a multiple of average_every={self.average_every}"
                )
        for name in ("learning_rate", "matrix_learning_rate", "clip_norm"):
            if getattr(self, name) <= 0:
                raise StrAppError(f"{name}={getattr(self, name)}: must be above 0")
        if not 0 <= self.frozen_stages <= len(self.architecture.stages):
            raise StrAppError(
                f"frozen_stages={self.frozen_stages}: the backbone has {len(self.architecture.stages)} stages"
            )
        if self.frozen_stages and not self.start_from:
            raise StrAppError(f"frozen_stages={self.frozen_stages}: fresh weights must be trained; give --from MODEL")
        if self.weights and len(self.weights) != len(self.train):
            raise StrAppError(f"{len(self.weights)} weights for {len(self.train)} training sets: give one a set")


NESTED: dict[str, type] = {"architecture": Architecture, "preprocessing": Preprocessing}

# Where weights are given (`--from`), what differs from a run from scratch; measured in docs/fine-tuning.md.
FINE_TUNING: dict[str, Any] = {
    "steps": 1000,
    "optimizer": "adamw",
    "learning_rate": 3e-4,
    "warmup_steps": 50,
    # Attention is aligned already, and the CTC head starts fresh: it has nothing to teach.
    "ctc_weight": 0.0,
    "ctc_weight_end": 0.0,
    "attention_weight": 0.0,
    "attention_weight_end": 0.0,
    "validate_every": 100,
}


def make_settings(overrides: list[str], base: TrainSettings | None = None, **given: Any) -> TrainSettings:
    """Settings from defaults (the checkpoint's own and `FINE_TUNING` with `start_from`), `given`, then overrides.

    Args:
        overrides: `key=value`; lists as comma-separated values or JSON; `architecture.KEY` and `preprocessing.KEY`
            for theirs.
        base: settings to start from, of a run that is resumed; the preset is not applied again.
        given: fields set by command-line options.

    Raises:
        StrAppError: unknown key, or a value of the wrong kind; the message lists the keys. Or a checkpoint to start
            from that is not there, or whose architecture an override would change.
    """
    if base is None:
        given = _starting_point(given) | given
    settings = dataclasses.replace(base or TrainSettings(), **given)
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise StrAppError(f"--set {override!r}: write key=value")
        part, dot, name = key.partition(".")
        if dot and part in NESTED:
            if name in RENAMED:
                print(f"note: {key} is called {part}.{RENAMED[name]} now", file=sys.stderr)
                name = RENAMED[name]
            try:
                changed = _with(getattr(settings, part), name, value)
            except ValueError as error:
                raise StrAppError(f"--set {override}: {error}") from None
            settings = dataclasses.replace(settings, **{part: changed})
        else:
            settings = _with(settings, key, value)
    if settings.start_from and not can_grow(given.get("architecture", settings.architecture), settings.architecture):
        raise StrAppError(
            "--from brings its own architecture: architecture.blocks may grow, architecture.pyramid and "
            "architecture.locate become true, architecture.dropout change; leave out any other --set architecture.…"
        )
    settings.check()
    return settings


def _starting_point(given: dict[str, Any]) -> dict[str, Any]:
    """What follows from the preset or the checkpoint that a new run starts from."""
    if not given.get("start_from"):
        return {"architecture": architecture(given.get("preset", TrainSettings.preset))}
    model, _ = load_checkpoint(checkpoint_file(given["start_from"]))
    brought = {"architecture": model.architecture, "preprocessing": model.preprocessing}
    return FINE_TUNING | brought | {"charset": model.charset.characters}


def _with(owner: Any, name: str, text: str) -> Any:
    """The dataclass with field `name` set to `text`, as the type that the field asks for."""
    kind = type(owner)
    fields = {f.name for f in dataclasses.fields(kind)} - NESTED.keys()
    if name not in fields:
        raise StrAppError(f"--set {name}=…: unknown key; known: {', '.join(sorted(fields))}")
    hint = typing.get_type_hints(kind)[name]
    try:
        value = _convert(hint, text)
    except (ValueError, TypeError, KeyError):
        raise StrAppError(f"--set {name}={text}: expected {_describe(hint)}") from None
    return dataclasses.replace(owner, **{name: value})


def _convert(hint: Any, value: Any) -> Any:
    origin = typing.get_origin(hint)
    if origin is Literal:
        if value not in typing.get_args(hint):
            raise ValueError(value)
        return value
    if origin is tuple:
        kinds = typing.get_args(hint)
        if isinstance(value, str):
            items: list[Any] = json.loads(value) if value.startswith("[") else [v for v in value.split(",") if v]
        else:
            items = list(value)
        if len(kinds) == 2 and kinds[1] is Ellipsis:
            return tuple(_convert(kinds[0], item) for item in items)
        if len(kinds) != len(items):
            raise ValueError(value)
        return tuple(_convert(kind, item) for kind, item in zip(kinds, items, strict=True))
    if hint is bool and isinstance(value, str):
        return {"true": True, "false": False}[value.lower()]
    if hint is int and isinstance(value, str):
        return int(value.replace("_", ""))
    return hint(value)


def _describe(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(typing.get_args(hint))
    if isinstance(hint, types.GenericAlias) or typing.get_origin(hint) is tuple:
        return "a list, comma-separated or JSON"
    return {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}.get(hint, str(hint))


def save_settings(settings: TrainSettings, path: Path) -> None:
    """Write the settings as JSON, for people and for `--resume`."""
    path.write_text(json.dumps(dataclasses.asdict(settings), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def load_settings(path: Path) -> TrainSettings:
    """Settings that `save_settings` wrote.

    Raises:
        StrAppError: the file is missing or damaged.
    """
    try:
        stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        hints = typing.get_type_hints(TrainSettings)
        built = {key: _convert(hints[key], value) for key, value in stored.items() if key not in NESTED}
        stored["preprocessing"] = BEFORE_SPREAD | stored["preprocessing"]
        for part, kind in NESTED.items():
            inner = typing.get_type_hints(kind)
            values = {RENAMED.get(key, key): value for key, value in stored[part].items()}
            built[part] = kind(**{key: _convert(inner[key], value) for key, value in values.items()})
        return TrainSettings(**built)
    except FileNotFoundError:
        raise StrAppError(f"{path}: not there, so there is no run to resume; leave out --resume to start one") from None
    except (ValueError, KeyError, TypeError) as error:
        raise StrAppError(f"{path}: damaged settings ({error}); start a new run") from None
