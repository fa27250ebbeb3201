"""One process or many: who I am, which device is mine, which samples are."""

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
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and prints."""
        return self.rank == 0

    @property
    def prompt(self) -> bool:
        """Whether all processes can be asked in each step without holding up a GPU."""
        return self.world == 1 or self.device.type == "cpu"

    def mine(self, count: int) -> slice:
        """Return which of `count` samples of a joint batch are this process's."""
        return slice(count * self.rank // self.world, count * (self.rank + 1) // self.world)

    def share_buffers(self, module: nn.Module) -> None:
        """Give every process the first one's buffers: each has batch statistics of its own."""
        if self.world > 1:
            for buffer in module.buffers():
                dist.broadcast(buffer, 0)

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Give every process the mean of all processes' gradients, in one exchange."""
        gradients = [each.grad for each in parameters if each.grad is not None]
        if self.world == 1 or not gradients:
            return
        flat = torch.cat([each.flatten() for each in gradients])
        dist.all_reduce(flat)
        flat /= self.world
        pieces = flat.split([each.numel() for each in gradients])
        for gradient, piece in zip(gradients, pieces, strict=True):
            gradient.copy_(piece.view(gradient.shape))

    def largest(self, value: int) -> int:
        """Return the largest of every process's `value`."""
        return value if self.world == 1 else max(int(each) for each in self.gathered(value))

    def gathered(self, value: Any) -> list[Any]:
        """Return every process's `value`, in the order of ranks."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values


@contextmanager
def join_ranks(device: str) -> Iterator[Ranks]:
    """Join the processes that `torchrun` started, if it did, for the length of a block."""
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
