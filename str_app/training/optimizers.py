"""The optimisers of a run: Muon for filters and matrices, AdamW for the rest, or AdamW for all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from str_app.engines.precision import has_bf16
from str_app.training.settings import TrainSettings

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # of the quintic iteration; from the same source as Muon
ITERATIONS = 5
MOMENTUM = 0.95


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalised: every direction of a matrix moves as far as every other.

    Keller Jordan et al. 2024 (kellerjordan.github.io/posts/muon). `torch.optim.Muon` takes matrices only; here a
    filter bank (out, in, kh, kw) is the matrix (out, in · kh · kw) as well.

    Args:
        params: parameters of at least 2 dimensions.
        lr: length of the update's singular values, for matrices not taller than wide.
        weight_decay: decoupled, times lr.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float, weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update; `closure` is not used."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                momentum = state["momentum"].lerp_(parameter.grad, 1 - MOMENTUM)
                ahead = parameter.grad.lerp(momentum, MOMENTUM)  # Nesterov's
                update = orthogonalized(ahead.reshape(len(ahead), -1)).reshape(parameter.shape)
                rows, columns = len(ahead), ahead[0].numel()
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update, alpha=-group["lr"] * max(1, rows / columns) ** 0.5)


def orthogonalized(matrix: Tensor) -> Tensor:
    """About U Vᵀ of the matrix U S Vᵀ, (rows, columns), by a Newton-Schulz iteration, in bfloat16 where the
    device has instructions for it.

    The iteration leaves singular values between 0.7 and 1.2 or so; training does not mind.
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
    """What `_iterated` multiplies x by, found from x xᵀ alone: half the time for filters, many times as wide as high.

    Every step's factor is a polynomial of x xᵀ, so all commute. Squared singular values need float32: what bfloat16
    leaves of the small ones may be negative, and grows.
    """
    factor = product = _polynomial(gram)
    for _ in range(ITERATIONS - 1):
        gram = factor @ (gram @ factor)
        factor = _polynomial(gram)
        product = product @ factor
    return product


def _polynomial(gram: Tensor) -> Tensor:
    a, b, c = NEWTON_SCHULZ
    found = torch.addmm(gram, gram, gram, beta=b, alpha=c)
    found.diagonal().add_(a)
    return found


class Optimizers:
    """All optimisers of a run as one.

    Args:
        module: what is trained. Biases, norms' scales and position embeddings do not decay.
        settings: `optimizer`, `learning_rate`, `matrix_learning_rate`, `weight_decay`.
    """

    def __init__(self, module: nn.Module, settings: TrainSettings) -> None:
        named = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
        matrices = [p for name, p in named if settings.optimizer == "muon" and _is_map(name, p)]
        rest = {id(p) for _, p in named} - {id(p) for p in matrices}
        decaying = [p for name, p in named if id(p) in rest and p.dim() > 1 and not name.endswith("position")]
        plain = [p for _, p in named if id(p) in rest - {id(p) for p in decaying}]
        groups = [{"params": decaying, "weight_decay": settings.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        self._members: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True)]
        if matrices:
            self._members.append(Muon(matrices, settings.matrix_learning_rate, settings.weight_decay))
        self._peaks = [group["lr"] for group in self._groups()]

    def set_rate(self, factor: float) -> None:
        """Learning rates become `factor` times their peaks."""
        for group, peak in zip(self._groups(), self._peaks, strict=True):
            group["lr"] = factor * peak

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for member in self._members:
            member.zero_grad(set_to_none=True)

    def step(self) -> None:
        """One update of every parameter."""
        for member in self._members:
            member.step()

    def tensors(self) -> list[Tensor]:
        """Moments and counts, to be changed in place, in the same order in every process."""
        states = [state for member in self._members for state in member.state.values()]
        return [value for state in states for value in state.values() if isinstance(value, Tensor)]

    def state_dict(self) -> list[dict[str, Any]]:
        """For `load_state_dict`."""
        return [member.state_dict() for member in self._members]

    def load_state_dict(self, state: list[dict[str, Any]]) -> None:
        """Go on from a state of optimisers of the same kinds.

        Raises:
            ValueError: of other kinds or parameters.
        """
        if not isinstance(state, list) or len(state) != len(self._members):
            raise ValueError("the state is of another optimizer setting")
        for member, part in zip(self._members, state, strict=True):
            member.load_state_dict(part)

    def _groups(self) -> list[dict[str, Any]]:
        return [group for member in self._members for group in member.param_groups]


def _is_map(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter maps features to features: no embedding, no classifier, no first filters."""
    table = any(part in name for part in ("embedding", "classifier", "ctc.", "position"))
    return parameter.dim() > 1 and not table and min(len(parameter), parameter[0].numel()) > 32
