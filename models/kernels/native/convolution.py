"""3 × 3 convolutions by minimal filtering, compiled: a quarter of the multiplications; see convolution.h."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from str_app.models.kernels.fused import first_derivative_only
from str_app.models.kernels.native.library import Library, is_followed, library_taking


class NativeConvolution(torch.autograd.Function):
    """`F.conv2d` with stride 1 and a border of one zero.

    Arguments of `apply`: x (B, C, H, W), weight (K, C, 3, 3), the compiled functions. Result: (B, K, H, W),
    channels last.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, library: Library) -> Tensor:
        x, weight = _channels_last(x), _channels_last(weight)
        ctx.save_for_backward(x, weight)
        ctx.library = library
        return library.convolve(x, library.lay_out(weight, x.shape[2]), weight.shape[0])

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        library, gradient = ctx.library, _channels_last(gradient)
        d_x = d_weight = None
        if ctx.needs_input_grad[0]:
            d_x = library.convolve(gradient, library.lay_out(weight, x.shape[2], transposed=True), x.shape[1])
        if ctx.needs_input_grad[1]:
            d_weight = library.differentiate(x, gradient)
        return d_x, d_weight, None


class _LaidOut(NamedTuple):
    """Transformed weights, and what of; the weights are held, so that no others come to lie at their address."""

    weight: Tensor
    state: tuple[int, torch.dtype, bool]
    panels: Tensor


class Convolution(nn.Conv2d):
    """`nn.Conv2d`; of 3 × 3 with stride 1 and a border of one zero, by the compiled functions if they are there.

    The way is chosen by the maps' height alone, never by how many there are: what else is in a batch changes nothing.
    """

    _laid_out: _LaidOut | None = None

    @property
    def is_plain(self) -> bool:
        """Whether it is what the compiled functions compute."""
        sizes = (self.kernel_size, self.stride, self.padding, self.dilation, self.groups, self.padding_mode)
        return sizes == ((3, 3), (1, 1), (1, 1), (1, 1), 1, "zeros")

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, K, H', W')."""
        library = self._library(x)
        if library is None:
            return super().forward(x)
        weight = self.weight
        if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
            result: Tensor = NativeConvolution.apply(x, weight, library)
            return result if self.bias is None else result + self.bias[:, None, None]
        panels = self._panels(library, x.shape[2])
        return library.convolve(_channels_last(x), panels, weight.shape[0], self.bias)

    def _library(self, x: Tensor) -> Library | None:
        if is_followed() or torch.is_autocast_enabled(x.device.type):
            return None
        if not self.is_plain or not fits(x.shape[2]) or not x.numel():
            return None
        return library_taking(x, self.weight, self.bias)

    def _panels(self, library: Library, height: int) -> Tensor:
        """The transformed weights, kept until the weights change; a change through `.data` in place is not noticed."""
        weight = self.weight
        if weight.is_inference():
            return library.lay_out(_channels_last(weight), height)
        kept, state = self._laid_out, (weight._version, weight.dtype, height == 2)
        if kept is None or kept.weight.data_ptr() != weight.data_ptr() or kept.state != state:
            kept = _LaidOut(weight.detach(), state, library.lay_out(_channels_last(weight.detach()), height))
            self._laid_out = kept
        return kept.panels

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles begin without transformed weights."""
        return {**super().__getstate__(), "_laid_out": None}


def in_use(network: nn.Module) -> bool:
    """Whether convolutions of `network` take the compiled functions, its weights being where and what they are."""
    found = (one for one in network.modules() if isinstance(one, Convolution) and one.is_plain)
    return any(library_taking(one.weight) for one in found)


def fits(height: int) -> bool:
    """Whether tiles of four rows, or of the two there are, fill maps of this height well enough to pay."""
    return height == 2 or height % 4 in (0, 3) or height > 16


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)
