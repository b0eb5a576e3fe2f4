"""RefinedLSTM: nn.LSTM exactly when vanilla, the paper's equation literally when refined."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from models.cells import RefinedLSTMCell
from models.layers import RefinedLSTM

LENGTHS = torch.tensor([3, 5, 1, 4])


def literal_lstm(x, h, c, weights, refine, gates, feature, squash):
    """One layer, one direction, one sequence, one step after the other, as the equation is written."""
    w_ih, w_hh, b_ih, b_hh, w_x = weights
    H = h.shape[0]
    outputs = []
    for x_t in x:
        joined = x_t if feature == "identity" else w_x @ x_t
        if squash == "tanh":
            joined = torch.tanh(joined)
        elif squash == "layernorm":
            joined = (joined - joined.mean()) / torch.sqrt(joined.var(unbiased=False) + 1e-5)

        def gate(k, name, joined=joined, x_t=x_t, h=h):
            rows = slice(k * H, (k + 1) * H)
            g = torch.sigmoid(w_ih[rows] @ x_t + b_ih[rows] + w_hh[rows] @ h + b_hh[rows])
            if name not in gates:
                return g
            return g + joined if refine == "add" else g * joined

        rows = slice(2 * H, 3 * H)
        candidate = torch.tanh(w_ih[rows] @ x_t + b_ih[rows] + w_hh[rows] @ h + b_hh[rows])
        c = gate(1, "forget") * c + gate(0, "input") * candidate
        h = gate(3, "output") * torch.tanh(c)
        outputs.append(h)
    return torch.stack(outputs), h, c


def layer_weights(layer, suffix):
    return (
        getattr(layer, f"weight_ih_{suffix}"),
        getattr(layer, f"weight_hh_{suffix}"),
        getattr(layer, f"bias_ih_{suffix}"),
        getattr(layer, f"bias_hh_{suffix}"),
        getattr(layer, f"weight_feature_{suffix}", None),
    )


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("layout", ["time_first", "batch_first", "unbatched", "packed"])
def test_vanilla_equals_torch(layers, bidirectional, layout, bias):
    torch.manual_seed(0)
    options = {
        "num_layers": layers,
        "bidirectional": bidirectional,
        "bias": bias,
        "batch_first": layout == "batch_first",
    }
    reference = nn.LSTM(6, 5, **options)
    ours = RefinedLSTM(6, 5, refine="none", **options)
    ours.load_state_dict(reference.state_dict())
    reference.load_state_dict(ours.state_dict())
    x = torch.randn({"unbatched": (5, 6), "batch_first": (4, 5, 6)}.get(layout, (5, 4, 6)))
    directions = layers * (2 if bidirectional else 1)
    state_shape = (directions, 5) if layout == "unbatched" else (directions, 4, 5)
    state = (torch.randn(state_shape), torch.randn(state_shape))

    results = []
    for layer in (reference, ours):
        x_in = x.clone().requires_grad_()
        given = pack_padded_sequence(x_in, LENGTHS, enforce_sorted=False) if layout == "packed" else x_in
        output, (h, c) = layer(given, state)
        output = output.data if layout == "packed" else output
        (output.square().sum() + h.sum() + c.sin().sum()).backward()
        results.append([output, h, c, x_in.grad, *(p.grad for p in layer.parameters())])
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("squash", ["none", "tanh", "layernorm"])
@pytest.mark.parametrize("feature", ["identity", "linear"])
@pytest.mark.parametrize("gates", [("input", "output"), ("forget",), ("input", "forget", "output")])
@pytest.mark.parametrize("refine", ["add", "mul"])
def test_refined_layer_is_the_literal_equation(refine, gates, feature, squash):
    torch.manual_seed(1)
    layer = RefinedLSTM(4, 4, refine=refine, gates=gates, feature=feature, squash=squash, dtype=torch.float64)
    x, h, c = torch.randn(6, 4).double(), torch.randn(4).double(), torch.randn(4).double()
    output, (h_n, c_n) = layer(x, (h[None], c[None]))
    expected, h_expected, c_expected = literal_lstm(x, h, c, layer_weights(layer, "l0"), refine, gates, feature, squash)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(h_n[0], h_expected)
    torch.testing.assert_close(c_n[0], c_expected)


@pytest.mark.parametrize("refine", ["add", "mul"])
def test_two_layers_two_directions_are_literal_too(refine):
    torch.manual_seed(2)
    layer = RefinedLSTM(3, 4, 2, bidirectional=True, refine=refine, dtype=torch.float64)
    x = torch.randn(5, 3).double()
    data, zeros = x, torch.zeros(4).double()
    choices = (refine, ("input", "output"), "linear", "tanh")
    states = []
    for k in range(2):
        forward, h_f, _ = literal_lstm(data, zeros, zeros, layer_weights(layer, f"l{k}"), *choices)
        backward, h_b, _ = literal_lstm(data.flip(0), zeros, zeros, layer_weights(layer, f"l{k}_reverse"), *choices)
        data = torch.cat([forward, backward.flip(0)], dim=-1)
        states += [h_f, h_b]
    output, (h_n, _) = layer(x)
    torch.testing.assert_close(output, data)
    torch.testing.assert_close(h_n, torch.stack(states))


@pytest.mark.parametrize("enforce_sorted", [True, False])
@pytest.mark.parametrize("refine", ["add", "mul"])
def test_packed_equals_each_sequence_alone(refine, enforce_sorted):
    torch.manual_seed(3)
    layer = RefinedLSTM(3, 4, 2, bidirectional=True, refine=refine, dtype=torch.float64)
    lengths = LENGTHS.sort(descending=True).values if enforce_sorted else LENGTHS
    x = torch.randn(5, 4, 3).double()
    state = (torch.randn(4, 4, 4).double(), torch.randn(4, 4, 4).double())
    packed, (h_n, c_n) = layer(pack_padded_sequence(x, lengths, enforce_sorted=enforce_sorted), state)
    output, _ = pad_packed_sequence(packed)
    for row, length in enumerate(lengths.tolist()):
        alone, (h, c) = layer(x[:length, row], (state[0][:, row], state[1][:, row]))
        torch.testing.assert_close(output[:length, row], alone)
        torch.testing.assert_close(h_n[:, row], h)
        torch.testing.assert_close(c_n[:, row], c)


@pytest.mark.parametrize("refine", ["none", "add", "mul"])
def test_gradients(refine):
    torch.manual_seed(4)
    layer = RefinedLSTM(2, 3, 2, bidirectional=True, refine=refine, dtype=torch.float64)
    x = torch.randn(3, 2, 2).double().requires_grad_()
    parameters = tuple(p for p in layer.parameters())
    names = [name for name, _ in layer.named_parameters()]

    def run(x, *values):
        output, (h, c) = torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))
        return output, h, c

    assert torch.autograd.gradcheck(run, (x, *parameters))


@pytest.mark.parametrize("refine", ["none", "add", "mul"])
def test_cell_and_layer_agree(refine):
    torch.manual_seed(5)
    layer = RefinedLSTM(3, 4, refine=refine)
    cell = RefinedLSTMCell(3, 4, refine=refine)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in layer.state_dict().items()})
    x = torch.randn(5, 2, 3)
    state = None
    outputs = []
    for x_t in x:
        state = cell(x_t, state)
        outputs.append(state[0])
    torch.testing.assert_close(layer(x)[0], torch.stack(outputs))


def test_one_step_and_an_empty_batch():
    layer = RefinedLSTM(3, 4)
    assert layer(torch.randn(1, 2, 3))[0].shape == (1, 2, 4)
    assert layer(torch.randn(5, 0, 3))[0].shape == (5, 0, 4)


def test_dropout_between_layers_acts_in_training_only():
    torch.manual_seed(6)
    layer = RefinedLSTM(3, 4, 2, dropout=0.5)
    x = torch.randn(5, 2, 3)
    assert not torch.equal(layer(x)[0], layer(x)[0])
    layer.eval()
    assert torch.equal(layer(x)[0], layer(x)[0])


def test_copies_and_pickles():
    layer = RefinedLSTM(3, 4)
    x = torch.randn(5, 2, 3)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(x)[0], layer(x)[0])


@pytest.mark.parametrize("refine", ["add", "mul"])
def test_the_gate_has_the_range_of_the_papers_figure(refine):
    """[−1, 2] for + and [−1, 1] for × while the feature is in [−1, 1]; both ends are approached."""
    from models.gates import RefinedGate

    g = torch.sigmoid(torch.linspace(-12, 12, 101))[:, None]
    x = torch.linspace(-1, 1, 101)[None]
    refined = RefinedGate(refine).join("input", g, x)
    low, high = (-1, 2) if refine == "add" else (-1, 1)
    assert low <= refined.min() < low + 0.01
    assert high - 0.01 < refined.max() <= high


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"refine": "times"}, "'none', 'add', 'mul'"),
        ({"gates": ("reset",)}, "input, forget, output"),
        ({"gates": ("input", "input")}, "twice"),
        ({"gates": ()}, "name a gate"),
        ({"feature": "identity"}, "feature='linear'"),
        ({"squash": "relu"}, "layernorm"),
        ({"proj_size": 2}, "refined counterpart"),
    ],
)
def test_wrong_choices_say_what_to_choose(options, words):
    with pytest.raises(ValueError, match=words):
        RefinedLSTM(3, 4, **options)


def test_wrong_input_and_state_are_named():
    layer = RefinedLSTM(3, 4)
    with pytest.raises(RuntimeError, match="Expected 3, got 5"):
        layer(torch.randn(2, 2, 5))
    with pytest.raises(RuntimeError, match="h_0"):
        layer(torch.randn(2, 2, 3), (torch.zeros(1, 3, 4), torch.zeros(1, 2, 4)))
    with pytest.raises(RuntimeError, match="larger than 0"):
        layer(torch.randn(0, 2, 3))
