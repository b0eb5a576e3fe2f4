"""Which losses are computed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from str_app.models.charset import Charset
from str_app.models.preprocessing import Preprocessing
from str_app.models.recognizer import Recognizer
from str_app.training import distributed
from str_app.training.objective import Objective
from tests.str_app.training.tiny_run import TINY


@pytest.mark.parametrize(("ctc", "attention"), [(True, True), (True, False), (False, True), (False, False)])
def test_helpers_that_are_switched_off_cost_nothing(ctc: bool, attention: bool) -> None:
    torch.manual_seed(0)
    model = Recognizer(TINY, Charset("ab"), Preprocessing(widths=(64,)))
    objective = Objective(model, 0.0, ctc=ctc, attention=attention)
    targets, lengths = torch.tensor([[1, 2, 0], [2, 0, 0]]), torch.tensor([2, 1])
    boxes = torch.tensor([[[0.0, 0, 20, 32], [20, 0, 40, 32]], [[0, 0, 30, 32], [torch.nan] * 4]])
    boxes = torch.cat([boxes, torch.full((2, 1, 4), torch.nan)], dim=1)
    canvases = torch.randint(0, 256, (2, 32, 64, 3), dtype=torch.uint8)
    sums = objective(canvases, torch.tensor([64, 40]), targets, lengths, boxes)
    assert [bool(loss > 0) for loss in sums] == [True, ctc, attention]
    sums.sum().backward()
    assert {name.partition(".")[0] for name, _ in objective.named_parameters()} == (
        {"model", "ctc"} if ctc else {"model"}
    )


def test_the_losses_are_of_each_character_and_the_end_and_of_the_columns_that_crops_cover() -> None:
    torch.manual_seed(0)
    objective = Objective(Recognizer(TINY, Charset("ab"), Preprocessing(widths=(64,))), 0.0).eval()
    canvases = torch.randint(0, 256, (2, 32, 64, 3), dtype=torch.uint8)
    widths, targets, lengths = torch.tensor([64, 41]), torch.tensor([[1, 2, 0], [2, 0, 0]]), torch.tensor([2, 1])
    characters, ctc, _ = objective(canvases, widths, targets, lengths, torch.full((2, 3, 4), torch.nan))
    model = objective.model
    logits, _, features = model(model.normalize(canvases), widths, targets)
    steps = [(0, 0, 1), (0, 1, 2), (0, 2, 0), (1, 0, 2), (1, 1, 0)]  # crop, step, class
    expected = -sum(logits[crop, step].log_softmax(-1)[token] for crop, step, token in steps)
    torch.testing.assert_close(characters, expected)
    torch.testing.assert_close(ctc, objective.ctc(features, torch.tensor([16, 11]), targets, lengths))  # type: ignore[misc]


def test_samples_above_the_loss_limit_have_no_part_in_any_loss() -> None:
    torch.manual_seed(0)
    objective = Objective(Recognizer(TINY, Charset("ab"), Preprocessing(widths=(64,))), 0.0).eval()
    canvases = torch.randint(0, 256, (2, 32, 64, 3), dtype=torch.uint8)
    widths, targets, lengths = torch.tensor([64, 41]), torch.tensor([[1, 2, 0], [2, 0, 0]]), torch.tensor([2, 1])
    boxes = torch.tensor([0.0, 0, 20, 32]).expand(2, 3, 4)
    batch = (canvases, widths, targets, lengths, boxes)
    alone = [objective(*(tensor[row : row + 1] for tensor in batch)) for row in range(2)]
    first, second = alone[0][0].item() / 3, alone[1][0].item() / 2  # nats per token, with the end token
    low, high = sorted((first, second))
    for limit, expected in (
        (0.0, alone[0] + alone[1]),
        (high + 0.01, alone[0] + alone[1]),
        ((low + high) / 2, alone[0] if first < second else alone[1]),
        (low - 0.01, torch.zeros(3)),
    ):
        objective.loss_limit = limit
        losses = objective(*batch)
        torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-5)
        losses.sum().backward()  # an empty selection too has a gradient


def test_an_empty_batch_has_a_gradient_for_every_weight() -> None:
    """Or processes that train together would wait for the one that has none."""
    objective = Objective(Recognizer(TINY, Charset("ab"), Preprocessing(widths=(64,))), 0.0)
    empty = torch.zeros(0, dtype=torch.int64)
    sums = objective(torch.zeros(0, 32, 64, 3, dtype=torch.uint8), empty, empty[:, None], empty, torch.zeros(0, 1, 4))
    assert sums.tolist() == [0, 0, 0]
    sums.sum().backward()
    assert all(parameter.grad is not None for parameter in objective.ctc.parameters())  # type: ignore[union-attr]


def test_batch_norm_over_processes_is_as_exact_as_over_one(monkeypatch):
    monkeypatch.setattr(distributed._SumOverProcesses, "apply", lambda sums: sums)  # of one process
    for mean, deviation in ((0.0, 1.0), (30.0, 1e-3), (1000.0, 0.3)):
        torch.manual_seed(0)
        x = mean + deviation * torch.randn(8, 4, 16, 16)
        usual, shared = nn.BatchNorm2d(4), distributed.GlobalBatchNorm2d(4)
        for norm in (usual, shared):
            norm.running_mean.fill_(mean)  # as after some steps
        torch.testing.assert_close(shared(x), usual(x), rtol=1e-2, atol=2e-2)
        torch.testing.assert_close(shared.running_var, usual.running_var, rtol=1e-3, atol=1e-6)
