"""What a network's convolutions compute in."""

from typing import Literal

Precision = Literal["auto", "bf16", "fp32"]
# For every command that reads.
HELP = "Of the convolutions: bf16, fp32, or, auto, bf16 where the processor has instructions for it."
