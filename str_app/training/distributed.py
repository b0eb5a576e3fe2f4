"""Data-parallel training in several processes started by torchrun."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """This process's rank among all processes. `size` comes from torchrun, not from the number of visible GPUs."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and log lines."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """`values` summed over all processes, without gradients."""
        if self.size > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def gather(self, value: T) -> list[T]:
        """The values of all processes; any picklable object."""
        values: list[Any] = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(values, value)
        return values

    def average_(self, tensors: Iterable[Tensor]) -> None:
        """Replace floating-point tensors by their means over all processes."""
        floating = [tensor for tensor in tensors if tensor.is_floating_point()]
        means = torch.cat([tensor.flatten() for tensor in floating])  # one all-reduce; gloo needs contiguous memory
        dist.all_reduce(means)
        means.div_(self.size)
        for tensor, mean in zip(floating, means.split([tensor.numel() for tensor in floating]), strict=True):
            tensor.copy_(mean.view(tensor.shape))


@contextmanager
def join_world(device: torch.device) -> Iterator[World]:
    """Join the process group that torchrun's environment variables describe; without them, a world of one process."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield World()
        return
    # The first process scores while the others wait, longer than the usual ten or thirty minutes.
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timedelta(hours=3))
    try:
        yield World(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", "0")))
        dist.barrier()  # the first process to exit would abort the others
    finally:
        # DDP is kept alive by reference cycles; a group it still holds at exit would call std::terminate.
        gc.collect()
        dist.destroy_process_group()


class _SumOverProcesses(torch.autograd.Function):
    """Sum over all processes, for values and gradients."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        values = values.clone()
        dist.all_reduce(values)
        return values

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (gradient,) = gradients
        gradient = gradient.clone()
        dist.all_reduce(gradient)
        return gradient


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over the batches of all processes: N processes train like one process on the whole batch.

    torch's SyncBatchNorm does the same, but only on GPUs.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape."""
        if not self.training:
            return super().forward(input)
        x = input.float()
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        # Taken off first, since the difference of two large squares would be rounded to nothing.
        centre = self.running_mean.clone()
        centred = x - centre[:, None, None]
        count = x.new_tensor([x.numel() / x.shape[1]])
        sums = torch.cat([centred.sum(dim=(0, 2, 3)), centred.square().sum(dim=(0, 2, 3)), count])
        sums = _SumOverProcesses.apply(sums)
        total = sums[-1].detach()
        offset, square = (sums[:-1] / total).chunk(2)
        mean, variance = centre + offset, (square - offset.square()).clamp_min(0)
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * total / (total - 1), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * scale
        return (x * scale[:, None, None] + shift[:, None, None]).to(input.dtype)


def share_batch_norms(module: nn.Module) -> None:
    """Replace every BatchNorm2d in `module` by a `GlobalBatchNorm2d` with the same parameters and statistics."""
    for name, child in module.named_children():
        if type(child) is nn.BatchNorm2d:
            shared = GlobalBatchNorm2d(child.num_features, child.eps, child.momentum)
            shared.load_state_dict(child.state_dict())
            setattr(module, name, shared.to(child.weight.device))
        else:
            share_batch_norms(child)
