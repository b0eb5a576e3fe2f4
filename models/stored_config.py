"""Architecture and preprocessing as checkpoints and run folders store them, also those of older versions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

ARCHITECTURE = {
    **{name: f"backbone.{name}" for name in ("stem", "stem_strides", "stages", "blocks", "strides")},
    "pyramid": "backbone.fpn",
    **{name: f"decoder.{name}" for name in ("hidden_size", "attention_size", "embedding_size", "dropout")},
    "locate": "decoder.positional_glimpse",
    **{name: f"decoder.{name}" for name in ("refine", "gates", "feature", "activation")},
    "squash": "decoder.activation",
}
"""Fields of the flat architecture of older versions → fields of `RecognizerConfig`."""

UNUSED = {"mixers": (0, 0)}
"""Fields of architectures that were tried and not kept, with the value that means without."""

PREPROCESSING = {"spread": "widen_below"}

FORMER_KEYS = {
    **{f"architecture.{former}": f"architecture.{name}" for former, name in ARCHITECTURE.items()},
    **{f"preprocessing.{former}": f"preprocessing.{name}" for former, name in PREPROCESSING.items()},
}
"""Keys of `--set` of older versions → today's."""


def current_architecture(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A stored architecture in today's nested form; fields that it lacks have their defaults."""
    if "backbone" in stored:
        return _tuples(dict(stored))
    nested: dict[str, Any] = {"backbone": {"name": "resnet"}, "decoder": {"name": "attention"}}
    for key, value in _tuples(dict(stored)).items():
        if key in UNUSED and value == UNUSED[key]:
            continue
        section, _, name = ARCHITECTURE.get(key, key).rpartition(".")
        (nested[section] if section else nested)[name] = value
    return nested


def current_preprocessing(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Stored preprocessing with today's names; without `widen_below`, which is newer, nothing is widened."""
    return {"widen_below": 0} | {PREPROCESSING.get(key, key): value for key, value in _tuples(dict(stored)).items()}


def checked_info(stored: Any) -> dict[str, Any]:
    """The facts about weights that are stored with them: an object, and in it what reading depends on is usable.

    Raises:
        ValueError: not an object, a temperature that is not a number above 0, or a name that is not a string.
    """
    if not isinstance(stored, dict):
        raise ValueError(f"{stored!r} is not a JSON object")
    temperature, name = stored.get("temperature", 1.0), stored.get("name", "")
    if type(temperature) not in (int, float) or not 0 < temperature < math.inf:
        raise ValueError(f"temperature is {temperature!r}, and must be a number above 0")
    if not isinstance(name, str):
        raise ValueError(f"name is {name!r}, and must be a string")
    return stored


def _tuples(value: Any) -> Any:
    """JSON has lists where the dataclasses have tuples."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
