"""A recogniser so small that a test can train it."""

import dataclasses
from typing import Any

import torch

from str_app.models.backbones.resnet import ResNetConfig
from str_app.models.charset import Charset
from str_app.models.decoders.attention_decoder import AttentionDecoderConfig
from str_app.models.preprocessing import Preprocessing
from str_app.models.recognizer import Recognizer, RecognizerConfig


def tiny_config(**changes: Any) -> RecognizerConfig:
    """A tiny architecture; each change goes to the section that has a field of this name."""
    architecture = RecognizerConfig(
        backbone=ResNetConfig(stem=(4, 4), stages=(8, 8, 12), blocks=(1, 1, 1)),
        decoder=AttentionDecoderConfig(hidden_size=16, attention_size=8, embedding_size=6),
    )
    return changed(architecture, **changes)


def changed(architecture: RecognizerConfig, **changes: Any) -> RecognizerConfig:
    """`architecture` with each change in the section that has a field of this name."""
    for name, value in changes.items():
        for section in ("backbone", "decoder"):
            config: Any = getattr(architecture, section)
            if name in {field.name for field in dataclasses.fields(config)}:
                new = {section: dataclasses.replace(config, **{name: value})}
                break
        else:
            new = {name: value}
        architecture = dataclasses.replace(architecture, **new)
    return architecture


def tiny_recognizer(charset: str = "abcd", preprocessing: Preprocessing | None = None, **changes: Any) -> Recognizer:
    """A network with the same fresh weights every time, in evaluation mode."""
    torch.manual_seed(0)
    return Recognizer(tiny_config(**changes), Charset(charset), preprocessing or Preprocessing()).eval()
