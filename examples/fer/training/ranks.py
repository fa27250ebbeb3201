"""One or several processes: the rank, the device and the samples of this process."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed as dist, nn


@dataclass(frozen=True)
class Ranks:
    """This process among those of a run."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    @property
    def can_sync_each_step(self) -> bool:
        """Whether processes can communicate in each step without blocking a GPU."""
        return self.world_size == 1 or self.device.type == "cpu"

    def local_slice(self, count: int) -> slice:
        """Return the slice of `count` samples of a joint batch that belongs to this process."""
        return slice(
            count * self.rank // self.world_size, count * (self.rank + 1) // self.world_size
        )

    def share_buffers(self, module: nn.Module) -> None:
        """Broadcast the first process's buffers, because each has its own batch statistics."""
        if self.world_size > 1:
            for buffer in module.buffers():
                dist.broadcast(buffer, 0)

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Average the gradients over all processes in one all-reduce."""
        gradients = [each.grad for each in parameters if each.grad is not None]
        if self.world_size == 1 or not gradients:
            return
        flat = torch.cat([each.flatten() for each in gradients])
        dist.all_reduce(flat)
        flat /= self.world_size
        pieces = flat.split([each.numel() for each in gradients])
        for gradient, piece in zip(gradients, pieces, strict=True):
            gradient.copy_(piece.view(gradient.shape))

    def max_over_ranks(self, value: int) -> int:
        """Return the largest `value` of all processes."""
        return value if self.world_size == 1 else max(int(each) for each in self.gather(value))

    def gather(self, value: Any) -> list[Any]:
        """Return the `value` of every process, in the order of ranks."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values


@contextmanager
def join_ranks(device: str) -> Iterator[Ranks]:
    """Join the processes started by `torchrun`, if any, within a block."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if world == 1:
        yield Ranks(0, 1, torch.device(device))
        return
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield Ranks(dist.get_rank(), world, torch.device(device))
    finally:
        dist.destroy_process_group()
