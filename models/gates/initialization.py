"""Initial biases of forget gates, by other authors: baselines to compare refined gates with.

Both set the time a fresh unit remembers. They write b_ih and leave b_hh's rows 0, so that their sum is what the source
says; weights keep torch's initialisation. A unit forgets by its LSTM's forget gate, its GRU's update gate, and by the
complement of its MGU's forget gate, which is the share that is overwritten.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

Recurrent = TypeVar("Recurrent", bound=nn.Module)


def init_chrono_(module: Recurrent, longest: int) -> Recurrent:
    """Chrono initialisation (Tallec & Ollivier 2018, arXiv 1804.11188): b_f = log u, u ~ U(1, longest − 1); b_i = −b_f.

    Args:
        module: one of our cells or layers.
        longest: the longest dependency to be learned, in steps; at least 3.

    Returns:
        `module`, changed in place.

    Raises:
        ValueError: no biases, `longest` below 3, or uniform-refine gates, which have an initialisation of their own.
    """
    if longest < 3:
        raise ValueError(f"longest={longest}: chrono initialisation needs at least 3 steps")
    if module.gate.refine == "ur":  # type: ignore[union-attr]
        raise ValueError("refine='ur' has its own initialisation: init_uniform_")
    return _set_forget_bias(module, lambda bias: bias.uniform_(1, longest - 1).log_())


def init_uniform_(module: Recurrent) -> Recurrent:
    """Uniform gate initialisation (Gu et al. 2020, arXiv 1910.09890): σ(b_f) ~ U(1/H, 1 − 1/H).

    The input gate, or the refine gate of `refine="ur"`, gets −b_f. Arguments, result and errors as for `init_chrono_`.
    """
    size: int = module.hidden_size  # type: ignore[assignment]
    low = min(1 / size, 0.5)
    return _set_forget_bias(module, lambda bias: bias.uniform_(low, 1 - low).logit_())


@torch.no_grad()
def _set_forget_bias(module: Recurrent, draw: Callable[[Tensor], Tensor]) -> Recurrent:
    if not module.bias:
        raise ValueError(f"{type(module).__name__} has bias=False: there is no bias to initialise")
    blocks = module.unit.blocks_of(module.gate)  # type: ignore[union-attr, operator]
    parameters = dict(module.named_parameters())
    for name, bias_ih in parameters.items():
        if not name.startswith("bias_ih"):
            continue
        ih = dict(zip(blocks, bias_ih.chunk(len(blocks)), strict=True))
        hh = dict(zip(blocks, parameters[name.replace("_ih", "_hh")].chunk(len(blocks)), strict=True))
        kept = draw(torch.empty_like(next(iter(ih.values()))))
        forget = "update" if "update" in blocks else "forget"
        overwrites = "cell" not in blocks and forget == "forget"  # the MGU's forget gate is what is overwritten
        ih[forget].copy_(-kept if overwrites else kept)
        hh[forget].zero_()
        for opposite in ("input", "refine"):
            if opposite in blocks:
                ih[opposite].copy_(-ih[forget])
                hh[opposite].zero_()
    return module
