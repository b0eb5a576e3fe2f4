"""The whole network: backbone, optional context, attention decoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from str_app.models.backbones.resnet import ResNet
from str_app.models.charset import Charset
from str_app.models.decoders.attention import Memory
from str_app.models.decoders.attention_decoder import AttentionDecoder, State
from str_app.models.gates.gate import Activation, FeatureMap, Refine, RefinedGate
from str_app.models.gates.layers import RefinedLSTM
from str_app.models.preprocessing import Preprocessing


@dataclass(frozen=True)
class Architecture:
    """Every size and choice of a recogniser's network.

    Attributes:
        stem: channels of the backbone's two stem convolutions.
        stem_strides: their strides, both directions.
        stages: channels of the residual stages.
        blocks: residual blocks a stage.
        strides: (vertical, horizontal) stride of each stage's first block.
        pyramid: attend at the finer stride of the stage before the last, see `str_app.models.backbones.resnet.ResNet`.
        attention: `"2d"` attends over the whole feature map, `"1d"` over its columns (mean of the rows).
        locate: tell the decoder where it looked, see `str_app.models.decoders.attention_decoder.AttentionDecoder`.
        context_size: hidden size of a bidirectional LSTM along the columns, added to the feature map; 0 is without.
        hidden_size: of the decoder's cell.
        attention_size: of attention keys and query.
        embedding_size: of the previous character.
        dropout: on the classifier's input, while training.
        max_length: characters a reading can have.
        refine, gates, feature, activation: the decoder's refined gates, see `str_app.models.gates.gate.RefinedGate`.
    """

    stem: tuple[int, int] = (32, 48)
    stem_strides: tuple[int, int] = (2, 1)
    stages: tuple[int, ...] = (96, 160, 256)
    blocks: tuple[int, ...] = (1, 2, 2)
    strides: tuple[tuple[int, int], ...] = ((2, 2), (2, 1), (2, 1))
    pyramid: bool = False
    attention: Literal["1d", "2d"] = "2d"
    locate: bool = False
    context_size: int = 0
    hidden_size: int = 256
    attention_size: int = 128
    embedding_size: int = 64
    dropout: float = 0.1
    max_length: int = 32
    refine: Refine = "mul"
    gates: tuple[str, ...] = ("input", "output")
    feature: FeatureMap = "linear"
    activation: Activation = "tanh"


# Older name → the field's name today: in checkpoints, in settings of runs, and on the command line.
RENAMED = {"squash": "activation"}


class Recognizer(nn.Module):
    """CNN and refined-LSTM attention decoder: word crops in, character logits and attention out.

    Args:
        architecture: sizes and choices.
        charset: the characters it can read.
        preprocessing: the canvas it expects.

    Raises:
        ValueError: the canvas is no multiple of the backbone's stride, or a gate choice does not fit.
    """

    def __init__(self, architecture: Architecture, charset: Charset, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.architecture = architecture
        self.charset = charset
        self.preprocessing = preprocessing
        a = architecture
        self.backbone = ResNet(a.stem, a.stem_strides, a.stages, a.blocks, a.strides, a.pyramid)
        rows, columns = self.backbone.stride
        if preprocessing.height % rows or any(width % columns for width in preprocessing.widths):
            raise ValueError(
                f"canvases {preprocessing.height}×{preprocessing.widths} are no multiples of the backbone's stride "
                f"{rows}×{columns}"
            )
        grid_rows = preprocessing.height // rows if a.attention == "2d" else 1
        self.grid = (grid_rows, preprocessing.width // columns)  # (H', W') that attention ranges over at most
        channels = self.backbone.out_channels
        self.context: RefinedLSTM | None = None
        if a.context_size:
            self.context = RefinedLSTM(channels, a.context_size, batch_first=True, bidirectional=True, refine="none")
            self.context_output = nn.Linear(2 * a.context_size, channels)
        self.decoder = AttentionDecoder(
            channels,
            self.grid,
            charset.num_classes,
            a.hidden_size,
            a.attention_size,
            a.embedding_size,
            a.dropout,
            RefinedGate(a.refine, tuple(a.gates), a.feature, a.activation),
            a.locate,
        )

    def normalize(self, canvases: Tensor) -> Tensor:
        """uint8 (B, height, W, 3) as `Preprocessing` makes them → float (B, 3, height, W), channels last."""
        images = canvases.permute(0, 3, 1, 2).float()
        return (images / 255 - self.preprocessing.mean) / self.preprocessing.std

    def features(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, height, W) → feature map (B, C, H', W'), in the images' precision."""
        features: Tensor = self.backbone(images.to(self.backbone.dtype)).to(images.dtype)
        if self.grid[0] == 1:
            features = features.mean(dim=2, keepdim=True)
        if self.context is not None:
            columns = features.mean(dim=2).transpose(1, 2)  # (B, W', C)
            context = self.context_output(self.context(columns)[0])
            features = features + context.transpose(1, 2).unsqueeze(2)
        return features

    def remember(self, features: Tensor, widths: Tensor) -> Memory:
        """Feature map (B, C, H', W') and covered canvas columns (B,) → the decoder's memory."""
        values = features.flatten(2).transpose(1, 2).contiguous()  # (B, N, C)
        column = torch.arange(features.shape[3], device=features.device) * self.backbone.stride[1]
        padding = (column.unsqueeze(0) >= widths.unsqueeze(1)).repeat(1, self.grid[0])  # (B, N)
        return self.decoder.remember(values, padding)

    def encode(self, images: Tensor, widths: Tensor) -> tuple[Memory, State]:
        """Normalised images (B, 3, height, W) and covered columns int64 (B,) → memory and first state."""
        memory = self.remember(self.features(images), widths)
        return memory, self.decoder.initial_state(memory)

    def step(self, memory: Memory, state: State, tokens: Tensor) -> tuple[Tensor, State, Tensor]:
        """See `AttentionDecoder.step`."""
        return self.decoder.step(memory, state, tokens)

    def forward(self, images: Tensor, widths: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Teacher forcing: logits (B, T, num_classes), attention (B, T, N), feature map (B, C, H', W')."""
        features = self.features(images)
        # The recurrence is a fraction of the arithmetic and the part that loses most in half precision.
        with torch.autocast(features.device.type, enabled=False):
            features = features.float()
            logits, attention = self.decoder(self.remember(features, widths), targets)
        return logits, attention, features
