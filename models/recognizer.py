"""The whole network: backbone, optional context, decoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from str_app.models.backbones import BACKBONES
from str_app.models.backbones.base import BackboneConfig
from str_app.models.backbones.resnet import ResNetConfig
from str_app.models.charset import Charset
from str_app.models.decoders import DECODERS
from str_app.models.decoders.attention_decoder import AttentionDecoderConfig
from str_app.models.decoders.base import DecoderConfig, Memory, State
from str_app.models.gates.layers import RefinedLSTM
from str_app.models.preprocessing import Preprocessing
from str_app.models.stored_config import current_architecture

Config = TypeVar("Config")


@dataclass(frozen=True)
class RecognizerConfig:
    """Every size and choice of a recogniser's network.

    Attributes:
        backbone: settings of one of `str_app.models.backbones.BACKBONES`.
        attention: `"2d"` attends over the whole feature map, `"1d"` over its columns (mean of the rows).
        context_size: hidden size of a bidirectional LSTM along the columns, added to the feature map; 0 is none.
        decoder: settings of one of `str_app.models.decoders.DECODERS`.
        max_length: longest text that can be read, in characters.
    """

    backbone: BackboneConfig = field(default_factory=ResNetConfig)
    attention: Literal["1d", "2d"] = "2d"
    context_size: int = 0
    decoder: DecoderConfig = field(default_factory=AttentionDecoderConfig)
    max_length: int = 32

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RecognizerConfig:
        """The inverse of `dataclasses.asdict`, also for JSON and for the flat form of older checkpoints.

        Raises:
            KeyError, TypeError, ValueError: a field is missing or unknown, or no such backbone or decoder.
        """
        values = current_architecture(values)
        backbone = section_config(BACKBONES, "backbone", values.pop("backbone"))
        decoder = section_config(DECODERS, "decoder", values.pop("decoder"))
        return cls(backbone=backbone, decoder=decoder, **values)


def section_config(registry: Mapping[str, type[Config]], section: str, values: Mapping[str, Any]) -> Config:
    """Settings of a registered backbone or decoder from `values`, of which `name` is one.

    Raises:
        ValueError: the name is not registered; the message lists those that are.
        TypeError: an unknown field.
    """
    if values["name"] not in registry:
        raise ValueError(f"unknown {section} {values['name']!r}: choose one of {', '.join(sorted(registry))}")
    return registry[values["name"]](**values)


class Recognizer(nn.Module):
    """Crops of words in, character logits and attention out.

    Args:
        architecture: sizes and choices.
        charset: the characters it can read.
        preprocessing: the canvases it expects.

    Raises:
        ValueError: a canvas is not a multiple of the backbone's stride, or a choice of the architecture is invalid.
    """

    def __init__(self, architecture: RecognizerConfig, charset: Charset, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.architecture = architecture
        self.charset = charset
        self.preprocessing = preprocessing
        self.backbone = architecture.backbone.build()
        rows, columns = self.backbone.coarsest_stride
        if preprocessing.height % rows or any(width % columns for width in preprocessing.widths):
            raise ValueError(
                f"canvas height {preprocessing.height} and widths {preprocessing.widths} must be multiples of the "
                f"backbone's stride {rows}×{columns}"
            )
        rows, columns = self.backbone.stride
        grid_rows = preprocessing.height // rows if architecture.attention == "2d" else 1
        self.grid = (grid_rows, preprocessing.width // columns)  # (H', W') that attention covers on the widest canvas
        channels = self.backbone.out_channels
        self.context: RefinedLSTM | None = None
        if size := architecture.context_size:
            self.context = RefinedLSTM(channels, size, batch_first=True, bidirectional=True, refine="none")
            self.context_output = nn.Linear(2 * size, channels)
        self.decoder = architecture.decoder.build(channels, self.grid, charset.num_classes)

    def normalize(self, canvases: Tensor) -> Tensor:
        """uint8 (B, height, W, 3) as `Preprocessing` makes them → float (B, 3, height, W), channels last."""
        images = canvases.permute(0, 3, 1, 2).float()
        return (images / 255 - self.preprocessing.mean) / self.preprocessing.std

    def features(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, height, W) → feature map (B, C, H', W'), in the data type of the images."""
        features: Tensor = self.backbone(images.to(self.backbone.dtype)).to(images.dtype)
        if self.grid[0] == 1:
            features = features.mean(dim=2, keepdim=True)
        if self.context is not None:
            columns = features.mean(dim=2).transpose(1, 2)  # (B, W', C)
            context = self.context_output(self.context(columns)[0])
            features = features + context.transpose(1, 2).unsqueeze(2)
        return features

    def build_memory(self, features: Tensor, widths: Tensor) -> Memory:
        """Feature map (B, C, H', W') and covered canvas columns int64 (B,) → the decoder's memory."""
        values = features.flatten(2).transpose(1, 2).contiguous()  # (B, N, C)
        left_edges = torch.arange(features.shape[3], device=features.device) * self.backbone.stride[1]
        padding = (left_edges.unsqueeze(0) >= widths.unsqueeze(1)).repeat(1, self.grid[0])  # (B, N)
        return self.decoder.build_memory(values, padding)

    def encode(self, images: Tensor, widths: Tensor) -> tuple[Memory, State]:
        """Normalised images (B, 3, height, W) and covered columns int64 (B,) → memory and initial state."""
        memory = self.build_memory(self.features(images), widths)
        return memory, self.decoder.initial_state(memory)

    def step(self, memory: Memory, state: State, tokens: Tensor) -> tuple[Tensor, State, Tensor]:
        """See `Decoder.step`."""
        return self.decoder.step(memory, state, tokens)

    def forward(self, images: Tensor, widths: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Teacher forcing: logits (B, T, num_classes), attention (B, T, N), feature map (B, C, H', W').

        Logits and attention have no meaning after the step of a label's end token, see `Decoder.forward`.
        """
        features = self.features(images)
        # The decoder is a small part of the arithmetic and loses most in half precision.
        with torch.autocast(features.device.type, enabled=False):
            features = features.float()
            logits, attention = self.decoder(self.build_memory(features, widths), targets)
        return logits, attention, features
