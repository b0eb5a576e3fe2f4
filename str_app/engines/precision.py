"""The number format of the backbone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from str_app.errors import StrAppError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

Precision = Literal["auto", "bf16", "fp32", "int8"]
# For every command that reads.
HELP = "int8 (exported graphs), bf16 or fp32; auto: int8 where there are graphs, else bf16 where the processor has it."


def resolve_precision(precision: Precision, prefer_bf16: bool) -> Literal["bf16", "fp32"]:
    """That of torch's backbone: `precision`, or what `auto` means where bfloat16 is preferred or not.

    Raises:
        StrAppError: int8, which torch's backbone does not have.
    """
    if precision == "int8":
        raise StrAppError("torch cannot run int8, only exported graphs can: use auto, bf16 or fp32")
    if precision == "auto":
        return "bf16" if prefer_bf16 else "fp32"
    return precision


def has_bf16(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16. Others emulate it, many times slower than float32."""
    import torch

    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # Since torch 2.13.
    capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)() if device.type == "cpu" else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
