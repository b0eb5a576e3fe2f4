"""Layers and cells as modules: copies, compilers, exporters, unusual shapes, errors."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from str_app.models.gates.cells import RefinedGRUCell, RefinedLSTMCell, RefinedMGUCell
from str_app.models.gates.initialization import init_chrono_, init_uniform_
from str_app.models.gates.layers import RefinedGRU, RefinedLSTM, RefinedMGU
from str_app.models.gates.statistics import watch_gates

LAYERS = (RefinedLSTM, RefinedGRU, RefinedMGU)
CELLS = (RefinedLSTMCell, RefinedGRUCell, RefinedMGUCell)


@pytest.mark.parametrize("refine", ["none", "mul", "ur"])
@pytest.mark.parametrize("kind", LAYERS)
def test_copies_pickles_and_saves(kind, refine):
    layer = kind(3, 4, 2, bidirectional=True, refine=refine)
    x = torch.randn(5, 2, 3)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    fresh = kind(3, 4, 2, bidirectional=True, refine=refine)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), fresh):
        assert torch.equal(twin(x)[0], layer(x)[0])
    layer.flatten_parameters()
    twin = copy.deepcopy(layer).double()
    torch.testing.assert_close(twin(x.double())[0].float(), layer(x)[0])


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("kind", LAYERS)
def test_one_step_and_an_empty_batch(kind, fused):
    layer = kind(3, 4, bidirectional=True, fused=fused)
    assert layer(torch.randn(1, 2, 3))[0].shape == (1, 2, 8)
    x = torch.randn(5, 0, 3, requires_grad=True)
    output, _ = layer(x)
    assert output.shape == (5, 0, 8)
    output.sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in layer.parameters())


def test_dropout_between_layers_acts_in_training_only():
    torch.manual_seed(6)
    layer = RefinedLSTM(3, 4, 2, dropout=0.5)
    x = torch.randn(5, 2, 3)
    assert not torch.equal(layer(x)[0], layer(x)[0])
    layer.eval()
    assert torch.equal(layer(x)[0], layer(x)[0])


def test_dropout_acts_between_layers_and_not_after_the_last():
    torch.manual_seed(6)
    layer = RefinedLSTM(3, 4, 2, dropout=0.5)
    assert layer(torch.randn(5, 2, 3))[0].all(), "nothing is set to 0"
    layer = RefinedLSTM(3, 4, 2, dropout=1.0)
    assert torch.equal(layer(torch.randn(5, 2, 3))[0], layer(torch.randn(5, 2, 3))[0]), "nothing reaches the second"


def test_backward_twice_through_one_graph():
    layer = RefinedGRU(3, 4)
    x = torch.randn(5, 2, 3, requires_grad=True)
    loss = layer(x)[0].square().sum()
    first = torch.autograd.grad(loss, x, retain_graph=True)
    assert torch.equal(first[0], torch.autograd.grad(loss, x)[0])


@pytest.mark.parametrize(
    ("kind", "refine"), [(RefinedLSTM, "none"), (RefinedLSTM, "mul"), (RefinedGRU, "add"), (RefinedMGU, "mul")]
)
def test_compiles_into_one_graph(kind, refine):
    torch.manual_seed(0)
    layer = kind(3, 4, bidirectional=True, refine=refine)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    x = torch.randn(4, 2, 3)
    results = []
    for run in (layer, compiled):
        layer.zero_grad()
        output = run(x)[0]
        output.square().sum().backward()
        results.append([output, *(p.grad for p in layer.parameters())])
    torch.testing.assert_close(*results)


@pytest.mark.parametrize(("kind", "refine"), [(RefinedLSTM, "mul"), (RefinedGRU, "ur"), (RefinedMGU, "none")])
def test_exports_with_a_dynamic_batch(kind, refine):
    layer = kind(3, 4, batch_first=True, refine=refine).eval()
    exported = torch.export.export(
        layer, (torch.randn(2, 5, 3),), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},)
    )
    x = torch.randn(7, 5, 3)
    torch.testing.assert_close(exported.module()(x), layer(x))


@pytest.mark.parametrize("kind", [nn.LSTM, RefinedLSTM])
def test_a_dynamic_length_is_not_exported_as_with_torchs(kind):
    with pytest.raises(torch._dynamo.exc.UserError, match=r"Constraints violated \(length\)"):
        torch.export.export(
            kind(3, 4, batch_first=True).eval(),
            (torch.randn(2, 5, 3),),
            dynamic_shapes=({1: torch.export.Dim("length", min=2, max=64)},),
        )


@pytest.mark.parametrize("refine", ["none", "mul", "ur"])
@pytest.mark.parametrize("kind", CELLS)
def test_a_cell_takes_one_example_or_a_batch(kind, refine):
    cell = kind(3, 4, refine=refine)
    x = torch.randn(2, 3)
    batch = cell(x)
    alone = cell(x[1])
    if isinstance(batch, tuple):
        batch, alone = batch[0], alone[0]
    torch.testing.assert_close(alone, batch[1])
    assert isinstance(copy.deepcopy(cell), kind)


def test_parameters_are_torchs_plus_the_features():
    names = {name for name, _ in nn.GRU(3, 4, 2, bidirectional=True).named_parameters()}
    ours = {name for name, _ in RefinedGRU(3, 4, 2, bidirectional=True).named_parameters()}
    assert ours - names == {f"weight_feature_l{k}{end}" for k in (0, 1) for end in ("", "_reverse")}
    assert RefinedLSTM(3, 4, refine="ur").weight_ih_l0.shape == (16, 3)
    assert RefinedGRU(3, 4, refine="ur").weight_hh_l0.shape == (16, 4)
    assert RefinedMGU(3, 4).weight_hh_l0.shape == (8, 4)


@pytest.mark.parametrize("kind", [*LAYERS, *CELLS])
def test_uniform_gates_start_uniform(kind):
    torch.manual_seed(1)
    module = kind(3, 2000, refine="ur")
    biases = {name.split("_l0")[0]: value for name, value in module.named_parameters() if name.startswith("bias")}
    blocks = module.unit.blocks_of(module.gate)
    total = dict(zip(blocks, (biases["bias_ih"] + biases["bias_hh"]).chunk(len(blocks)), strict=True))
    gate = torch.sigmoid(total["update" if "update" in total else "forget"])
    assert (torch.histc(gate, 4, 0, 1) / len(gate) - 0.25).abs().max() < 0.05
    torch.testing.assert_close(torch.sigmoid(total["refine"]), 1 - gate)


@pytest.mark.parametrize("kind", [*LAYERS, *CELLS])
def test_chrono_gates_remember_for_the_time_asked_for(kind):
    """1 / (1 − share kept), the mean life of a memory, is 1 + u with u ~ U(1, longest − 1)."""
    torch.manual_seed(2)
    module = init_chrono_(kind(3, 2000), longest=100)
    biases = {name.split("_l0")[0]: value for name, value in module.named_parameters() if name.startswith("bias")}
    blocks = module.unit.blocks_of(module.gate)
    total = dict(zip(blocks, (biases["bias_ih"] + biases["bias_hh"]).chunk(len(blocks)), strict=True))
    kept = torch.sigmoid(total["update"] if "update" in total else total["forget"])
    kept = 1 - kept if "cell" not in total and "forget" in total else kept
    life = 1 / (1 - kept)
    assert 2 <= life.min() < 4
    assert 97 < life.max() <= 100.01
    assert abs(life.mean() - 51) < 2
    if "input" in total:
        torch.testing.assert_close(total["input"], -total["forget"])


def test_initialisations_name_what_is_missing():
    with pytest.raises(ValueError, match="bias=False"):
        init_uniform_(RefinedLSTM(3, 4, bias=False))
    with pytest.raises(ValueError, match="at least 3"):
        init_chrono_(RefinedGRU(3, 4), longest=2)
    with pytest.raises(ValueError, match="init_uniform_"):
        init_chrono_(RefinedMGUCell(3, 4, refine="ur"), longest=50)


def test_the_default_mgu_keeps_its_state_bounded():
    """With a feature that can be negative, 1 − f' exceeds 1, and h grows with every step."""
    x = torch.ones(200, 1, 3)
    largest = []
    for options in ({}, {"activation": "tanh"}):
        torch.manual_seed(0)
        layer = RefinedMGU(3, 4, **options)
        nn.init.constant_(layer.weight_feature_l0, -1.0)
        largest.append(layer(x)[0].abs().max().item())
    assert largest[0] <= 1
    assert largest[1] > 1000


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        (RefinedLSTM, {"refine": "times"}, "'none', 'add', 'mul', 'ur'"),
        (RefinedLSTM, {"gates": ("reset",)}, "input, forget, output"),
        (RefinedGRU, {"gates": ("forget",)}, "reset, update"),
        (RefinedMGUCell, {"gates": ("update",)}, "choose from forget"),
        (RefinedLSTM, {"gates": "input"}, r"give a tuple of names, such as \('input',\)"),
        (RefinedLSTM, {"gates": ("input", "input")}, "twice"),
        (RefinedGRUCell, {"gates": ()}, "name a gate"),
        (RefinedMGU, {"feature": "identity"}, "feature='linear'"),
        (RefinedLSTMCell, {"activation": "relu"}, "layernorm"),
        (RefinedLSTM, {"proj_size": 2}, "refined counterpart"),
        (RefinedLSTM, {"refine": False}, "refine"),
        (RefinedGRUCell, {"activation": ""}, "activation"),
    ],
)
def test_wrong_choices_say_what_to_choose(kind, options, words):
    with pytest.raises(ValueError, match=words):
        kind(3, 4, **options)


@pytest.mark.parametrize("kind", LAYERS)
def test_wrong_input_and_state_are_named(kind):
    layer = kind(3, 4)
    with pytest.raises(RuntimeError, match="Expected 3, got 5"):
        layer(torch.randn(2, 2, 5))
    with pytest.raises(ValueError, match="2 or 3 dimensions"):
        layer(torch.randn(2, 2, 3, 3))
    wrong = torch.zeros(1, 3, 4)
    with pytest.raises(RuntimeError, match="h_0"):
        layer(torch.randn(2, 2, 3), (wrong, wrong) if kind is RefinedLSTM else wrong)
    with pytest.raises(RuntimeError, match="larger than 0"):
        layer(torch.randn(0, 2, 3))


@pytest.mark.parametrize("refine", ["none", "add", "ur"])
@pytest.mark.parametrize("kind", CELLS)
def test_a_cell_broadcasts_nothing(kind, refine):
    cell = kind(3, 4, refine=refine)

    def call(input_shape, *state_shape):
        state = torch.zeros(state_shape)
        return cell(torch.randn(input_shape), (state, state) if kind is RefinedLSTMCell else state)

    with pytest.raises((ValueError, RuntimeError), match=r"3D|\(5, 2, 3\)"):
        cell(torch.randn(5, 2, 3))
    for input_shape, state_shape in [((2, 3), (1, 4)), ((2, 3), (4,)), ((3,), (2, 4)), ((2, 3), (2, 1))]:
        with pytest.raises((ValueError, RuntimeError)):
            call(input_shape, *state_shape)
    call((2, 3), 2, 4)
    call((3,), 4)


def test_a_vanilla_layer_with_projection_compiles_and_is_not_watched():
    layer = RefinedLSTM(3, 4, proj_size=2, refine="none")
    x = torch.randn(5, 2, 3)
    torch.testing.assert_close(torch.compile(layer, backend="eager")(x)[0], layer(x)[0])
    with pytest.raises(ValueError, match="RefinedLSTM: layers with proj_size"), watch_gates(layer):
        pass


@pytest.mark.parametrize("kind", [*LAYERS, *CELLS])
def test_the_older_name_of_activation_is_taken_with_a_warning(kind):
    with pytest.warns(DeprecationWarning, match="use activation") as caught:
        module = kind(3, 4, squash="layernorm")
    assert module.gate.activation == "layernorm"
    assert caught[0].filename == __file__


def test_defaults_are_those_of_the_table_in_the_docs():
    gates = {layer.__name__: layer(3, 4).gate for layer in (RefinedLSTM, RefinedGRU, RefinedMGU)}
    assert {name: (gate.refine, gate.gates, gate.feature, gate.activation) for name, gate in gates.items()} == {
        "RefinedLSTM": ("add", ("input", "output"), "linear", "tanh"),
        "RefinedGRU": ("add", ("reset",), "linear", "tanh"),
        "RefinedMGU": ("mul", ("forget",), "linear", "sigmoid"),
    }
