"""Sums over micro-batches, for a single update of the centers."""

from typing import NamedTuple

import torch
from torch import Tensor

from fdrl_layers._precision import widest


class Statistics(NamedTuple):
    """The sums over the vectors of a batch that centers (C, F) need.

    Attributes:
        sums: Sum of the vectors that belong to each center (C, F).
        counts: Number of the vectors that belong to each center (C,).
        squares: Sum of all squares, a scalar.
    """

    sums: Tensor
    counts: Tensor
    squares: Tensor


class Pending:
    """The sums of the micro-batches so far."""

    def __init__(self, centers: Tensor) -> None:
        sums = widest(torch.zeros_like(centers))
        self.total = Statistics(sums, sums.new_zeros(len(sums)), sums.new_zeros(()))
        self.empty = True

    @torch.no_grad()
    def add(self, statistics: Statistics) -> None:
        """Add a micro-batch."""
        for total, each in zip(self.total, statistics, strict=True):
            total.add_(each)
        self.empty = False
