"""Sums of micro-batches, which centers are to move by at once."""

from typing import NamedTuple

import torch
from torch import Tensor

from fdrl_layers._precision import widest


class Statistics(NamedTuple):
    """What centers (C, F) want to know of a batch, each a sum over its vectors.

    Attributes:
        sums: The vectors that belong to each center (C, F).
        counts: Their number (C,).
        squares: All their squares, a scalar.
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
