"""The optimisers of a run: Muon for filters and matrices with AdamW for the rest, or AdamW for everything."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from str_app.engines.precision import has_bf16

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # coefficients of the quintic iteration, from the source of Muon
ITERATIONS = 5
MOMENTUM = 0.95


class Muon(torch.optim.Optimizer):
    """SGD with momentum and orthogonalised updates (Keller Jordan et al. 2024, kellerjordan.github.io/posts/muon).

    Unlike `torch.optim.Muon`, which accepts only matrices, it treats filters (out, in, kh, kw) as matrices
    (out, in · kh · kw).

    Args:
        params: parameters with at least 2 dimensions.
        lr: singular values of the update, for matrices that are not taller than wide.
        weight_decay: decoupled; multiplied by lr.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float, weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update all parameters; `closure` is not supported and ignored."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                momentum = state["momentum"].lerp_(parameter.grad, 1 - MOMENTUM)
                direction = parameter.grad.lerp(momentum, MOMENTUM)  # Nesterov momentum
                update = orthogonalized(direction.reshape(len(direction), -1)).reshape(parameter.shape)
                rows, columns = len(direction), direction[0].numel()
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update, alpha=-group["lr"] * max(1, rows / columns) ** 0.5)


def orthogonalized(matrix: Tensor) -> Tensor:
    """Approximately U Vᵀ for the matrix U S Vᵀ (rows, columns), by a Newton-Schulz iteration.

    It runs in bfloat16 if the device has instructions for it. The result's singular values lie between about 0.7 and
    1.2, which is close enough for training.
    """
    x = matrix.bfloat16() if has_bf16(matrix.device) else matrix
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.T
    x = x / (x.norm() + 1e-7)
    x = _iterated(x) if x.dtype == torch.bfloat16 else _factor(x @ x.T) @ x
    return (x.T if tall else x).to(matrix.dtype)


def _iterated(x: Tensor) -> Tensor:
    a, b, c = NEWTON_SCHULZ
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def _factor(gram: Tensor) -> Tensor:
    """The matrix by which `_iterated` multiplies x, computed from x xᵀ only; twice as fast for wide matrices (filters).

    The factor of each step is a polynomial of x xᵀ, so all factors commute. Squared singular values need float32: in
    bfloat16, small ones may round to negative values, which grow.
    """
    factor = product = _polynomial(gram)
    for _ in range(ITERATIONS - 1):
        gram = factor @ (gram @ factor)
        factor = _polynomial(gram)
        product = product @ factor
    return product


def _polynomial(gram: Tensor) -> Tensor:
    a, b, c = NEWTON_SCHULZ
    result = torch.addmm(gram, gram, gram, beta=b, alpha=c)
    result.diagonal().add_(a)
    return result


class OptimizerSettings(Protocol):
    """What `Optimizers` needs of the settings of a run."""

    @property
    def optimizer(self) -> str:
        """`muon` or `adamw`."""

    @property
    def learning_rate(self) -> float:
        """AdamW's peak."""

    @property
    def matrix_learning_rate(self) -> float:
        """Muon's peak."""

    @property
    def weight_decay(self) -> float:
        """On matrices and filters."""


class Optimizers:
    """All optimisers of a run behind one interface.

    Args:
        module: the module to train. Biases, normalisation scales and position embeddings have no weight decay.
        settings: `optimizer`, `learning_rate`, `matrix_learning_rate` and `weight_decay` are used.
    """

    def __init__(self, module: nn.Module, settings: OptimizerSettings) -> None:
        named = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
        matrices = [p for name, p in named if settings.optimizer == "muon" and _maps_features(name, p)]
        rest = {id(p) for _, p in named} - {id(p) for p in matrices}
        decaying = [p for name, p in named if id(p) in rest and p.dim() > 1 and not name.endswith("position")]
        others = [p for _, p in named if id(p) in rest - {id(p) for p in decaying}]
        groups = [{"params": decaying, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self._members: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True)]
        if matrices:
            self._members.append(Muon(matrices, settings.matrix_learning_rate, settings.weight_decay))
        self._peaks = [group["lr"] for group in self._groups()]

    def set_rate(self, factor: float) -> None:
        """Set all learning rates to `factor` times their peaks."""
        for group, peak in zip(self._groups(), self._peaks, strict=True):
            group["lr"] = factor * peak

    def zero_grad(self) -> None:
        """Reset the gradients."""
        for member in self._members:
            member.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Update all parameters."""
        for member in self._members:
            member.step()

    def tensors(self) -> list[Tensor]:
        """The tensors of the optimisers' state, in the same order in every process, for in-place changes."""
        states = [state for member in self._members for state in member.state.values()]
        return [value for state in states for value in state.values() if isinstance(value, Tensor)]

    def state_dict(self) -> list[dict[str, Any]]:
        """The states of all optimisers, for `load_state_dict`."""
        return [member.state_dict() for member in self._members]

    def load_state_dict(self, state: list[dict[str, Any]]) -> None:
        """Restore a state of the same optimisers.

        Raises:
            ValueError: a state of other optimisers or parameters.
        """
        if not isinstance(state, list) or len(state) != len(self._members):
            raise ValueError("the state belongs to another optimizer setting")
        decays = [group["weight_decay"] for group in self._groups()]
        for member, part in zip(self._members, state, strict=True):
            member.load_state_dict(part)
        for group, decay in zip(self._groups(), decays, strict=True):
            group["weight_decay"] = decay  # a setting, which may have changed, and no state

    def _groups(self) -> list[dict[str, Any]]:
        return [group for member in self._members for group in member.param_groups]


def _maps_features(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter maps features to features, unlike embeddings, classifiers and the first filters."""
    table = any(part in name for part in ("embedding", "classifier", "ctc.", "position"))
    return parameter.dim() > 1 and not table and min(len(parameter), parameter[0].numel()) > 32
