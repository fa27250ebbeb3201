"""Update the average of weights over training without synchronizing with the device."""

from collections import defaultdict
from itertools import chain

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


@torch.no_grad()
def average_weights(averaged: AveragedModel, model: nn.Module, *, begin: bool) -> None:
    """Update the average of weights and buffers; with `begin` it becomes a copy.

    Unlike this function, :meth:`AveragedModel.update_parameters` waits for a counter in a tensor.
    """
    of_average = chain(averaged.module.parameters(), averaged.module.buffers())
    of_model = chain(model.parameters(), model.buffers())
    by_type: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = defaultdict(lambda: ([], []))
    for mean, value in zip(of_average, of_model, strict=True):
        if begin:
            mean.copy_(value)
        else:
            means, values = by_type[mean.dtype]
            means.append(mean)
            values.append(value)
    assert averaged.multi_avg_fn is not None
    for means, values in by_type.values():
        averaged.multi_avg_fn(means, values, averaged.n_averaged)
