"""When a kernel may take tensors, and when torch's own operations must."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

_kernels_enabled: ContextVar[bool] = ContextVar("kernels enabled", default=True)


@contextmanager
def torch_operations_only() -> Iterator[None]:
    """Disable all kernels inside: to compare with them, or to record or differentiate every operation."""
    token = _kernels_enabled.set(False)
    try:
        yield
    finally:
        _kernels_enabled.reset(token)


def is_traced() -> bool:
    """Whether torch.compile, torch.export or torch.jit.trace is recording: they need torch's operations."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def can_take(device: str, dtypes: Sequence[torch.dtype], tensors: Sequence[Tensor | None]) -> bool:
    """Whether a kernel may access the memory of these tensors directly.

    True for plain tensors and parameters on `device` that share one of `dtypes`, outside `torch_operations_only` and
    dispatch modes and torch.func transforms. None entries are ignored; the first tensor must not be None. A tensor that
    torch negates lazily, such as the imaginary part of a conjugate, has other values in memory.
    """
    present = [tensor for tensor in tensors if tensor is not None]
    dtype = present[0].dtype
    if dtype not in dtypes or not _kernels_enabled.get() or _get_current_dispatch_mode() is not None:
        return False
    if torch._C._are_functorch_transforms_active():
        return False
    return all(
        type(tensor) in (Tensor, nn.Parameter)
        and tensor.dtype == dtype
        and tensor.device.type == device
        and not tensor.is_neg()
        for tensor in present
    )


def first_derivative_only(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate an autograd function's `backward`, which records no graph and needs gradients in memory.

    It raises RuntimeError under `create_graph`: torch's `once_differentiable` raises only for incoming gradients that
    require gradients, so a gradient penalty would silently miss terms. It raises under `is_grads_batched`, too.
    """

    @functools.wraps(backward)
    def run(ctx: Any, *gradients: Tensor | None) -> Any:
        if torch.is_grad_enabled():
            asked = "create_graph=True"
        elif any(torch._C._functorch.is_legacy_batchedtensor(each) for each in gradients if each is not None):
            asked = "is_grads_batched=True, or vectorize=True of a Jacobian,"
        else:
            return backward(ctx, *gradients)
        raise RuntimeError(
            f"{asked} needs torch's own operations: build refined layers with fused=False, and run the forward pass "
            "within str_app.models.kernels.dispatch.torch_operations_only()"
        )

    return run
