"""A whole sequence in one autograd function: what the three units' fast paths share.

One recurrent GEMM a step and few element-wise operations; the backward pass is written out, its element-wise part that
does not wait for the recurrence done for several steps at once, and the weights' gradients are one GEMM over all
steps. Values and gradients are those of the plain loop over `gates.units`; second derivatives, forward-mode
derivatives and torch.func transforms are not here: a layer with `fused=False` has them.

Rows are packed as in PackedSequence: `sizes[t]` rows belong to step t, sequences sorted by length. A padded batch is
the case of equal sizes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from str_app.models.gates.gate import RefinedGate
from str_app.models.gates.units import Unit
from str_app.models.kernels.native.library import can_take, library_for

# Elements of the stacked weights' pre-activations in one chunk of the backward pass: what stays in a core's cache.
CHUNK_ELEMENTS = 1 << 17
KERNELS_ON = "cuda"  # tests interpret them on the CPU


def first_derivative_only(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Run `backward` without recording, and refuse to be differentiated again.

    torch's own `once_differentiable` notices only gradients that require gradients: a gradient penalty would silently
    miss terms.
    """

    @functools.wraps(backward)
    def run(ctx: Any, *gradients: Tensor) -> Any:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "create_graph=True needs torch's own operations: build refined layers with fused=False, and compute "
                "what is differentiated within str_app.models.kernels.native.library.torch_operations_only()"
            )
        return backward(ctx, *gradients)

    return run


def order(sizes: Sequence[int], reverse: bool) -> list[int]:
    """Steps in the order in which the recurrence takes them."""
    return list(reversed(range(len(sizes)))) if reverse else list(range(len(sizes)))


def chunks(sizes: Sequence[int], reverse: bool, width: int) -> Iterator[tuple[slice, list[int]]]:
    """The backward pass in chunks of steps whose rows lie together, last step of the recurrence first.

    Yields:
        The chunk's rows, and the number of rows of each of its steps as they lie there.
    """
    steps = order(sizes, not reverse)
    start = 0 if reverse else sum(sizes)
    while steps:
        taken = 1
        rows = sizes[steps[0]]
        while taken < len(steps) and (rows + sizes[steps[taken]]) * width <= CHUNK_ELEMENTS:
            rows += sizes[steps[taken]]
            taken += 1
        first = start if reverse else start - rows
        yield slice(first, first + rows), [sizes[t] for t in sorted(steps[:taken])]
        start = start + rows if reverse else first
        steps = steps[taken:]


def by_step(sizes: Sequence[int], backwards: bool, *tensors: Tensor | None) -> Iterator[tuple[Any, ...]]:
    """Each step's rows of every tensor (None stays None), from the last step if `backwards`."""
    pieces = list(zip(*([None] * len(sizes) if x is None else x.split(list(sizes)) for x in tensors), strict=True))
    return reversed(pieces) if backwards else iter(pieces)


def take_steps(
    plain: Callable[..., None], unit: Unit, gate: RefinedGate, sizes: Sequence[int], reverse: bool, *tensors: Any
) -> None:
    """All steps by `plain`, or by the kernel or the compiled loop of its name and arguments where there is one."""
    faster = faster_steps(sum(sizes), *tensors)
    if faster is None or not all(one is None or one.is_contiguous() for one in tensors):
        plain(gate, sizes, reverse, *tensors)
    else:
        faster.run(plain.__name__, unit, gate, sizes, reverse, *tensors)


def faster_steps(rows: int, *tensors: Tensor | None) -> Any:
    """What takes these tensors' steps faster than torch's operations: kernels on a GPU, compiled loops, or None.

    Args:
        rows: of all steps together.
    """
    dtypes = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
    if can_take(KERNELS_ON, dtypes, tensors) and (kernels := find_kernels()):
        return kernels
    return library_for(rows, *tensors)


@functools.cache
def find_kernels() -> Any:
    """`str_app.models.kernels.triton_steps`, or None without Triton, which torch for CUDA brings along."""
    try:
        from str_app.models.kernels import triton_steps
    except ImportError:
        return None
    return triton_steps


def transposed_product(a: Tensor, b: Tensor) -> Tensor:
    """aᵀ b."""
    library = library_for(len(a), a, b)
    return a.t() @ b if library is None else library.product(a.t(), b)


def running(state: Tensor) -> Tensor:
    """A copy for all sequences, in which each step changes the rows of those that live."""
    return state.clone(memory_format=torch.contiguous_format)


def live_rows(sizes: Sequence[int], *states: Tensor) -> dict[int, list[Tensor]]:
    """For each number of rows a step can have, the states' first rows: views to be changed in place."""
    return {size: [state[:size] for state in states] for size in set(sizes)}


def join_out(gate: RefinedGate, name: str, vanilla: Tensor, feature: Tensor | None, out: Tensor) -> Tensor:
    """`RefinedGate.join` into `out`; the vanilla gate itself where it is not refined."""
    if feature is None or not gate.refines(name):
        return vanilla
    if gate.refine == "add":
        return torch.add(vanilla, feature, out=out)
    return torch.mul(vanilla, feature, out=out)


def through_gate(
    gate: RefinedGate, name: str, upstream: Tensor, vanilla: Tensor, feature: Tensor | None, out: Tensor
) -> None:
    """Write `upstream` · ∂g'/∂a into `out`, where g' = σ(a) ⋄ feature."""
    if feature is not None and gate.refines(name) and gate.refine == "mul":
        upstream = upstream * feature
    torch.ops.aten.sigmoid_backward.grad_input(upstream, vanilla, grad_input=out)


def through_feature(
    gate: RefinedGate, name: str, upstream: Tensor, vanilla: Tensor, gradient: Tensor, out: Tensor
) -> None:
    """Add `gradient` · `upstream` · ∂g'/∂feature to `out`, where the gate is refined."""
    if gate.refines(name):
        out.addcmul_(upstream * vanilla if gate.refine == "mul" else upstream, gradient)
