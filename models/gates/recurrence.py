"""One layer and direction of a recurrent unit over packed rows: the plain loop, and the choice of a faster path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from str_app.models.gates.gate import RefinedGate
from str_app.models.gates.units import State, Unit
from str_app.models.kernels.fused import order
from str_app.models.kernels.fused_gru import FusedGRU
from str_app.models.kernels.fused_lstm import FusedLSTM
from str_app.models.kernels.fused_mgu import FusedMGU
from str_app.models.kernels.native.library import is_followed, library_for
from str_app.models.kernels.native.linear import map_inputs

_FUSED: dict[str, type[torch.autograd.Function]] = {"LSTM": FusedLSTM, "GRU": FusedGRU, "MGU": FusedMGU}


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
        fused: allow the faster path.
    """
    weight_ih, weight_hh = weights["weight_ih"], weights["weight_hh"]
    assert weight_ih is not None
    assert weight_hh is not None
    bias_ih, bias_hh = weights["bias_ih"], weights["bias_hh"]
    fused = fused and gate.refine != "ur" and not gate.watched and not is_followed()
    if bias_ih is not None and bias_hh is not None and unit.name != "GRU":  # a GRU's reset gate multiplies its bias_hh
        bias_ih, bias_hh = bias_ih + bias_hh, None
    # Everything that does not depend on h is one GEMM over all steps, in autocast's precision where that is on.
    library = None
    if fused and not torch.is_autocast_enabled(data.device.type):
        library = library_for(len(data), data, *weights.values())
    if library is None:
        projected = F.linear(data, weight_ih, bias_ih)
        feature = gate.map_feature(data, weights["weight_feature"])
    else:
        projected, feature = map_inputs(library, gate, data, weight_ih, bias_ih, weights["weight_feature"])
    with torch.autocast(data.device.type, enabled=False):
        dtype = weight_hh.dtype
        projected = projected.to(dtype)
        feature = None if feature is None else feature.to(dtype)
        initial = tuple(state.to(dtype) for state in initial)
        if fused:
            biases = (bias_hh,) if unit.name == "GRU" else ()
            inputs = (projected, weight_hh, *biases, feature, *initial)
            keep = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs)
            output, *last = _FUSED[unit.name].apply(*inputs, sizes, reverse, gate, keep)
            return output, tuple(last)
        return plain_loop(unit, gate, projected, feature, sizes, initial, weight_hh, bias_hh, reverse)


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
    """Step after step by the unit's equations, with torch's own gradients."""
    B = sizes[0]
    inputs = projected.split(list(sizes))
    features = [None] * len(sizes) if feature is None else feature.split(list(sizes))
    outputs: list[Tensor] = [projected] * len(sizes)
    # Rows are sorted by length. Forwards, finished rows leave at the end of the batch; backwards, they join there.
    live = sizes[-1] if reverse else B
    state = tuple(s[:live] for s in initial)
    finished: list[State] = []
    for t in order(sizes, reverse):
        rows = sizes[t]
        if rows < live:
            finished.append(tuple(s[rows:] for s in state))
            state = tuple(s[:rows] for s in state)
        elif rows > live:
            state = tuple(torch.cat([s, s_0[live:rows]]) for s, s_0 in zip(state, initial, strict=True))
        live = rows
        before = state[0]
        state = unit.step(gate, inputs[t], state, features[t], weight_hh, bias_hh)
        gate.note_state(before, state[0])
        outputs[t] = state[0]
    if finished:
        state = tuple(torch.cat(pieces) for pieces in zip(state, *reversed(finished), strict=True))
    return torch.cat(outputs), state
