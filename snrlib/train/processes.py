"""Data-parallel training under ``torchrun``: every process embeds its share of a batch, the loss sees all of it.

Metric losses compare images with each other: a loss over each process's own share would never see most pairs, and its
value would depend on the number of processes. So the embeddings are gathered, with their gradients, and every process
computes the loss of the whole batch. On the way back the gradients of all W processes are summed, each of which
computed the same; `DistributedDataParallel` then takes their mean over the processes. What remains is the gradient of
the whole batch, as from one process.

Batch norm sees a process's own share, unless CUDA lets it see all (`torch.nn.SyncBatchNorm`, used there).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

__all__ = ["barrier", "distribute", "from_first", "gather", "process_group", "rank", "share_state", "world_size"]

T = TypeVar("T")


def world_size() -> int:
    """How many processes train together; 1 without `process_group`."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Which of them this one is, from 0; the first writes files and shows progress."""
    return dist.get_rank() if dist.is_initialized() else 0


@contextmanager
def process_group() -> Iterator[torch.device]:
    """Join the processes that ``torchrun`` started, and give this one its device; alone, just a device.

    NCCL where every process has a CUDA device, gloo otherwise.
    """
    local = int(os.environ.get("LOCAL_RANK", 0))
    device = torch.device("cuda", local) if torch.cuda.device_count() > local else torch.device("cpu")
    if "WORLD_SIZE" not in os.environ:
        yield device
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()


def distribute(model: nn.Module) -> nn.Module:
    """The model, whose gradients are averaged over the processes; itself if there is only one."""
    if world_size() == 1:
        return model
    # A frozen batch norm computes in evaluation mode and stays as it is.
    moving = any(isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training for module in model.modules())
    if moving and next(model.parameters()).is_cuda:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return DistributedDataParallel(model)


def share_state(module: nn.Module) -> None:
    """Give all processes the parameters and buffers that the first has, as `distribute` does for a model."""
    if world_size() > 1:
        for tensor in module.state_dict().values():
            dist.broadcast(tensor, src=0)


def gather(embeddings: Tensor) -> Tensor:
    """The embeddings of all processes, in their order: (n, M) -> (world_size n, M), with gradients."""
    if world_size() == 1:
        return embeddings
    return _Gather.apply(embeddings)


class _Gather(torch.autograd.Function):
    """torch's own differentiable gathering is deprecated, and its successor not public."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        parts = [torch.empty_like(own, memory_format=torch.contiguous_format) for _ in range(world_size())]
        dist.all_gather(parts, own.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient)
        return gradient.chunk(world_size())[rank()]


def from_first(compute: Callable[[], T]) -> T:
    """What the first process computes, in all: one decision, however the others would round."""
    if world_size() == 1:
        return compute()
    box = [compute() if rank() == 0 else None]
    dist.broadcast_object_list(box)
    return box[0]  # type: ignore[return-value]


def barrier() -> None:
    """Wait until all processes are here."""
    if world_size() > 1:
        dist.barrier()
