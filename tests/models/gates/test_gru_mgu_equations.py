"""GRU and MGU with refined gates, and uniform-refine gates, against their equations, written out."""

import pytest
import torch

from str_app.models.gates.cells import RefinedGRUCell, RefinedLSTMCell, RefinedMGUCell

H = 4


def parts(cell, name, blocks):
    """The blocks of a stacked parameter; zeros for absent biases."""
    parameter = getattr(cell, name)
    return torch.zeros(blocks, H).double() if parameter is None else parameter.unflatten(0, (blocks, H))


def refined(gate, name, g, x):
    if name not in gate.gates or gate.refine == "none":
        return g
    return g + x if gate.refine == "add" else g * x


@pytest.fixture
def given():
    torch.manual_seed(0)
    return torch.randn(3).double(), torch.randn(H).double()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("gates", [("reset",), ("update",), ("reset", "update")])
@pytest.mark.parametrize("refine", ["none", "add", "mul"])
def test_gru(given, refine, gates, bias):
    x, h = given
    cell = RefinedGRUCell(3, H, bias, refine=refine, gates=gates, dtype=torch.float64)
    w, u, b, d = (parts(cell, name, 3) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    joined = torch.tanh(cell.weight_feature @ x) if cell.weight_feature is not None else None
    r = refined(cell.gate, "reset", torch.sigmoid(w[0] @ x + b[0] + u[0] @ h + d[0]), joined)
    z = refined(cell.gate, "update", torch.sigmoid(w[1] @ x + b[1] + u[1] @ h + d[1]), joined)
    n = torch.tanh(w[2] @ x + b[2] + r * (u[2] @ h + d[2]))
    torch.testing.assert_close(cell(x, h), (1 - z) * n + z * h)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("refine", ["none", "add", "mul"])
@pytest.mark.parametrize("activation", [torch.tanh, torch.sigmoid])
def test_mgu(given, activation, refine, bias):
    """Zhou et al. 2016: f = σ(W_f [h, x] + b_f), h̃ = tanh(W_h [f ⊙ h, x] + b_h), h = (1 − f) ⊙ h + f ⊙ h̃."""
    x, h = given
    cell = RefinedMGUCell(3, H, bias, refine=refine, activation=activation.__name__, dtype=torch.float64)
    w, u, b, d = (parts(cell, name, 2) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    w_f, w_h = torch.cat([u[0], w[0]], dim=1), torch.cat([u[1], w[1]], dim=1)
    f = torch.sigmoid(w_f @ torch.cat([h, x]) + b[0] + d[0])
    f = refined(cell.gate, "forget", f, activation(cell.weight_feature @ x) if refine != "none" else None)
    candidate = torch.tanh(w_h @ torch.cat([f * h, x]) + b[1] + d[1])
    torch.testing.assert_close(cell(x, h), (1 - f) * h + f * candidate)


def uniform_refine(f, r):
    """Gu et al. 2020, equation of the effective gate as they print it."""
    return r * (1 - (1 - f) ** 2) + (1 - r) * f**2


def preactivations(cell, x, h, blocks):
    w, u, b, d = (parts(cell, name, blocks) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    return [w[k] @ x + b[k] + u[k] @ h + d[k] for k in range(blocks)]


def test_uniform_refine_lstm(given):
    x, h = given
    c = h.sin()
    cell = RefinedLSTMCell(3, H, refine="ur", dtype=torch.float64)
    r, f, g, o = preactivations(cell, x, h, 4)
    kept = uniform_refine(f.sigmoid(), r.sigmoid())
    expected = kept * c + (1 - kept) * g.tanh()
    torch.testing.assert_close(cell(x, (h, c)), (o.sigmoid() * expected.tanh(), expected))


def test_uniform_refine_gru_and_mgu(given):
    x, h = given
    cell = RefinedGRUCell(3, H, refine="ur", dtype=torch.float64)
    r, z, _, s = preactivations(cell, x, h, 4)
    w, u, b, d = (parts(cell, name, 4)[2] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    n = torch.tanh(w @ x + b + r.sigmoid() * (u @ h + d))
    z = uniform_refine(z.sigmoid(), s.sigmoid())
    torch.testing.assert_close(cell(x, h), (1 - z) * n + z * h)

    cell = RefinedMGUCell(3, H, refine="ur", dtype=torch.float64)
    f, _, s = preactivations(cell, x, h, 3)
    w, u, b, d = (parts(cell, name, 3)[1] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    f = uniform_refine(f.sigmoid(), s.sigmoid())
    n = torch.tanh(w @ x + b + u @ (f * h) + d)
    torch.testing.assert_close(cell(x, h), (1 - f) * h + f * n)
