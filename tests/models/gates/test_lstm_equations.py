"""RefinedLSTM against the paper's equation, written out."""

import pytest
import torch

from str_app.models.gates.gate import RefinedGate
from str_app.models.gates.layers import RefinedLSTM


def literal_lstm(x, h, c, weights, refine, gates, feature, activation):
    """One layer and direction over one sequence, step by step, as the equation is written."""
    w_ih, w_hh, b_ih, b_hh, w_x = weights
    H = h.shape[0]
    outputs = []
    for x_t in x:
        joined = x_t if feature == "identity" else w_x @ x_t
        if activation == "tanh":
            joined = torch.tanh(joined)
        elif activation == "sigmoid":
            joined = torch.sigmoid(joined)
        elif activation == "layernorm":
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


@pytest.mark.parametrize("activation", ["none", "tanh", "sigmoid", "layernorm"])
@pytest.mark.parametrize("feature", ["identity", "linear"])
@pytest.mark.parametrize("gates", [("input", "output"), ("forget",), ("input", "forget", "output")])
@pytest.mark.parametrize("refine", ["add", "mul"])
def test_refined_layer_is_the_literal_equation(refine, gates, feature, activation):
    torch.manual_seed(1)
    layer = RefinedLSTM(4, 4, refine=refine, gates=gates, feature=feature, activation=activation, dtype=torch.float64)
    x, h, c = torch.randn(6, 4).double(), torch.randn(4).double(), torch.randn(4).double()
    output, (h_n, c_n) = layer(x, (h[None], c[None]))
    expected, h_expected, c_expected = literal_lstm(
        x, h, c, layer_weights(layer, "l0"), refine, gates, feature, activation
    )
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


@pytest.mark.parametrize("refine", ["add", "mul"])
def test_the_gate_has_the_range_of_the_papers_figure(refine):
    """[−1, 2] for + and [−1, 1] for × while the feature is in [−1, 1]; both ends are approached."""
    g = torch.sigmoid(torch.linspace(-12, 12, 101))[:, None]
    x = torch.linspace(-1, 1, 101)[None]
    refined = RefinedGate(refine).join("input", g, x)
    low, high = (-1, 2) if refine == "add" else (-1, 1)
    assert low <= refined.min() < low + 0.01
    assert high - 0.01 < refined.max() <= high
