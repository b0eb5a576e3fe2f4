"""watch_gates records the gates of every cell and layer, and restores the modules."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from str_app.models.gates.cells import RefinedGRUCell, RefinedLSTMCell
from str_app.models.gates.layers import RefinedGRU, RefinedLSTM, RefinedMGU
from str_app.models.gates.statistics import watch_gates


def bias(layer, **values):
    """Set gates' biases so high or low that weights do not matter."""
    blocks = layer.unit.blocks_of(layer.gate)
    with torch.no_grad():
        for name, value in values.items():
            layer.bias_ih_l0.chunk(len(blocks))[blocks.index(name)].fill_(value)
    return layer


def test_open_and_closed_gates_are_told_apart():
    layer = bias(RefinedLSTM(3, 4, refine="none"), input=-9, forget=9, output=0)
    x = torch.randn(5, 2, 3) / 10
    before = layer(x)[0]
    with watch_gates(layer) as records:
        torch.testing.assert_close(layer(x)[0], before)
    shares = records["l0"].summary()
    assert shares["input"]["closed"] == 1
    assert shares["forget"]["open"] == 1
    assert shares["output"]["saturated"] == 0
    assert all(share["negative"] == 0 for share in shares.values())
    assert records["l0"].gates["input"].vanilla.counts.sum() == 5 * 2 * 4
    assert torch.equal(layer(x)[0], before)
    assert layer.gate.has_kernels


@pytest.mark.parametrize(("refine", "negative", "above"), [("mul", 1.0, 0.0), ("add", 0.0, 1.0)])
def test_refining_moves_the_gate_out_of_zero_to_one(refine, negative, above):
    """Open gates times a negative feature are negative; open gates plus a positive one are above 1."""
    layer = bias(RefinedGRU(3, 4, refine=refine, gates=("reset",), feature="linear"), reset=9)
    x = torch.ones(5, 2, 3)
    with torch.no_grad():
        layer.weight_feature_l0.fill_(-1 if refine == "mul" else 1)
    with watch_gates(layer) as records:
        layer(x)
    reset = records["l0"].summary()["reset"]
    assert (reset["negative"], reset["above_one"], reset["open"]) == (negative, above, 1.0)
    assert records["l0"].summary()["update"]["negative"] == 0


def test_the_histogram_of_effective_gates_is_of_what_is_used():
    layer = bias(RefinedGRU(3, 4, refine="mul", gates=("reset",)), reset=9)
    nn.init.constant_(layer.weight_feature_l0, -1.0)
    with watch_gates(layer) as records:
        layer(torch.ones(5, 2, 3))  # vanilla gates of 1 times a feature of tanh(−3)
    reset = records["l0"].gates["reset"]
    assert (reset.vanilla.share(0.9, 1), reset.effective.share(-1, -0.9), reset.effective.share(0, 3)) == (1, 1, 0)
    edges = reset.effective.edges()
    assert (edges[0], edges[-1], len(edges)) == (-2, pytest.approx(3), len(reset.effective.counts) + 1)


def test_every_layer_direction_and_cell_has_its_record():
    model = nn.ModuleDict({"rnn": RefinedMGU(3, 4, 2, bidirectional=True), "cell": RefinedGRUCell(3, 4, refine="ur")})
    with watch_gates(model) as records:
        model["rnn"](torch.randn(5, 2, 3))
        model["cell"](torch.randn(2, 3))
    assert set(records) == {"rnn.l0", "rnn.l0_reverse", "rnn.l1", "rnn.l1_reverse", "cell"}
    assert set(records["cell"].gates) == {"reset", "update"}


@pytest.mark.parametrize("kind", [RefinedLSTM, RefinedGRU, RefinedMGU])
def test_gradient_norms_through_time(kind):
    """Those of the whole loss, as automatic differentiation of a loop of states gives them; lengths may differ."""
    torch.manual_seed(0)
    layer = kind(3, 4, dtype=torch.float64)
    x = torch.randn(6, 2, 3, dtype=torch.float64)
    with watch_gates(layer) as records:
        layer(x)[0][-1].sum().backward()
    curve = records["l0"].gradient_curve()
    assert [step for step, _ in curve] == list(range(6))
    assert curve[-1][1] == pytest.approx(2.0)  # ∂ sum / ∂h_T is a vector of four ones

    shifts = [torch.zeros(2, 4, dtype=torch.float64, requires_grad=True) for _ in range(6)]
    state = None
    for x_t, shift in zip(x, shifts, strict=True):
        _, state = layer(x_t[None], state)
        state = (state[0] + shift, state[1]) if kind is RefinedLSTM else state + shift
    last = state[0] if kind is RefinedLSTM else state
    expected = [g.norm(dim=-1).mean().item() for g in torch.autograd.grad(last.sum(), shifts)]
    assert [norm for _, norm in curve] == pytest.approx(expected, rel=1e-5)

    with watch_gates(layer) as records:
        layer(pack_padded_sequence(x, [6, 3]))[0].data.sum().backward()
    assert [step for step, _ in records["l0"].gradient_curve()] == list(range(6))


def test_steps_of_a_cell_are_counted_from_its_first_state():
    cell = RefinedLSTMCell(3, 4)
    with watch_gates(cell) as records:
        for steps in (3, 5):
            state = None
            for _ in range(steps):
                state = cell(torch.randn(2, 3), state)
            state[0].sum().backward()
    assert {step: len(norms) for step, norms in records["cell"].gradient_norms.items()} == {
        0: 2,
        1: 2,
        2: 2,
        3: 1,
        4: 1,
    }


def test_a_state_may_pass_through_operations_between_two_steps():
    cell = RefinedGRUCell(3, 4)
    with watch_gates(cell) as records:
        for _ in range(2):
            h = None
            for _ in range(4):
                h = cell(torch.randn(2, 3), h) * 0.9
            h.sum().backward()
    assert [step for step, _ in records["cell"].gradient_curve()] == [0, 1, 2, 3]
    assert all(len(norms) == 2 for norms in records["cell"].gradient_norms.values())
    learned = nn.Parameter(torch.zeros(1, 4))
    with watch_gates(cell) as records:
        for initial in (h.detach(), learned.expand(2, 4), nn.Linear(3, 4)(torch.randn(2, 3))):  # sequences of their own
            cell(torch.randn(2, 3), cell(torch.randn(2, 3), initial)).sum().backward()
    assert {step: len(norms) for step, norms in records["cell"].gradient_norms.items()} == {0: 3, 1: 3}


def test_a_wholly_open_gate_is_not_above_one():
    layer = bias(RefinedLSTM(3, 4, refine="none"), forget=99)
    with watch_gates(layer) as records:
        layer(torch.randn(5, 2, 3))
    assert records["l0"].summary()["forget"] == {
        "closed": 0.0,
        "open": 1.0,
        "saturated": 1.0,
        "negative": 0.0,
        "above_one": 0.0,
    }


def test_nothing_to_watch_is_said():
    with pytest.raises(ValueError, match="refine='none'"), watch_gates(nn.LSTM(3, 4)):
        pass


def test_gates_are_given_back_after_an_error():
    layer = RefinedLSTM(3, 4)
    gate = layer.gate
    with pytest.raises(RuntimeError, match="Expected 3"), watch_gates(layer):
        layer(torch.randn(2, 2, 5))
    assert layer.gate is gate
