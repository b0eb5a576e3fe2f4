"""3 × 3 convolutions by minimal filtering (arXiv 1509.09308), compiled: a quarter of the multiplications."""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from str_app.models.kernels.dispatch import first_derivative_only, is_traced
from str_app.models.kernels.library import Library, address, library_for


class _Shape(ctypes.Structure):
    """`ConvolutionShape` of convolution.h."""

    _fields_ = tuple((name, ctypes.c_int64) for name in ("images", "height", "width", "inputs", "outputs", "threads"))


def transform_weight(library: Library, weight: Tensor, height: int, transposed: bool = False) -> Tensor:
    """The form of a weight (K, C, 3, 3), channels last, that `convolve` takes.

    Args:
        library: the compiled functions.
        weight: to transform.
        height: of the feature maps.
        transposed: for the gradient with respect to the inputs.
    """
    K, C = weight.shape[:2]
    shape = _Shape(0, height, 0, C, K, 1)
    size = ctypes.c_int64()
    library.call("transformed_size", weight.dtype, ctypes.byref(shape), transposed, ctypes.byref(size))
    transformed = weight.new_empty(size.value)
    arguments = address(weight), transposed, address(transformed)
    library.call("transform_weight", weight.dtype, ctypes.byref(shape), *arguments)
    return transformed


def convolve(library: Library, x: Tensor, transformed: Tensor, channels: int, bias: Tensor | None = None) -> Tensor:
    """Convolve x (B, C, H, W), channels last, with a transformed weight of `channels` outputs: (B, channels, H, W)."""
    B, C, H, W = x.shape
    result = torch.empty((B, channels, H, W), dtype=x.dtype, memory_format=torch.channels_last)
    shape = _Shape(B, H, W, C, channels, torch.get_num_threads())
    library.call("convolve", x.dtype, ctypes.byref(shape), *map(address, (x, transformed, bias, result)))
    return result


def weight_gradient(library: Library, x: Tensor, d_output: Tensor) -> Tensor:
    """The weight's gradient (K, C, 3, 3) from x (B, C, H, W) and d_output (B, K, H, W), all channels last."""
    B, C, H, W = x.shape
    K = d_output.shape[1]
    result = torch.empty((K, C, 3, 3), dtype=x.dtype, memory_format=torch.channels_last)
    shape = _Shape(B, H, W, C, K, torch.get_num_threads())
    library.call("weight_gradient", x.dtype, ctypes.byref(shape), *map(address, (x, d_output, result)))
    return result


class CompiledConvolution(torch.autograd.Function):
    """`F.conv2d` with stride 1 and padding 1.

    Arguments of `apply`: x (B, C, H, W), weight (K, C, 3, 3), the library. Result: (B, K, H, W), channels last.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, library: Library) -> Tensor:
        x, weight = _channels_last(x), _channels_last(weight)
        ctx.save_for_backward(x, weight)
        ctx.library = library
        return convolve(library, x, transform_weight(library, weight, x.shape[2]), weight.shape[0])

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        library, gradient = ctx.library, _channels_last(gradient)
        d_x = d_weight = None
        if ctx.needs_input_grad[0]:
            transformed = transform_weight(library, weight, x.shape[2], transposed=True)
            d_x = convolve(library, gradient, transformed, x.shape[1])
        if ctx.needs_input_grad[1]:
            d_weight = weight_gradient(library, x, gradient)
        return d_x, d_weight, None


class _Transformed(NamedTuple):
    """A transformed weight and what it was made from. Holding the weight keeps its address from being reused."""

    weight: Tensor
    state: tuple[int, torch.dtype, bool]
    transformed: Tensor


class Convolution(nn.Conv2d):
    """`nn.Conv2d` that runs 3 × 3 kernels with stride 1 and padding 1 by the compiled functions where they are built.

    Whether it does depends on the height of the feature maps, never on the batch size: the rest of a batch does not
    change a result.
    """

    _cached: _Transformed | None = None

    @property
    def is_compilable(self) -> bool:
        """Whether the compiled functions compute this kind of convolution."""
        options = (self.kernel_size, self.stride, self.padding, self.dilation, self.groups, self.padding_mode)
        return options == ((3, 3), (1, 1), (1, 1), (1, 1), 1, "zeros")

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, K, H', W')."""
        library = self._library(x)
        if library is None:
            return super().forward(x)
        weight = self.weight
        if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
            result: Tensor = CompiledConvolution.apply(x, weight, library)
            return result if self.bias is None else result + self.bias[:, None, None]
        transformed = self._transformed(library, x.shape[2])
        return convolve(library, _channels_last(x), transformed, weight.shape[0], self.bias)

    def _library(self, x: Tensor) -> Library | None:
        if is_traced() or torch.is_autocast_enabled(x.device.type):
            return None
        if x.dim() != 4 or self.weight.shape != (self.out_channels, x.shape[1], 3, 3):
            return None  # torch takes it, or raises
        if not self.is_compilable or not is_suitable(x.shape[2]) or not x.numel():
            return None
        return library_for(x, self.weight, self.bias)

    def _transformed(self, library: Library, height: int) -> Tensor:
        """The transformed weight, of a network that is not trained cached until the weight changes.

        In-place changes of `.data` go unnoticed, as do those of fused optimizers, which raise no version.
        """
        weight = self.weight
        if weight.is_inference() or weight.requires_grad:
            return transform_weight(library, _channels_last(weight), height)
        cached, state = self._cached, (weight._version, weight.dtype, height == 2)
        if cached is None or cached.weight.data_ptr() != weight.data_ptr() or cached.state != state:
            transformed = transform_weight(library, _channels_last(weight.detach()), height)
            cached = self._cached = _Transformed(weight.detach(), state, transformed)
        return cached.transformed

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles start without a cache."""
        return {**super().__getstate__(), "_cached": None}


def uses_compiled(network: nn.Module) -> bool:
    """Whether any convolution of `network` runs by the compiled functions, given its weights' device and dtype."""
    return any(
        isinstance(module, Convolution) and module.is_compilable and library_for(module.weight) is not None
        for module in network.modules()
    )


def is_suitable(height: int) -> bool:
    """Whether tiles of four rows, or of two for maps of two rows, waste little enough on maps of this height."""
    return height == 2 or height % 4 in (0, 3) or height > 16


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)
