"""What a network's convolutions compute in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

Precision = Literal["auto", "bf16", "fp32"]
# For every command that reads.
HELP = "Of the convolutions: bf16, fp32, or, auto, bf16 where the processor has instructions for it."


def resolve(precision: Precision, bf16_pays: bool) -> Literal["bf16", "fp32"]:
    """What it is where bfloat16 pays or does not, which `auto` leaves open."""
    if precision == "auto":
        return "bf16" if bf16_pays else "fp32"
    return precision


def has_bf16(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16. Others emulate it, many times slower than float32."""
    import torch

    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # Not before torch 2.13.
    found: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)() if device.type == "cpu" else {}
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))
