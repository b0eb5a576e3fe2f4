"""Published initialisations of forget-gate biases: baselines to compare refined gates with.

They set how long an untrained unit remembers. Both write b_ih and set the same rows of b_hh to 0, so that their sum is
as in the source; weights keep torch's initialisation. The gate concerned is the LSTM's forget gate, the GRU's update
gate, and the complement of the MGU's forget gate, which is the fraction that is overwritten.
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
        longest: length of the longest dependency to learn, in steps; at least 3.

    Returns:
        `module`, changed in place.

    Raises:
        ValueError: no biases, `longest` below 3, or uniform-refine gates, which have their own initialisation.
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
        raise ValueError(f"{type(module).__name__} has bias=False: there are no biases to initialise")
    blocks = module.unit.blocks_of(module.gate)  # type: ignore[union-attr, operator]
    parameters = dict(module.named_parameters())
    for name, bias_ih in parameters.items():
        if not name.startswith("bias_ih"):
            continue
        ih = dict(zip(blocks, bias_ih.chunk(len(blocks)), strict=True))
        hh = dict(zip(blocks, parameters[name.replace("_ih", "_hh")].chunk(len(blocks)), strict=True))
        keep_bias = draw(torch.empty_like(next(iter(ih.values()))))
        forget = "update" if "update" in blocks else "forget"
        is_mgu = "cell" not in blocks and forget == "forget"
        ih[forget].copy_(-keep_bias if is_mgu else keep_bias)
        hh[forget].zero_()
        for opposite in ("input", "refine"):
            if opposite in blocks:
                ih[opposite].copy_(-ih[forget])
                hh[opposite].zero_()
    return module
