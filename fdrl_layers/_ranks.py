"""Sums and means over the batch, over that of all ranks where a process group is up."""

import torch
from torch import Tensor, distributed as dist
from torch.autograd.function import FunctionCtx


def number_of_ranks() -> int:
    """Return how many processes work together, 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


class _SumOverRanks(torch.autograd.Function):
    """All-reduce whose backward is one too, as each rank's value reaches every rank's loss."""

    @staticmethod
    def forward(ctx: FunctionCtx, tensor: Tensor) -> Tensor:
        total = tensor.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> Tensor:
        return sum_over_ranks(gradient)


class _MeanGradientOverRanks(torch.autograd.Function):
    """The identity, with its gradient averaged over ranks, as DDP does for a model."""

    @staticmethod
    def forward(ctx: FunctionCtx, tensor: Tensor) -> Tensor:
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> Tensor:
        return sum_over_ranks(gradient) / number_of_ranks()


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """Return the sum of every rank's `tensor`, with its gradient; `tensor` on a single rank."""
    return _SumOverRanks.apply(tensor) if number_of_ranks() > 1 else tensor


def mean_gradient_over_ranks(tensor: Tensor) -> Tensor:
    """Return `tensor`, and give every rank the mean of the ranks' gradients for it."""
    return _MeanGradientOverRanks.apply(tensor) if number_of_ranks() > 1 else tensor


def batch_mean(
    values: Tensor,
    counted: Tensor | None = None,
    weights: Tensor | None = None,
    *,
    across_ranks: bool,
) -> Tensor:
    """Return the mean of `values` (N, ...) over the samples.

    With `counted` (N,), a mask, `values` are (N,) and only those samples enter. With `weights`
    (N,), 0 where a sample does not count, `values` are weighted already, and their sum stands for
    the number. The rest is as in :func:`mean_of_sum`.
    """
    total = (values if counted is None else torch.where(counted, values, 0)).sum(0)
    if weights is not None:
        return mean_of_sum(total, weights.sum(), across_ranks=across_ranks, weighted=True)
    count = values.shape[0] if counted is None else counted.sum().to(values.dtype)
    return mean_of_sum(total, count, across_ranks=across_ranks)


def mean_of_sum(
    total: Tensor, count: Tensor | int, *, across_ranks: bool, weighted: bool = False
) -> Tensor:
    """Return the mean of `count` samples, or of that weight, whose sum is `total`.

    The mean over no sample, or none with a weight, is 0. With `across_ranks` it is that of all
    ranks' batches joined, and gradients averaged over ranks, as DDP does, are those of the joined
    batch.
    """
    if across_ranks and number_of_ranks() > 1:
        number = count if isinstance(count, Tensor) else total.new_full((), count)
        packed = sum_over_ranks(torch.cat([total.flatten(), number.reshape(1)]))
        total, count = packed[:-1].view_as(total), packed[-1]
    if not isinstance(count, Tensor):
        return total / max(count, 1)
    return total / (torch.where(count > 0, count, torch.inf) if weighted else count.clamp_min(1))
