"""One layer and direction of a recurrent unit over packed rows: the plain loop, and the choice of a faster path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.nn import functional as F

from str_app.models.gates.gate import RefinedGate
from str_app.models.gates.units import State, Unit
from str_app.models.kernels.dispatch import is_traced
from str_app.models.kernels.product import CompiledLinear
from str_app.models.kernels.recurrence import (
    ADD,
    MUL,
    NONE,
    UNIFORM,
    RecurrentSteps,
    compiled_library,
    find_steps,
)

_JOINS = {"none": NONE, "add": ADD, "mul": MUL}


def run_recurrence(
    unit: Unit,
    gate: RefinedGate,
    data: Tensor,
    sizes: Sequence[int],
    initial: State,
    weights: Mapping[str, Tensor | None],
    reverse: bool,
    fused: bool,
) -> tuple[Tensor, State]:
    """Outputs (N, H) and last states (B, H) of one layer and direction.

    Args:
        unit, gate: the equations and what is refined.
        data: inputs (N, I), rows packed as in PackedSequence.
        sizes: rows of each step, not increasing; they sum to N.
        initial: states (B, H) before the first step, B the largest size.
        weights: weight_ih, weight_hh, bias_ih, bias_hh, weight_feature of this layer and direction, or None.
        reverse: from the last step to the first.
        fused: allow kernels, where they can take the tensors; otherwise the plain loop runs.
    """
    weight_hh, bias_ih, bias_hh = weights["weight_hh"], weights["bias_ih"], weights["bias_hh"]
    assert weight_hh is not None
    _check_weights(unit, gate, initial[0].shape[1], weights)
    fused = fused and gate.has_kernels and not is_traced()
    if bias_ih is not None and bias_hh is not None and unit.name != "GRU":  # a GRU's reset gate multiplies its bias_hh
        bias_ih, bias_hh = bias_ih + bias_hh, None
    projected, feature = _map_inputs(gate, data, weights, bias_ih, fused)
    with _full_precision(data.device.type):
        dtype = weight_hh.dtype
        projected = projected.to(dtype)
        feature = None if feature is None else feature.to(dtype)
        initial = tuple(state.to(dtype) for state in initial)
        inputs = (projected, weight_hh, bias_hh, feature)
        joins = [_join(unit, gate, name) for name in unit.gates] if fused else []
        run_steps = find_steps(len(data), *inputs, *initial, uniform=UNIFORM in joins) if fused else None
        if run_steps is None:
            return plain_loop(unit, gate, projected, feature, sizes, initial, weight_hh, bias_hh, reverse)
        needs_backward = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (*inputs, *initial))
        output, *last = RecurrentSteps.apply(
            unit.name.lower(), *inputs, sizes, reverse, joins, needs_backward, run_steps, *initial
        )
        return output, tuple(last)


def _check_weights(unit: Unit, gate: RefinedGate, hidden: int, weights: Mapping[str, Tensor | None]) -> None:
    """Raise RuntimeError for shapes that are not those of the equations: kernels do not look, and the loop broadcasts.

    That inputs have as many columns as the weights is for the products to find.
    """
    rows = len(unit.blocks_of(gate)) * hidden
    expected = {"weight_ih": (rows,), "weight_hh": (rows, hidden), "bias_ih": (rows,), "bias_hh": (rows,)}
    for name, shape in (expected | {"weight_feature": (hidden,)}).items():
        weight = weights[name]
        if weight is not None and weight.shape[: len(shape)] != shape:
            raise RuntimeError(f"{name}: expected {shape} first, got {tuple(weight.shape)}")


def _join(unit: Unit, gate: RefinedGate, name: str) -> int:
    """The kernels' code for the gate called `name`."""
    if gate.refine == "ur":
        return UNIFORM if name == unit.keeps else NONE
    return _JOINS[gate.refine] if gate.refines(name) else NONE


def _full_precision(device: str) -> AbstractContextManager[object]:
    """Autocast off, on devices that have it; meta has not."""
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()


def _map_inputs(
    gate: RefinedGate, data: Tensor, weights: Mapping[str, Tensor | None], bias_ih: Tensor | None, fused: bool
) -> tuple[Tensor, Tensor | None]:
    """What does not depend on the states, by one GEMM over all steps, in autocast's precision where that is on.

    Returns:
        Projections W_ih x + b_ih (N, blocks × H), and the feature (N, H) or None.
    """
    weight_ih, weight_feature = weights["weight_ih"], weights["weight_feature"]
    assert weight_ih is not None
    library = compiled_library(len(data), data, *weights.values()) if fused else None
    if library is None or torch.is_autocast_enabled(data.device.type):
        return F.linear(data, weight_ih, bias_ih), gate.map_feature(data, weight_feature)
    projected = CompiledLinear.apply(data, weight_ih, bias_ih, False, library)
    if weight_feature is None:
        return projected, gate.map_feature(data, None)
    tanh = gate.activation == "tanh"
    feature = CompiledLinear.apply(data, weight_feature, None, tanh, library)
    return projected, feature if tanh else gate.activate(feature)


def plain_loop(
    unit: Unit,
    gate: RefinedGate,
    projected: Tensor,
    feature: Tensor | None,
    sizes: Sequence[int],
    initial: State,
    weight_hh: Tensor,
    bias_hh: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, State]:
    """Step by step by the unit's equations in torch's operations; arguments and result as of `run_recurrence`."""
    inputs = projected.split(list(sizes))
    features = [None] * len(sizes) if feature is None else feature.split(list(sizes))
    outputs: list[Tensor] = [projected] * len(sizes)
    # Rows are sorted by length: forwards, sequences end at the end of the batch; in reverse, they start there.
    active = sizes[-1] if reverse else sizes[0]
    state = tuple(s[:active] for s in initial)
    ended: list[State] = []
    for t in reversed(range(len(sizes))) if reverse else range(len(sizes)):
        rows = sizes[t]
        if rows < active:
            ended.append(tuple(s[rows:] for s in state))
            state = tuple(s[:rows] for s in state)
        elif rows > active:
            state = tuple(torch.cat([s, s_0[active:rows]]) for s, s_0 in zip(state, initial, strict=True))
        active = rows
        before = state[0]
        state = unit.step(gate, inputs[t], state, features[t], weight_hh, bias_hh)
        gate.record_state(before, state[0])
        outputs[t] = state[0]
    if ended:
        state = tuple(torch.cat(pieces) for pieces in zip(state, *reversed(ended), strict=True))
    return torch.cat(outputs), state
