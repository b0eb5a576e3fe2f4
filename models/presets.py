"""Named recognisers: what they are, where their weights are and under which terms. Imports torch only to build one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from str_app.models.charset import PRINTABLE_94, Charset
from str_app.models.preprocessing import Preprocessing

if TYPE_CHECKING:
    from str_app.models.recognizer import Recognizer, RecognizerConfig

WEIGHTS = Path(__file__).parent / "weights"


class UnknownModelError(ValueError):
    """A model name that is not a preset."""


@dataclass(frozen=True)
class ModelPreset:
    """A recogniser and its released weights.

    Attributes:
        name: what `--model`, `--preset` and `--from` call it.
        description: one line for people who choose a model.
        make_architecture: returns the architecture; a function, because its classes import torch.
        parameters: how many the network has.
        preprocessing: canvases that the weights were trained on.
        charset: characters that the network reads.
        weights: file name below `models/weights/`; the file is missing until weights are released.
        licence: SPDX identifier of the weights' licence.
        source: where the weights come from.
    """

    name: str
    description: str
    make_architecture: Callable[[], RecognizerConfig]
    parameters: int
    preprocessing: Preprocessing
    charset: str
    weights: str
    licence: str
    source: str

    @property
    def architecture(self) -> RecognizerConfig:
        """Sizes and choices of the network."""
        return self.make_architecture()


def _small() -> RecognizerConfig:
    from str_app.models.backbones.resnet import ResNetConfig
    from str_app.models.decoders.attention_decoder import AttentionDecoderConfig
    from str_app.models.recognizer import RecognizerConfig

    return RecognizerConfig(
        backbone=ResNetConfig(
            stem=(32, 48),
            stem_strides=(2, 1),
            stages=(96, 160, 256),
            blocks=(2, 5, 4),
            strides=((2, 2), (2, 1), (2, 1)),
            fpn=True,
        ),
        decoder=AttentionDecoderConfig(hidden_size=256, attention_size=128, embedding_size=64, positional_glimpse=True),
    )


def _base() -> RecognizerConfig:
    from str_app.models.backbones.resnet import ResNetConfig
    from str_app.models.decoders.attention_decoder import AttentionDecoderConfig
    from str_app.models.recognizer import RecognizerConfig

    return RecognizerConfig(
        backbone=ResNetConfig(
            stem=(32, 64),
            stem_strides=(1, 1),
            stages=(64, 128, 256, 512),
            blocks=(3, 4, 6, 3),
            strides=((2, 2), (2, 2), (2, 1), (1, 1)),
        ),
        context_size=256,
        decoder=AttentionDecoderConfig(hidden_size=384, attention_size=256, embedding_size=128),
    )


_PRESETS = {
    preset.name: preset
    for preset in (
        ModelPreset(
            name="small",
            description="For CPUs; its weights are part of the package.",
            make_architecture=_small,
            parameters=8_116_767,
            preprocessing=Preprocessing(widths=(48, 64, 96, 128, 160)),
            charset=PRINTABLE_94,
            weights="small.safetensors",
            licence="Apache-2.0",
            source="Trained on our own renderings only; see the model card, models/weights/small.md.",
        ),
        ModelPreset(
            name="base",
            description="For a GPU; no released weights yet.",
            make_architecture=_base,
            parameters=25_320_191,
            preprocessing=Preprocessing(widths=(48, 64, 96, 128)),
            charset=PRINTABLE_94,
            weights="base.safetensors",
            licence="Apache-2.0",
            source="Not trained yet: `str-app train --preset base`.",
        ),
    )
}


def list_models() -> list[str]:
    """Names of the presets."""
    return sorted(_PRESETS)


def get_preset(name: str) -> ModelPreset:
    """The preset of this name.

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
    """A preset's network with fresh weights; charset and preprocessing are the preset's unless given.

    Raises:
        UnknownModelError: no such preset; the message lists them.
    """
    from str_app.models.recognizer import Recognizer

    preset = get_preset(name)
    return Recognizer(preset.architecture, charset or Charset(preset.charset), preprocessing or preset.preprocessing)


def weights_path(name: str) -> Path:
    """File of a preset's released weights; it exists only if the preset has any.

    Raises:
        UnknownModelError: no such preset; the message lists them.
    """
    return WEIGHTS / get_preset(name).weights
