"""Every path of the layers gives the values and gradients of a float64 loop of cells."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from str_app.models.gates.cells import RefinedGRUCell, RefinedLSTMCell, RefinedMGUCell
from str_app.models.gates.layers import RefinedGRU, RefinedLSTM, RefinedMGU

LAYERS = (RefinedLSTM, RefinedGRU, RefinedMGU)
CELLS = {RefinedLSTM: RefinedLSTMCell, RefinedGRU: RefinedGRUCell, RefinedMGU: RefinedMGUCell}
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]


def as_tuple(state):
    return state if isinstance(state, tuple) else (state,)


def loop_of_cells(layer, x, initial):
    """Layers and directions as loops of single cells; x (T, I) of one sequence, initial states (layers, H)."""
    last = []
    kind = CELLS[type(layer)]
    for depth in range(layer.num_layers):
        outputs = []
        for suffix in [f"l{depth}", f"l{depth}_reverse"][: 1 + layer.bidirectional]:
            choices = {name: getattr(layer.gate, name) for name in ("refine", "gates", "feature", "activation")}
            cell = kind(x.shape[1], layer.hidden_size, layer.bias, dtype=x.dtype, **choices)
            names = {name: getattr(layer, f"{name}_{suffix}") for name, _ in cell.named_parameters()}
            state = tuple(s[len(last)] for s in initial)
            steps = []
            for x_t in x.flip(0) if suffix.endswith("reverse") else x:
                given_state = state if len(state) == 2 else state[0]
                state = as_tuple(torch.func.functional_call(cell, names, (x_t, given_state)))
                steps.append(state[0])
            outputs.append(torch.stack(steps[::-1] if suffix.endswith("reverse") else steps))
            last.append(state)
        x = torch.cat(outputs, dim=1)
    return x, tuple(torch.stack(states) for states in zip(*last, strict=True))


@st.composite
def cases(draw):
    kind = draw(st.sampled_from(LAYERS))
    gates = draw(st.lists(st.sampled_from(kind.unit.gates), min_size=1, unique=True))
    hidden = draw(st.integers(1, 4))
    layers = draw(st.integers(1, 2))
    identity = draw(st.booleans()) and layers == 1
    options = {
        "refine": draw(st.sampled_from(["none", "add", "mul", "ur"])),
        "gates": tuple(gates),
        "feature": "identity" if identity else "linear",
        "activation": draw(st.sampled_from(["none", "tanh", "sigmoid", "layernorm"])),
        "bias": draw(st.booleans()),
        "num_layers": layers,
        "bidirectional": draw(st.booleans()),
    }
    lengths = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    return kind, (hidden if identity else draw(st.integers(1, 3))), hidden, options, lengths


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=cases(), seed=st.integers(0, 1000))
def test_packed_rows_equal_a_loop_of_cells_over_each_sequence(path, case, seed):
    """All paths, any lengths, any choice."""
    kind, inputs, hidden, options, lengths = case
    torch.manual_seed(seed)
    layer = kind(inputs, hidden, dtype=torch.float64, **options)
    directions = layer.num_layers * (1 + layer.bidirectional)
    x = torch.randn(max(lengths), len(lengths), inputs, dtype=torch.float64, requires_grad=True)
    initial = [
        torch.randn(directions, len(lengths), hidden, dtype=torch.float64, requires_grad=True) for _ in kind.unit.states
    ]
    leaves = [x, *initial, *layer.parameters()]

    def gradients(pieces):
        total = sum(output.sin().sum() + sum(s.square().sum() for s in states) for output, states in pieces)
        return torch.autograd.grad(total, leaves, allow_unused=True)

    expected = [
        loop_of_cells(layer, x[:length, row], tuple(s[:, row] for s in initial)) for row, length in enumerate(lengths)
    ]
    expected_gradients = gradients(expected)
    packed = pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False)
    output, states = layer(packed, tuple(initial) if len(initial) == 2 else initial[0])
    output, states = pad_packed_sequence(output)[0], as_tuple(states)
    actual = [(output[:n, row], tuple(s[:, row] for s in states)) for row, n in enumerate(lengths)]
    torch.testing.assert_close(actual, expected)
    for actual_gradient, gradient in zip(gradients(actual), expected_gradients, strict=True):
        if gradient is not None:
            torch.testing.assert_close(actual_gradient, gradient)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("refine", ["none", "add", "mul", "ur"])
@pytest.mark.parametrize("kind", LAYERS)
def test_gradcheck(path, kind, refine, device):
    torch.manual_seed(4)
    layer = kind(2, 3, bidirectional=True, refine=refine, dtype=torch.float64, device=device)
    x = torch.randn(3, 2, 2, dtype=torch.float64, device=device, requires_grad=True)
    names = [name for name, _ in layer.named_parameters()]

    def run(x, *values):
        output, state = torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))
        return output, *as_tuple(state)

    assert torch.autograd.gradcheck(run, (x, *layer.parameters()))


@pytest.mark.parametrize("refine", ["add", "mul"])
@pytest.mark.parametrize("kind", LAYERS)
def test_second_derivatives_by_the_plain_loop(path, kind, refine):
    torch.manual_seed(5)
    layer = kind(2, 2, refine=refine, dtype=torch.float64, fused=False)
    x = torch.randn(2, 1, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: layer(x)[0], (x,))
    layer.fused = True
    if path == "loop":
        assert torch.autograd.gradgradcheck(lambda x: layer(x)[0], (x,))
    else:
        with pytest.raises(RuntimeError, match="fused=False"):
            torch.autograd.grad(layer(x)[0].sum(), x, create_graph=True)


@pytest.mark.parametrize("kind", LAYERS)
def test_batched_gradients_by_the_plain_loop(path, kind):
    torch.manual_seed(6)
    layer = kind(2, 2, refine="mul", dtype=torch.float64)
    x = torch.randn(3, 1, 2, dtype=torch.float64, requires_grad=True)
    output, _ = layer(x)
    directions = torch.randn(4, *output.shape, dtype=torch.float64)
    if path == "loop":
        expected = [torch.autograd.grad(output, x, each, retain_graph=True)[0] for each in directions]
        (batched,) = torch.autograd.grad(output, x, directions, is_grads_batched=True)
        torch.testing.assert_close(batched, torch.stack(expected))
    else:
        with pytest.raises(RuntimeError, match=r"is_grads_batched=True.* fused=False"):
            torch.autograd.grad(output, x, directions, is_grads_batched=True)
        with pytest.raises(RuntimeError, match=r"vectorize=True.* fused=False"):
            torch.autograd.functional.jacobian(lambda x: layer(x)[0], x, vectorize=True)


@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("refine", ["add", "mul", "ur"])
@pytest.mark.parametrize("kind", LAYERS)
def test_forward_mode_and_function_transforms_by_the_plain_loop(path, kind, refine):
    torch.manual_seed(9)
    layer = kind(2, 3, refine=refine, dtype=torch.float64, fused=False)
    x, direction = torch.randn(2, 4, 2, 2, dtype=torch.float64)

    def run(x):
        return layer(x)[0]

    _, tangent = torch.func.jvp(run, (x,), (direction,))
    jacobian = torch.func.jacrev(run)(x)
    torch.testing.assert_close(torch.einsum("tbhijk,ijk->tbh", jacobian, direction), tangent)
    reverse = torch.autograd.grad((run(x.requires_grad_()) * tangent).sum(), x)[0]
    torch.testing.assert_close((reverse * direction).sum(), tangent.square().sum())


@pytest.mark.parametrize("kind", LAYERS)
def test_function_transforms_of_fused_layers(path, kind):
    torch.manual_seed(11)
    layer = kind(3, 4, bidirectional=True, dtype=torch.float64)
    x = torch.randn(6, 4, 3, dtype=torch.float64)
    parameters = dict(layer.named_parameters())

    def loss(parameters, x):
        return torch.func.functional_call(layer, parameters, (x,))[0].square().sum()

    gradients = torch.func.grad(loss)(parameters, x)
    per_sequence = torch.func.vmap(torch.func.grad(loss), (None, 1))(parameters, x)
    expected = torch.autograd.grad(loss(parameters, x), list(parameters.values()))
    for name, gradient in zip(parameters, expected, strict=True):
        torch.testing.assert_close(gradients[name], gradient)
        torch.testing.assert_close(per_sequence[name].sum(0), gradient)


@pytest.mark.parametrize("refine", ["none", "add", "mul", "ur"])
@pytest.mark.parametrize("kind", LAYERS)
def test_shapes_without_values_on_the_meta_device(path, kind, refine):
    layer = kind(3, 4, bidirectional=True, refine=refine, device="meta")
    output, state = layer(torch.empty(6, 4, 3, device="meta"))
    assert (output.shape, output.device.type) == ((6, 4, 8), "meta")
    assert as_tuple(state)[0].shape == (2, 4, 4)


@pytest.mark.parametrize("kind", LAYERS)
def test_hooks_see_the_gradients(path, kind):
    torch.manual_seed(10)
    layer = kind(3, 4, dtype=torch.float64)
    x = torch.randn(5, 2, 3, dtype=torch.float64, requires_grad=True)
    expected = torch.autograd.grad(layer(x)[0].square().sum(), [*layer.parameters()])
    seen = []
    for parameter in layer.parameters():
        parameter.register_hook(seen.append)
    layer.register_full_backward_hook(lambda module, inputs, outputs: seen.append(outputs[0]))
    with torch.autograd.graph.save_on_cpu():
        output = layer(x)[0]
    output.square().sum().backward()
    assert len(seen) == 1 + len(expected)
    torch.testing.assert_close([p.grad for p in layer.parameters()], list(expected))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 4e-2), (torch.float16, 5e-3)])
@pytest.mark.parametrize("refine", ["add", "mul"])
@pytest.mark.parametrize("kind", LAYERS)
def test_precision(path, kind, refine, dtype, tolerance, device):
    """Largest error of outputs after 12 steps at H = 32, in the weights' precision, against float64."""
    torch.manual_seed(6)
    layer = kind(32, 32, refine=refine, dtype=dtype, device=device)
    x = torch.randn(12, 4, 32, dtype=dtype, device=device)
    output = layer(x)[0]
    assert output.dtype == dtype
    exact = layer.double()(x.double())[0]
    assert (output.double() - exact).abs().max() < tolerance


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", LAYERS)
def test_autocast_keeps_the_recurrence_in_full_precision(path, kind, device):
    torch.manual_seed(7)
    layer = kind(32, 32, device=device)
    x = torch.randn(12, 4, 32, device=device)
    with torch.autocast(device, dtype=torch.bfloat16):
        output, _ = layer(x)
    assert output.dtype == torch.float32
    torch.testing.assert_close(output, layer(x)[0], rtol=0, atol=2e-2)
    output.sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in layer.parameters())


@pytest.mark.parametrize("kind", LAYERS)
def test_shapes_that_do_not_fit_are_refused(path, kind):
    """Kernels read memory without looking at shapes."""
    layer = kind(5, 7)
    for width in (4, 6):
        packed = pack_padded_sequence(torch.randn(10, 3, width), torch.tensor([10, 6, 6]))
        with pytest.raises(RuntimeError, match=f"Expected 5, got {width}"):
            layer(packed)
    x, state = torch.randn(10, 3, 5), layer.state_dict()
    names = ["weight_ih_l0", "weight_hh_l0", "bias_hh_l0", "weight_feature_l0"]
    wrong = [(name, (*state[name].shape[:-1], state[name].shape[-1] + 2)) for name in names]
    wrong += [("bias_hh_l0", (1,)), ("weight_hh_l0", (21, 7) if kind is RefinedMGU else (14, 7))]
    for name, shape in wrong:
        with pytest.raises(RuntimeError):
            torch.func.functional_call(layer, {name: torch.randn(shape)}, (x,))


@pytest.mark.parametrize("kind", LAYERS)
def test_an_input_that_torch_negates_lazily(path, kind):
    layer = kind(5, 7)
    x = torch.randn(10, 3, 5, dtype=torch.complex64).conj().imag
    assert x.is_neg()
    torch.testing.assert_close(layer(x)[0], layer(x.clone())[0])


@pytest.mark.parametrize("layout", ["time_first", "batch_first", "unbatched", "packed"])
@pytest.mark.parametrize(("kind", "theirs"), [(RefinedLSTM, nn.LSTM), (RefinedGRU, nn.GRU)])
@pytest.mark.parametrize(("layers", "bidirectional", "bias"), [(1, False, True), (2, True, True), (1, True, False)])
def test_vanilla_equals_torch(kind, theirs, layers, bidirectional, bias, layout):
    torch.manual_seed(0)
    options = {"num_layers": layers, "bidirectional": bidirectional, "bias": bias}
    options["batch_first"] = layout == "batch_first"
    reference = theirs(6, 5, **options)
    ours = kind(6, 5, refine="none", **options)
    ours.load_state_dict(reference.state_dict())
    reference.load_state_dict(ours.state_dict())
    x = torch.randn({"unbatched": (5, 6), "batch_first": (4, 5, 6)}.get(layout, (5, 4, 6)))
    directions = layers * (1 + bidirectional)
    shape = (directions, 5) if layout == "unbatched" else (directions, 4, 5)
    state = tuple(torch.randn(shape) for _ in kind.unit.states)
    state = state if len(state) == 2 else state[0]

    results = []
    for layer in (reference, ours):
        x_in = x.clone().requires_grad_()
        packed = pack_padded_sequence(x_in, [3, 5, 1, 4], enforce_sorted=False) if layout == "packed" else x_in
        output, last = layer(packed, state)
        output = output.data if layout == "packed" else output
        (output.square().sum() + sum(s.sin().sum() for s in as_tuple(last))).backward()
        results.append([output, *as_tuple(last), x_in.grad, *(p.grad for p in layer.parameters())])
    for expected, actual in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", LAYERS)
def test_vanilla_cells_equal_vanilla_layers(kind):
    torch.manual_seed(8)
    layer = kind(3, 4, 2, bidirectional=True, refine="none", dtype=torch.float64)
    x = torch.randn(5, 3, dtype=torch.float64)
    zeros = tuple(torch.zeros(4, 4, dtype=torch.float64) for _ in kind.unit.states)
    output, state = layer(x)
    torch.testing.assert_close((output, as_tuple(state)), loop_of_cells(layer, x, zeros))
