"""The network: shapes, masking, teacher forcing against steps."""

from dataclasses import replace

import pytest
import torch

from str_app.models.backbones.conv_norm import fold_batch_norms
from str_app.models.backbones.resnet import ResNetConfig
from str_app.models.charset import Charset
from str_app.models.decoders.attention import AdditiveAttention
from str_app.models.decoders.base import Memory
from str_app.models.decoders.ctc_head import CTCHead
from str_app.models.preprocessing import Preprocessing
from str_app.models.recognizer import Recognizer
from tests.tiny_recognizer import tiny_recognizer


@pytest.mark.parametrize(
    "changes", [{}, {"attention": "1d"}, {"context_size": 5}, {"refine": "none"}, {"refine": "add"}]
)
def test_teacher_forcing_equals_stepping(changes):
    model = tiny_recognizer(**changes)
    images, widths = torch.randn(3, 3, 32, 128), torch.tensor([128, 40, 5])
    targets = torch.tensor([[1, 2, 0], [3, 0, 0], [4, 4, 4]])
    logits, attention, _ = model(images, widths, targets)
    memory, state = model.encode(images, widths)
    tokens = torch.zeros(3, dtype=torch.int64)
    for t in range(3):
        step_logits, state, weights = model.step(memory, state, tokens)
        taken = (targets != 0).sum(dim=1) >= t  # no step is needed after the end token's
        torch.testing.assert_close(step_logits[taken], logits[taken, t])
        torch.testing.assert_close(weights[taken], attention[taken, t])
        tokens = targets[:, t]


def test_dropout_acts_in_training_only():
    model = tiny_recognizer(dropout=0.5)
    given = torch.randn(2, 3, 32, 64), torch.tensor([64, 40]), torch.tensor([[1, 2, 0], [3, 0, 0]])
    assert torch.equal(model(*given)[0], model(*given)[0])
    model.decoder.train()
    assert not torch.equal(model(*given)[0], model(*given)[0])


def test_attention_is_the_literal_equation():
    """softmax of vᵀ tanh(keys + W h), which is computed with a sigmoid."""
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
    model = tiny_recognizer()
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
    model = tiny_recognizer()
    images = torch.randn(1, 3, 32, 128)
    wide, narrow = (model.encode(images[..., :width], torch.tensor([20]))[0] for width in (128, 64))
    columns = slice(0, 5)  # of 32 and of 16
    for of_wide, of_narrow in ((wide.keys, narrow.keys), (wide.values, narrow.values)):
        expected, actual = of_wide.reshape(2, 32, -1)[:, columns], of_narrow.reshape(2, 16, -1)[:, columns]
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_keys_are_projected_once_for_a_crop(monkeypatch):
    calls = []
    project = AdditiveAttention.project_keys
    monkeypatch.setattr(AdditiveAttention, "project_keys", lambda self, v: calls.append(1) or project(self, v))
    tiny_recognizer()(torch.randn(1, 3, 32, 128), torch.tensor([128]), torch.ones(1, 9, dtype=torch.int64))
    assert len(calls) == 1


def test_memory_is_one_row_a_crop():
    model = tiny_recognizer()
    memory, _ = model.encode(torch.randn(2, 3, 32, 128), torch.tensor([128, 64]))
    assert isinstance(memory, Memory)
    assert memory.values.shape == (2, 64, 12)
    assert memory.keys.shape == (2, 64, 8)


def test_canvas_must_fit_the_stride():
    with pytest.raises(ValueError, match="multiples of the backbone's stride 16×4"):
        tiny_recognizer(preprocessing=Preprocessing(height=30))


def test_folding_batch_norms_changes_nothing_but_speed():
    model = tiny_recognizer()
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


def test_the_ctc_loss_of_a_batch_is_the_sum_of_its_crops():
    torch.manual_seed(0)
    head = CTCHead(6, 5)
    features = torch.randn(2, 6, 1, 8)
    columns, targets = torch.tensor([8, 7]), torch.tensor([[1, 2, 3, 0], [4, 2, 0, 0]])
    lengths = torch.tensor([3, 2])
    alone = [head(*(part[k : k + 1] for part in (features, columns, targets, lengths))) for k in range(2)]
    torch.testing.assert_close(head(features, columns, targets, lengths), alone[0] + alone[1])


def test_a_positional_glimpse_holds_the_mean_position():
    model = tiny_recognizer(positional_glimpse=True)
    channels, size = model.backbone.out_channels, model.decoder.attention.position.shape[-1]
    features = torch.zeros(1, channels, model.grid[0], 8)
    memory = model.build_memory(features, torch.tensor([32]))
    assert memory.values.shape == (1, model.grid[0] * 8, channels + size)
    glimpse, weights = model.decoder.attention(memory, torch.randn(1, 16))
    positions = model.decoder.attention.position[:, :8].flatten(0, 1)
    torch.testing.assert_close(glimpse[:, channels:], weights @ positions)
    assert not glimpse[:, :channels].any()


@pytest.mark.parametrize(("covered", "columns"), [(8, 2), (9, 3), (12, 3)])
def test_attention_covers_the_columns_that_the_crop_touches(covered, columns):
    model = tiny_recognizer()
    _, attention, _ = model(torch.randn(1, 3, 32, 64), torch.tensor([covered]), torch.zeros(1, 1, dtype=torch.int64))
    assert (attention[0, 0].reshape(model.grid[0], -1) > 0).sum(dim=1).tolist() == [columns] * model.grid[0]


def test_pixels_are_normalized_as_the_preprocessing_says():
    model = tiny_recognizer(preprocessing=Preprocessing(mean=0.25, std=0.125))
    canvases = torch.tensor([0, 255], dtype=torch.uint8)[:, None, None, None].expand(2, 32, 48, 3)
    images = model.normalize(canvases)
    assert images.shape == (2, 3, 32, 48)
    assert [image.unique().tolist() for image in images] == [[-2.0], [6.0]]


def test_the_context_is_added_to_the_feature_map():
    plain, model = tiny_recognizer(), tiny_recognizer(context_size=5)
    model.backbone.load_state_dict(plain.backbone.state_dict())
    images = torch.randn(2, 3, 32, 64)
    added = model.features(images) - plain.features(images)
    torch.testing.assert_close(added, added[:, :, :1].expand_as(added))  # of the columns: the same in every row
    assert added.abs().min() > 0
    torch.nn.init.zeros_(model.context_output.weight)
    torch.nn.init.zeros_(model.context_output.bias)
    torch.testing.assert_close(model.features(images), plain.features(images))


def test_canvases_fit_every_map_also_where_a_pyramid_makes_the_last_finer():
    backbone = ResNetConfig(stages=(8, 8), blocks=(1, 1), strides=((2, 2), (2, 1)), stem=(4, 4), fpn=True)
    assert (backbone.build().stride, backbone.build().coarsest_stride) == ((4, 4), (8, 4))
    architecture = replace(tiny_recognizer().architecture, backbone=backbone)
    with pytest.raises(ValueError, match=r"height 20 .* multiples of the backbone's stride 8×4"):
        Recognizer(architecture, Charset(), Preprocessing(height=20, widths=(64,)))
