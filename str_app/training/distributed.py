"""Several processes started by torchrun."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class World:
    """This process among all. `size` is what torchrun says, never the number of visible GPUs."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """`values` summed over all processes, without gradient."""
        if self.size > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def average_(self, tensors: Iterable[Tensor]) -> None:
        """Replace the values of floating-point tensors by their means over all processes."""
        floating = [tensor for tensor in tensors if tensor.is_floating_point()]
        means = torch.cat([tensor.flatten() for tensor in floating])  # one exchange; gloo wants it contiguous
        dist.all_reduce(means)
        means.div_(self.size)
        for tensor, mean in zip(floating, means.split([one.numel() for one in floating]), strict=True):
            tensor.copy_(mean.view(tensor.shape))


@contextmanager
def join_world(device: torch.device) -> Iterator[World]:
    """The process group of torchrun's environment variables, or a world of one without them."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield World()
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield World(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", "0")))
        dist.barrier()  # a process that leaves while another still works takes the others down
    finally:
        # DDP sits in reference cycles; a group it still holds at exit would end in std::terminate.
        gc.collect()
        dist.destroy_process_group()


class _SumOverProcesses(torch.autograd.Function):
    """The sum of every process's values; its gradient is the sum of every process's gradients."""

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
    """Batch norm over the batches of all processes, so that N processes train as one does on the whole batch.

    torch's SyncBatchNorm does the same but on GPUs alone.
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
        count = x.new_tensor([x.numel() / x.shape[1]])
        sums = torch.cat([x.sum(dim=(0, 2, 3)), x.square().sum(dim=(0, 2, 3)), count])
        sums = _SumOverProcesses.apply(sums)
        total = sums[-1].detach()
        mean, square = (sums[:-1] / total).chunk(2)
        variance = square - mean.square()
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * total / (total - 1), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * scale
        return (x * scale[:, None, None] + shift[:, None, None]).to(input.dtype)


def share_batch_norms(module: nn.Module) -> None:
    """Replace every BatchNorm2d within `module` by one over all processes, parameters and statistics kept."""
    for name, child in module.named_children():
        if type(child) is nn.BatchNorm2d:
            shared = GlobalBatchNorm2d(child.num_features, child.eps, child.momentum)
            shared.load_state_dict(child.state_dict())
            setattr(module, name, shared.to(child.weight.device))
        else:
            share_batch_norms(child)
