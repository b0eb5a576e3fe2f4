"""Decoders: a feature map in, characters out, one step at a time. `docs/how-to/extending.md` tells how to add one."""

from str_app.models.decoders.attention_decoder import AttentionDecoderConfig
from str_app.models.decoders.base import DecoderConfig

DECODERS: dict[str, type[DecoderConfig]] = {"attention": AttentionDecoderConfig}
