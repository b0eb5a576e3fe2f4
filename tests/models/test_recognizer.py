"""The network: shapes, masking, teacher forcing against steps, presets."""

import dataclasses

import pytest
import torch

from str_app.models.backbones.resnet import fold_batch_norms
from str_app.models.charset import Charset
from str_app.models.ctc import CTCHead
from str_app.models.decoders.attention import AdditiveAttention, Memory
from str_app.models.preprocessing import Preprocessing
from str_app.models.presets import UnknownModelError, architecture, create_model, list_models, weights_path
from str_app.models.recognizer import Architecture, Recognizer
from str_app.models.transfer import can_grow, transfer_weights

TINY = Architecture(
    stem=(4, 4), stages=(8, 8, 12), blocks=(1, 1, 1), hidden_size=16, attention_size=8, embedding_size=6
)


def tiny(**changes):
    torch.manual_seed(0)
    return Recognizer(dataclasses.replace(TINY, **changes), Charset("abcd"), Preprocessing()).eval()


@pytest.mark.parametrize("name", list_models())
def test_every_preset_reads_a_batch(name):
    model = create_model(name).eval()
    width = model.preprocessing.width
    memory, state = model.encode(torch.zeros(2, 3, 32, width), torch.tensor([width, 20]))
    logits, state, attention = model.step(memory, state, torch.zeros(2, dtype=torch.int64))
    assert logits.shape == (2, 95)
    assert attention.shape == (2, model.grid[0] * model.grid[1])
    assert weights_path(name).name == f"{name}.safetensors"


@pytest.mark.parametrize(("name", "limit"), [("small", 25e6 / 4), ("base", 30e6)])  # 25 MB of float32 ship
def test_presets_keep_their_size(name, limit):
    assert sum(parameter.numel() for parameter in create_model(name).parameters()) <= limit


def test_unknown_preset_lists_the_known_ones():
    with pytest.raises(UnknownModelError, match="base, small"):
        architecture("large")


@pytest.mark.parametrize(
    "changes", [{}, {"attention": "1d"}, {"context_size": 5}, {"refine": "none"}, {"refine": "add"}]
)
def test_teacher_forcing_equals_stepping(changes):
    model = tiny(**changes)
    images, widths = torch.randn(3, 3, 32, 128), torch.tensor([128, 40, 5])
    targets = torch.tensor([[1, 2, 0], [3, 0, 0], [4, 4, 4]])
    logits, attention, _ = model(images, widths, targets)
    memory, state = model.encode(images, widths)
    tokens = torch.zeros(3, dtype=torch.int64)
    for t in range(3):
        step_logits, state, weights = model.step(memory, state, tokens)
        torch.testing.assert_close(step_logits, logits[:, t])
        torch.testing.assert_close(weights, attention[:, t])
        tokens = targets[:, t]


def test_attention_is_the_literal_equation():
    """softmax of vᵀ tanh(keys + W h), which is computed by another name."""
    torch.manual_seed(0)
    attention = AdditiveAttention(channels=5, hidden_size=6, attention_size=7, grid=(2, 4)).double()
    values, hidden = torch.randn(3, 8, 5).double(), 3 * torch.randn(3, 6).double()
    padding = torch.arange(8) >= torch.tensor([8, 5, 1])[:, None]
    keys = attention.project_keys(values)
    glimpse, weights = attention(Memory(values, keys, padding), hidden)
    (score,), query = attention.score.weight, attention.query.weight
    for row in range(3):
        scores = torch.stack([score @ torch.tanh(key + query @ hidden[row]) for key in keys[row]])
        scores[padding[row]] = -torch.inf
        torch.testing.assert_close(weights[row], scores.softmax(0))
        torch.testing.assert_close(glimpse[row], scores.softmax(0) @ values[row])


def test_padding_gets_no_attention():
    model = tiny()
    width = model.preprocessing.width
    images, covered = torch.randn(2, 3, 32, width), torch.tensor([width, 10])
    _, attention, _ = model(images, covered, torch.zeros(2, 1, dtype=torch.int64))
    grid = attention[:, 0].reshape(2, *model.grid)
    assert (grid[0] > 0).all()
    assert (grid[1, :, 3:] == 0).all()  # 10 pixels touch three columns of 4
    assert (grid[1, :, :3] > 0).all()
    torch.testing.assert_close(grid.sum(dim=(1, 2)), torch.ones(2))


def test_a_narrower_canvas_changes_little():
    """The columns far from the canvas's end do not notice where it ends; positions keep their embedding."""
    model = tiny()
    images = torch.randn(1, 3, 32, 128)
    wide, narrow = (model.encode(images[..., :width], torch.tensor([20]))[0] for width in (128, 64))
    columns = slice(0, 5)  # of 32 and of 16
    for one, other in ((wide.keys, narrow.keys), (wide.values, narrow.values)):
        kept, same = one.reshape(2, 32, -1)[:, columns], other.reshape(2, 16, -1)[:, columns]
        torch.testing.assert_close(kept, same, rtol=1e-4, atol=1e-5)


def test_keys_are_projected_once_for_a_crop(monkeypatch):
    calls = []
    project = AdditiveAttention.project_keys
    monkeypatch.setattr(AdditiveAttention, "project_keys", lambda self, v: calls.append(1) or project(self, v))
    tiny()(torch.randn(1, 3, 32, 128), torch.tensor([128]), torch.ones(1, 9, dtype=torch.int64))
    assert len(calls) == 1


def test_memory_is_one_row_a_crop():
    model = tiny()
    memory, _ = model.encode(torch.randn(2, 3, 32, 128), torch.tensor([128, 64]))
    assert isinstance(memory, Memory)
    assert memory.values.shape == (2, 64, 12)
    assert memory.keys.shape == (2, 64, 8)


def test_canvas_must_fit_the_stride():
    with pytest.raises(ValueError, match="multiples of the backbone's stride 16×4"):
        Recognizer(TINY, Charset(), Preprocessing(height=30))


def test_folding_batch_norms_changes_nothing_but_speed():
    model = tiny()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    folded = fold_batch_norms(model)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())
    images = torch.randn(2, 3, 32, 128)
    torch.testing.assert_close(folded.features(images), model.features(images), rtol=1e-4, atol=1e-4)


def test_ctc_ignores_labels_that_do_not_fit():
    torch.manual_seed(0)
    head = CTCHead(6, 5)
    features = torch.randn(2, 6, 1, 8)
    targets = torch.tensor([[1, 2, 3, 0], [1, 2, 3, 0]])
    fitting = head(features, torch.tensor([8, 8]), targets, torch.tensor([3, 3]))
    one_cut = head(features, torch.tensor([8, 2]), targets, torch.tensor([3, 3]))
    assert torch.isfinite(one_cut)
    assert 0 < one_cut < fitting


def test_transfer_copies_rows_of_shared_characters():
    source = tiny()
    target = Recognizer(TINY, Charset("xdba"), Preprocessing())
    fresh = transfer_weights(source, target)
    assert sorted(fresh) == ["decoder.classifier.bias", "decoder.classifier.weight", "decoder.embedding.weight"]
    theirs, ours = source.decoder.classifier.weight, target.decoder.classifier.weight
    for char in "abd":
        assert torch.equal(ours[target.charset.encode(char)[0]], theirs[source.charset.encode(char)[0]])
    assert torch.equal(ours[0], theirs[0])  # the end token
    assert torch.equal(target.backbone.stem[0][0].weight, source.backbone.stem[0][0].weight)
    assert transfer_weights(source, tiny()) == []


def test_transfer_to_a_wider_canvas():
    source = tiny()
    target = Recognizer(TINY, source.charset, Preprocessing(widths=(64, 256)))
    assert transfer_weights(source, target) == []
    theirs, ours = source.decoder.attention.position, target.decoder.attention.position
    columns = theirs.shape[1]
    assert ours.shape[1] == 2 * columns
    assert torch.equal(ours[:, :columns], theirs)
    assert torch.equal(ours[:, columns:], theirs[:, -1:].expand(-1, columns, -1))


@pytest.mark.parametrize(
    ("blocks", "pyramid", "locate"),
    [((2, 1, 2), False, False), ((1, 1, 1), True, False), ((1, 2, 3), True, True), ((2, 1, 1), False, True)],
)
def test_a_grown_network_begins_as_the_one_it_comes_from(blocks, pyramid, locate):
    source = tiny().eval()
    target = Recognizer(
        dataclasses.replace(TINY, blocks=blocks, pyramid=pyramid, locate=locate), source.charset, Preprocessing()
    ).eval()
    assert can_grow(source.architecture, target.architecture)
    fresh = transfer_weights(source, target)
    assert fresh
    assert all(name.startswith("backbone.") for name in fresh)
    images, widths = torch.randn(2, 3, 32, 128), torch.tensor([128, 60])
    targets = torch.randint(1, 4, (2, 5))
    with torch.no_grad():
        before, after = source(images, widths, targets), target(images, widths, targets)
    torch.testing.assert_close(after[0], before[0], rtol=1e-5, atol=1e-5)
    rows = target.grid[0] // source.grid[0]
    assert rows == (TINY.strides[-1][0] if pyramid else 1)
    # The coarse rows come `rows` times, and share their weight.
    shared = after[1].unflatten(2, (source.grid[0], rows, -1)).sum(3).flatten(2)
    torch.testing.assert_close(shared, before[1], rtol=1e-5, atol=1e-5)
    # What is new learns from the first step on.
    target(images, widths, targets)[0].square().sum().backward()
    learns = [n for n, p in target.named_parameters() if n in fresh and p.grad is not None and p.grad.abs().sum() > 0]
    assert learns


def test_what_no_growing_leads_to():
    assert can_grow(TINY, TINY)
    assert can_grow(TINY, dataclasses.replace(TINY, dropout=0.5))
    for changed in ({"blocks": (1, 1, 0)}, {"blocks": (1, 1)}, {"hidden_size": 5}, {"stages": (8, 8, 8)}):
        assert not can_grow(TINY, dataclasses.replace(TINY, **changed)), changed
    assert not can_grow(dataclasses.replace(TINY, pyramid=True), TINY)
    assert not can_grow(dataclasses.replace(TINY, locate=True), TINY)


def test_a_located_glimpse_tells_where_it_was_taken():
    model = Recognizer(dataclasses.replace(TINY, locate=True), Charset("abc"), Preprocessing()).eval()
    channels, size = model.backbone.out_channels, model.decoder.attention.position.shape[-1]
    features = torch.zeros(1, channels, model.grid[0], 8)
    memory = model.remember(features, torch.tensor([32]))
    assert memory.values.shape == (1, model.grid[0] * 8, channels + size)
    glimpse, weights = model.decoder.attention(memory, torch.randn(1, TINY.hidden_size))
    places = model.decoder.attention.position[:, :8].flatten(0, 1)
    torch.testing.assert_close(glimpse[:, channels:], weights @ places)
    assert not glimpse[:, :channels].any()


def test_transfer_to_fewer_blocks_copies_the_first_of_each_stage():
    deep = Recognizer(dataclasses.replace(TINY, blocks=(2, 1, 1)), Charset("abc"), Preprocessing())
    flat = Recognizer(TINY, Charset("abc"), Preprocessing())
    assert transfer_weights(deep, flat) == []
    for ours, theirs in ((0, 0), (1, 2), (2, 3)):
        assert torch.equal(flat.backbone.stages[ours].conv1[0].weight, deep.backbone.stages[theirs].conv1[0].weight)
