"""The compiled steps of recurrent layers: when they run, and what they compute in edge cases.

Their values and gradients are compared with the loop of cells in tests/models/gates/test_paths.py.
"""

import copy

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from str_app.bench.gates import overhead
from str_app.models.gates.layers import RefinedGRU, RefinedLSTM, RefinedMGU
from str_app.models.kernels.dispatch import torch_operations_only
from str_app.models.kernels.recurrence import NONE, find_steps

LAYERS = (RefinedLSTM, RefinedGRU, RefinedMGU)
PRECISIONS = (torch.float32, torch.float64)


def values_and_gradients(layer, x, state=None):
    """Output, last states, and the gradients of x and of all parameters."""
    layer.zero_grad()
    x = x.detach().requires_grad_()
    output, last = layer(x, state)
    last = last if isinstance(last, tuple) else (last,)
    (output.square().sum() + sum(s.sin().sum() for s in last)).backward()
    return [output.detach(), *(s.detach() for s in last), x.grad, *(p.grad for p in layer.parameters())]


@pytest.mark.parametrize("refine", ["add", "ur"])
@pytest.mark.parametrize("kind", LAYERS)
def test_a_fused_layer_uses_the_compiled_functions(calls, kind, refine):
    layer = kind(3, 4, refine=refine)
    x = torch.randn(20, 2, 3)
    layer(x)[0].sum().backward()
    assert set(calls) == {f"{kind.unit.name.lower()}_{way}" for way in ("forward", "backward")} | {"gemm"}
    calls.clear()
    layer(x[:7])  # 14 rows
    with torch_operations_only():
        layer(x)
    layer.fused = False
    layer(x)
    kind(3, 4, dtype=torch.bfloat16)(x.bfloat16())
    assert calls == []


@pytest.mark.parametrize("refine", ["add", "mul", "ur"])
@pytest.mark.parametrize("hidden", [1, 16, 37, 130])
@pytest.mark.parametrize("kind", LAYERS)
def test_any_width_equals_the_plain_loop(calls, kind, hidden, refine):
    """Vectors, panels and tiles that are full, and those that are not."""
    torch.manual_seed(0)
    layer = kind(5, hidden, bidirectional=True, refine=refine, dtype=torch.float64)
    x = torch.randn(5, 13, 5, dtype=torch.float64)
    actual = values_and_gradients(layer, x)
    with torch_operations_only():
        expected = values_and_gradients(layer, x)
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", LAYERS)
def test_the_backward_pass_runs_as_the_forward_pass_did(calls, kind):
    torch.manual_seed(1)
    layer = kind(6, 6, feature="identity", dtype=torch.float64)
    x = torch.randn(8, 3, 6, dtype=torch.float64)
    compiled = layer(x)[0].square().sum()
    with torch_operations_only():
        gradient = torch.autograd.grad(compiled, layer.weight_hh_l0)
        plain = layer(x)[0].square().sum()
    calls.clear()
    torch.testing.assert_close(torch.autograd.grad(plain, layer.weight_hh_l0), gradient)
    assert calls == []


@pytest.mark.parametrize("kind", LAYERS)
def test_saved_tensors_of_another_dtype_are_refused(calls, kind):
    """Hooks that change them would have the compiled functions read beyond their memory."""
    layer = kind(3, 4)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor.half(), lambda tensor: tensor):
        output = layer(torch.randn(20, 2, 3))[0]
    with pytest.raises(RuntimeError, match="dtype"):
        output.sum().backward()


@pytest.mark.parametrize("kind", LAYERS)
def test_strides_do_not_matter(calls, kind):
    torch.manual_seed(2)
    layer = kind(6, 6, feature="identity", dtype=torch.float64)
    odd = copy.deepcopy(layer)
    for parameter in odd.parameters():
        parameter.data = torch.stack([parameter.data, parameter.data], dim=-1)[..., 0]
    x = torch.randn(4, 6, 8, dtype=torch.float64).permute(2, 0, 1)
    state = torch.randn(1, 1, 6, dtype=torch.float64).expand(1, 4, 6)
    state = (state, state) if kind is RefinedLSTM else state
    actual = values_and_gradients(odd, x, state)
    expected = values_and_gradients(layer, x.contiguous(), state)
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("kind", LAYERS)
def test_threads_and_the_rest_of_the_batch_do_not_change_a_bit(calls, kind, dtype):
    torch.manual_seed(3)
    layer = kind(64, 96, dtype=dtype)  # work enough for three threads
    x = torch.randn(40, 50, 64, dtype=dtype)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 3, 3):
            torch.set_num_threads(count)
            results.append(values_and_gradients(layer, x))
    finally:
        torch.set_num_threads(threads)
    for repeated in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], repeated, strict=True))
    assert torch.equal(layer(x[:, 7:18])[0], results[0][0][:, 7:18])


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_gates_are_exact_to_a_few_roundings(calls, dtype):
    torch.manual_seed(4)
    x = torch.cat([torch.linspace(-30, 30, 5001), torch.randn(5000) * 10.0 ** torch.randint(-30, 2, (5000,))])
    x = torch.cat([x, torch.tensor([0.0, 1e4, -1e4, torch.inf, -torch.inf, torch.nan])]).to(dtype)[:, None]
    # One step without recurrent weights: the gates are σ of the projections, the candidate their tanh.
    acts = x.repeat(1, 4)
    states = [torch.zeros_like(x) for _ in range(6)]
    weight = torch.zeros(4, 1, dtype=dtype)
    run_steps = find_steps(len(x), x)
    run_steps("lstm_forward", [NONE] * 3, [len(x)], False, [weight, None, acts, *states])
    exact = x.double()
    expected = torch.cat([exact.sigmoid(), exact.sigmoid(), exact.tanh(), exact.sigmoid()], dim=1)
    limits = torch.finfo(dtype)
    torch.testing.assert_close(acts.double(), expected, rtol=4 * limits.eps, atol=2 * limits.tiny, equal_nan=True)


@pytest.mark.parametrize("kind", LAYERS)
def test_a_nan_affects_only_its_own_sequence(calls, kind):
    x = torch.randn(20, 3, 4)
    x[5, 1] = torch.nan
    output = kind(4, 4)(x)[0].isnan()
    assert output[5:, 1].all()
    assert not output[:, [0, 2]].any()
    assert not output[:5].any()


class Recorder(TorchDispatchMode):
    """Notes every operation."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.append(func)
        return func(*args, **(kwargs or {}))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:`torch.jit.trace:DeprecationWarning")
def test_tracers_and_dispatch_modes_see_torch_operations(calls):
    layer = RefinedLSTM(3, 4)
    x, another = torch.randn(2, 20, 2, 3)
    expected = layer(another)[0]
    calls.clear()
    traced = torch.jit.trace(layer, x, check_trace=False)
    torch.testing.assert_close(traced(another)[0], expected)
    with Recorder() as recorder:
        layer(x)
    assert recorder.seen.count(torch.ops.aten.tanh.default) == 41  # two a step, and the feature's
    assert calls == []


@pytest.mark.parametrize("unit", ["LSTM", "GRU", "MGU"])
def test_no_more_is_kept_for_the_backward_pass(calls, unit):
    compiled = overhead(unit, "mul", (8, 10, 16)).kept_bytes["refined"]
    assert calls
    with torch_operations_only():
        assert compiled <= overhead(unit, "mul", (8, 10, 16)).kept_bytes["refined"]
