"""Named recognisers."""

from __future__ import annotations

from pathlib import Path

from str_app.models.charset import Charset
from str_app.models.preprocessing import Preprocessing
from str_app.models.recognizer import Architecture, Recognizer

_PRESETS: dict[str, Architecture] = {
    # For CPUs; its weights ship with the repository.
    "small": Architecture(blocks=(2, 3, 3), pyramid=True, locate=True),
    # For a GPU.
    "base": Architecture(
        stem=(32, 64),
        stem_strides=(1, 1),
        stages=(64, 128, 256, 512),
        blocks=(3, 4, 6, 3),
        strides=((2, 2), (2, 2), (2, 1), (1, 1)),
        context_size=256,
        hidden_size=384,
        attention_size=256,
        embedding_size=128,
    ),
}


class UnknownModelError(ValueError):
    """A model name that is no preset."""


def list_models() -> list[str]:
    """Names that `create_model` knows."""
    return sorted(_PRESETS)


def architecture(name: str) -> Architecture:
    """The preset's sizes and choices.

    Raises:
        UnknownModelError: no such preset; the message lists them.
    """
    try:
        return _PRESETS[name]
    except KeyError:
        raise UnknownModelError(f"unknown model {name!r}: choose one of {', '.join(list_models())}") from None


def create_model(
    name: str, *, charset: Charset | None = None, preprocessing: Preprocessing | None = None
) -> Recognizer:
    """A preset's network with fresh weights; the 94 printable ASCII characters unless a charset is given."""
    return Recognizer(architecture(name), charset or Charset(), preprocessing or Preprocessing())


def weights_path(name: str) -> Path:
    """Where the released weights of a preset lie; the file exists only for presets that ship with weights."""
    architecture(name)
    return Path(__file__).parent / "weights" / f"{name}.safetensors"
