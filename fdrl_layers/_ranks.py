"""Sums and means over a batch, or over the batches of all ranks if there is a process group."""

import torch
from torch import Tensor, distributed as dist
from torch.autograd.function import FunctionCtx


def number_of_ranks() -> int:
    """Return the number of ranks, 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


class _SumOverRanks(torch.autograd.Function):
    """All-reduce whose backward is an all-reduce, as each rank's value enters every rank's loss."""

    @staticmethod
    def forward(ctx: FunctionCtx, tensor: Tensor) -> Tensor:
        total = tensor.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> Tensor:
        return sum_over_ranks(gradient)


class _MeanGradientOverRanks(torch.autograd.Function):
    """Identity whose gradient is averaged over ranks, as DDP averages the gradients of a model."""

    @staticmethod
    def forward(ctx: FunctionCtx, tensor: Tensor) -> Tensor:
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> Tensor:
        return sum_over_ranks(gradient) / number_of_ranks()


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """Return the differentiable sum of `tensor` over ranks, or `tensor` itself on a single rank."""
    return _SumOverRanks.apply(tensor) if number_of_ranks() > 1 else tensor


def mean_gradient_over_ranks(tensor: Tensor) -> Tensor:
    """Return `tensor`; its gradient on every rank is the mean of the ranks' gradients."""
    return _MeanGradientOverRanks.apply(tensor) if number_of_ranks() > 1 else tensor


def batch_mean(
    values: Tensor,
    counted: Tensor | None = None,
    weights: Tensor | None = None,
    *,
    across_ranks: bool,
) -> Tensor:
    """Return the mean of `values` (N, ...) over the samples.

    With the mask `counted` (N,), `values` are (N,) and only its samples enter. With `weights` (N,),
    0 for samples that do not count, `values` are already weighted, and the sum of the weights
    replaces the number. The rest is as in :func:`mean_of_sum`.
    """
    total = (values if counted is None else torch.where(counted, values, 0)).sum(0)
    if weights is not None:
        return mean_of_sum(total, weights.sum(), across_ranks=across_ranks, weighted=True)
    count = values.shape[0] if counted is None else counted.sum().to(values.dtype)
    return mean_of_sum(total, count, across_ranks=across_ranks)


def mean_of_sum(
    total: Tensor, count: Tensor | int, *, across_ranks: bool, weighted: bool = False
) -> Tensor:
    """Return the mean of `count` samples, or samples of that total weight, with the sum `total`.

    The mean is 0 if no sample counts or has a weight. With `across_ranks` it is that of the joined
    batch of all ranks, and gradients averaged over ranks, as by DDP, are those of the joined batch.
    """
    if across_ranks and number_of_ranks() > 1:
        number = count if isinstance(count, Tensor) else total.new_full((), count)
        packed = sum_over_ranks(torch.cat([total.flatten(), number.reshape(1)]))
        total, count = packed[:-1].view_as(total), packed[-1]
    if not isinstance(count, Tensor):
        return total / max(count, 1)
    return total / (torch.where(count > 0, count, torch.inf) if weighted else count.clamp_min(1))
