"""Muon against torch's own, and that every parameter has one optimiser."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from str_app.models.presets import create_model
from str_app.training.objective import Objective
from str_app.training.optimizers import Muon, Optimizers, _iterated, orthogonalized
from str_app.training.settings import TrainSettings


@pytest.mark.parametrize("shape", [(40, 90), (90, 40), (64, 64)])
def test_matrices_move_as_with_torchs_muon(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    torch.manual_seed(0)
    ours, theirs = (nn.Parameter(torch.ones(shape)) for _ in range(2))
    muon = Muon([ours], lr=0.02, weight_decay=0.1)
    reference = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1)
    for _ in range(4):
        ours.grad = torch.randn(shape)
        theirs.grad = ours.grad.clone()
        muon.step()
        reference.step()
    torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=0)


def test_filters_move_as_the_matrices_they_are() -> None:
    torch.manual_seed(0)
    filters, matrix = nn.Parameter(torch.zeros(40, 12, 3, 3)), nn.Parameter(torch.zeros(40, 108))
    filters.grad = torch.randn(filters.shape)
    matrix.grad = filters.grad.reshape(40, 108)
    filters.data = filters.data.contiguous(memory_format=torch.channels_last)
    for parameter in (filters, matrix):
        Muon([parameter], lr=0.02, weight_decay=0.0).step()
    torch.testing.assert_close(filters.reshape(40, 108), matrix)


@pytest.mark.parametrize("shape", [(48, 430), (430, 48), (64, 64)])
def test_the_iteration_on_products_of_rows_is_the_iteration(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    directions, singular, others = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    singular *= torch.logspace(0, -5, len(singular))
    singular[-4:] = 0
    matrix = directions @ singular.diag() @ others
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True}, raising=False)
    found = orthogonalized(matrix)
    scaled = (matrix / matrix.norm()).double()
    expected = _iterated(scaled.T).T if shape[0] > shape[1] else _iterated(scaled)
    assert (found - expected).norm() < 1e-3 * expected.norm()


@pytest.mark.parametrize("processor", ["avx512_bf16", "avx2"])
def test_every_direction_moves_alike(processor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {processor: True}, raising=False)
    torch.manual_seed(0)
    singular = torch.linalg.svdvals(orthogonalized(torch.randn(60, 200) * torch.logspace(0, -1, 60)[:, None]))
    assert singular.min() > 0.5
    assert singular.max() < 1.3


@pytest.mark.parametrize(("processor", "rounded"), [("avx512_bf16", True), ("avx2", False)])
def test_bfloat16_is_not_emulated(processor: str, rounded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {processor: True}, raising=False)
    found = orthogonalized(torch.randn(20, 30, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(found, found.bfloat16().float()) is rounded


@pytest.mark.parametrize(("optimizer", "members"), [("muon", 2), ("adamw", 1)])
def test_every_parameter_is_trained_once(optimizer: str, members: int) -> None:
    objective = Objective(create_model("small"), 0.0)
    settings = TrainSettings(train=("x",), optimizer=optimizer)  # type: ignore[arg-type]
    optimizers = Optimizers(objective, settings)
    assert len(optimizers.state_dict()) == members
    before = {name: parameter.detach().clone() for name, parameter in objective.named_parameters()}
    for parameter in objective.parameters():
        parameter.grad = torch.ones_like(parameter) + 0.1 * torch.randn_like(parameter)
    optimizers.set_rate(1.0)
    optimizers.step()
    assert [name for name, parameter in objective.named_parameters() if torch.equal(parameter, before[name])] == []


def test_a_state_of_other_optimizers_is_refused() -> None:
    objective = Objective(create_model("small"), 0.0)
    muon, adamw = (
        Optimizers(objective, TrainSettings(train=("x",), optimizer=name))  # type: ignore[arg-type]
        for name in ("muon", "adamw")
    )
    with pytest.raises(ValueError, match="another optimizer"):
        muon.load_state_dict(adamw.state_dict())


def test_embeddings_classifiers_and_first_filters_are_no_matrices_for_muon() -> None:
    objective = Objective(create_model("small"), 0.0)
    optimizers = Optimizers(objective, TrainSettings(train=("x",), learning_rate=0.5, matrix_learning_rate=0.25))
    matrices = {id(p) for group in optimizers._groups() if group["lr"] == 0.25 for p in group["params"]}
    names = {name for name, parameter in objective.named_parameters() if id(parameter) in matrices}
    assert {"model.decoder.cell.weight_hh", "model.backbone.stages.0.conv2.0.weight"} <= names
    tables = ("embedding", "classifier", "ctc", "position", "stem.0.")
    assert not {name for name in names if any(table in name for table in tables)}
