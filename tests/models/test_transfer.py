"""Weights from another model: other charsets, wider canvases, grown networks."""

from dataclasses import replace

import pytest
import torch

from str_app.models.backbones.resnet import ResNetConfig
from str_app.models.charset import Charset
from str_app.models.preprocessing import Preprocessing
from str_app.models.recognizer import Recognizer
from str_app.models.transfer import can_grow, transfer_weights
from tests.tiny_recognizer import changed, tiny_config, tiny_recognizer

TINY = tiny_config()


def test_transfer_copies_rows_of_shared_characters():
    source = tiny_recognizer()
    target = Recognizer(TINY, Charset("xdba"), Preprocessing())
    fresh = transfer_weights(source, target)
    assert sorted(fresh) == ["decoder.classifier.bias", "decoder.classifier.weight", "decoder.embedding.weight"]
    before, after = source.decoder.classifier.weight, target.decoder.classifier.weight
    for char in "abd":
        assert torch.equal(after[target.charset.encode(char)[0]], before[source.charset.encode(char)[0]])
    assert torch.equal(after[0], before[0])  # the end token
    assert torch.equal(target.backbone.stem[0][0].weight, source.backbone.stem[0][0].weight)
    assert transfer_weights(source, tiny_recognizer()) == []


def test_transfer_to_a_wider_canvas():
    source = tiny_recognizer()
    target = Recognizer(TINY, source.charset, Preprocessing(widths=(64, 256)))
    assert transfer_weights(source, target) == []
    before, after = source.decoder.attention.position, target.decoder.attention.position
    columns = before.shape[1]
    assert after.shape[1] == 2 * columns
    assert torch.equal(after[:, :columns], before)
    assert torch.equal(after[:, columns:], before[:, -1:].expand(-1, columns, -1))


@pytest.mark.parametrize(("height", "rows"), [(16, [0, 2]), (48, [0, 0, 1, 2, 2, 3]), (64, [0, 0, 1, 1, 2, 2, 3, 3])])
def test_transfer_to_another_height(height, rows):
    source = Recognizer(changed(TINY, fpn=True), Charset("ab"), Preprocessing(widths=(64,)))
    target = Recognizer(changed(TINY, fpn=True), Charset("ab"), Preprocessing(height=height, widths=(64,)))
    assert transfer_weights(source, target) == []
    assert torch.equal(target.decoder.attention.position, source.decoder.attention.position[rows])


@pytest.mark.parametrize(
    ("blocks", "fpn", "positional_glimpse"),
    [((2, 1, 2), False, False), ((1, 1, 1), True, False), ((1, 2, 3), True, True), ((2, 1, 1), False, True)],
)
def test_a_grown_network_begins_as_the_one_it_comes_from(blocks, fpn, positional_glimpse):
    source = tiny_recognizer()
    target = Recognizer(
        changed(TINY, blocks=blocks, fpn=fpn, positional_glimpse=positional_glimpse), source.charset, Preprocessing()
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
    assert rows == (TINY.backbone.strides[-1][0] if fpn else 1)
    # The coarse rows come `rows` times, and share their weight.
    shared = after[1].unflatten(2, (source.grid[0], rows, -1)).sum(3).flatten(2)
    torch.testing.assert_close(shared, before[1], rtol=1e-5, atol=1e-5)
    # What is new learns from the first step on.
    target(images, widths, targets)[0].square().sum().backward()
    learns = [n for n, p in target.named_parameters() if n in fresh and p.grad is not None and p.grad.abs().sum() > 0]
    assert learns


def test_what_no_growing_leads_to():
    assert can_grow(TINY, TINY)
    assert can_grow(TINY, changed(TINY, dropout=0.5))
    for changes in ({"blocks": (1, 1, 0)}, {"blocks": (1, 1)}, {"hidden_size": 5}, {"stages": (8, 8, 8)}):
        assert not can_grow(TINY, changed(TINY, **changes)), changes
    assert not can_grow(changed(TINY, fpn=True), TINY)
    assert not can_grow(changed(TINY, positional_glimpse=True), TINY)


def test_transfer_to_fewer_blocks_copies_the_first_of_each_stage():
    deep = Recognizer(changed(TINY, blocks=(2, 1, 1)), Charset("abc"), Preprocessing())
    flat = Recognizer(TINY, Charset("abc"), Preprocessing())
    assert transfer_weights(deep, flat) == []
    for after, before in ((0, 0), (1, 2), (2, 3)):
        assert torch.equal(flat.backbone.stages[after].conv1[0].weight, deep.backbone.stages[before].conv1[0].weight)


def test_a_feature_pyramid_that_widens_the_map_is_no_growth():
    narrow = ResNetConfig(stages=(8, 8), blocks=(1, 1), strides=((2, 1), (2, 2)), stem=(4, 4))
    low = replace(narrow, strides=((2, 2), (2, 1)))
    for backbone, grows in ((narrow, False), (low, True)):
        source = replace(TINY, backbone=backbone)
        assert can_grow(source, replace(source, backbone=replace(backbone, fpn=True))) == grows
