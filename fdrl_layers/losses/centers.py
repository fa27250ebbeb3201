"""Centers: the only state that moves by itself."""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from fdrl_layers._checks import check_choice, check_number, check_size
from fdrl_layers._parts import fusable
from fdrl_layers._precision import widen, widest
from fdrl_layers._ranks import mean_gradient_over_ranks, number_of_ranks, sum_over_ranks
from fdrl_layers.losses._pending import Pending, Statistics
from fdrl_layers.ops.backend import plain
from fdrl_layers.ops.joint import Centers as Movable

CenterUpdate = Literal["alpha", "ema", "gradient"]


def alpha_rule(centers: Tensor, sums: Tensor, counts: Tensor, rate: float) -> Tensor:
    r"""Move centers as Wen et al. do (ECCV 2016, equation 4 and algorithm 1).

    .. math:: c_j \leftarrow c_j - \alpha \frac{\sum_{i: y_i = j} (c_j - x_i)}{1 + n_j}

    `sums` (C, F) and `counts` (C,) are those of the batch's vectors that belong to each of the
    `centers` (C, F); `rate` is :math:`\alpha`. A center without data stays.
    """
    n = counts.unsqueeze(-1)
    return centers - rate * (n * centers - sums) / (1 + n)


def ema_rule(centers: Tensor, sums: Tensor, counts: Tensor, rate: float) -> Tensor:
    r"""Move centers as an exponential moving average of their batch means.

    .. math:: c_j \leftarrow (1 - r)\, c_j + r\, \frac{1}{n_j} \sum_{i: y_i = j} x_i

    `sums` (C, F) and `counts` (C,) are those of the batch's vectors that belong to each of the
    `centers` (C, F); `rate` is r. A center without data stays.
    """
    return torch.where(
        (counts > 0).unsqueeze(-1), centers.lerp(_means(sums, counts), rate), centers
    )


def _means(sums: Tensor, counts: Tensor) -> Tensor:
    return sums / torch.where(counts > 0, counts, 1).unsqueeze(-1)


@fusable
class Centers(nn.Module):
    r"""C centers of width F, which start at the data and follow it.

    A center that meets its first data in training starts at their mean. From then on it moves
    after each training batch, by the rule that `update` names:

    - "alpha": Wen et al.'s rule, :func:`alpha_rule`; `value` is a buffer.
    - "ema": a moving average, :func:`ema_rule`; `value` is a buffer.
    - "gradient": `value` is a parameter, **which an optimizer must be given** and best keeps out
      of weight decay.

    Evaluation never moves a center, and neither does a batch that is not finite: where the sum of
    its squares, over all ranks, is infinite or no number, no center of the loss moves or starts, in
    the first batch either. The loss itself is then not finite, so that nothing is hidden, and a
    ``GradScaler`` that skips the step finds the centers where they were. Sums are taken in
    float64, and over all ranks where a process group is up, so that every rank has the same
    centers bit for bit.

    Args:
        num_centers: Number C of centers; at least 1.
        num_features: Width F of a center; at least 1.
        update: The rule, "alpha", "ema" or "gradient".
        rate: Wen et al.'s :math:`\alpha`, or the moving average's weight of the new batch, in
            [0, 1]. Without effect under "gradient", where the optimizer has a rate.
        across_ranks: Whether sums are taken over all ranks.
        device: Where the centers are.
        dtype: Type of the centers.

    Attributes:
        value: The centers (C, F); zeros until they meet data.
        seen: Which centers (C,) have met data.
    """

    value: Tensor
    seen: Tensor

    def __init__(
        self,
        num_centers: int,
        num_features: int,
        *,
        update: CenterUpdate = "alpha",
        rate: float = 0.5,
        across_ranks: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_size("num_centers", num_centers)
        check_size("num_features", num_features)
        check_choice("center_update", update, get_args(CenterUpdate))
        check_number("center_rate", rate, 0, 1)
        super().__init__()
        self.update = update
        self.rate = rate
        self.across_ranks = across_ranks
        # The mask of which all is known to be set, and its version then: until somebody writes to
        # it, it need not be read again.
        self._met: tuple[Tensor, int] | None = None
        self._pending: Pending | None = None
        value = torch.empty(num_centers, num_features, device=device, dtype=dtype)
        if update == "gradient":
            self.value = nn.Parameter(value)
        else:
            self.register_buffer("value", value)
        self.register_buffer("seen", torch.empty(num_centers, device=device, dtype=torch.bool))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Forget the data, so that the next training batch is the first."""
        self.value.zero_()
        self.seen.zero_()

    def complete(self) -> bool:
        """Whether every center is known to have met data, without waiting for a device."""
        seen = self.seen
        if not plain((seen,)) or seen.device.type != "cpu" or seen.is_inference():
            return False
        version = self.seen._version
        if self._met is None or self._met[0] is not self.seen or self._met[1] != version:
            self._met = (self.seen, version) if bool(self.seen.all()) else None
        return self._met is not None

    @property
    def accumulating(self) -> bool:
        """Whether batches are gathered, of which each is a part of the one to move by."""
        return self._pending is not None

    @contextmanager
    def accumulate(self) -> Iterator[None]:
        """Take all training batches inside for parts of one, and move once, at the end.

        An exception moves nothing. Raise RuntimeError where it is nested.
        """
        if self._pending is not None:
            raise RuntimeError("`accumulate` must not be nested: centers move once, at the end")
        self._pending = pending = Pending(self.value)
        try:
            yield
        finally:
            self._pending = None
        if not pending.empty:
            self._move(pending.total)

    def movable(self) -> Movable:
        """Return what an operator may move: a copy while centers wait for the rest of a batch."""
        # The short way to what nn.Module would look up.
        own = self.__dict__
        value = own["_buffers"].get("value")
        movable = Movable(self.value if value is None else value, own["_buffers"]["seen"])
        return movable if own["_pending"] is None else Movable(*(each.clone() for each in movable))

    def gather(self, statistics: Statistics) -> None:
        """Add a part of a batch, inside of :meth:`accumulate`."""
        if self._pending is not None:
            self._pending.add(statistics)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out of copies what is not a whole batch yet."""
        return {**self.__dict__, "_pending": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take modules that were pickled before there were parts of batches."""
        super().__setstate__({"_pending": None, **state})  # type: ignore[no-untyped-call]

    def forward(self, batch: Statistics) -> tuple[Tensor, Tensor | None]:
        """Return a copy of the centers to hold this batch against, and which have met data.

        The latter is None if all have, and in training, where the batch's own data counts. The
        statistics of the batch are in the precision of :func:`fdrl_layers._precision.widest`. In
        training the centers move on after this batch, or after the batch that it is a part of.
        """
        if not self.training:
            return widen(self.value.clone()), None if self.complete() else self.seen.clone()
        self.gather(batch)
        current = self._move(batch)
        if self.update == "gradient":
            value = widen(self.value.clone())
            if self.accumulating:
                # What starts does so at the end.
                value = torch.where(self.seen.unsqueeze(-1), value, current)
            current = mean_gradient_over_ranks(value) if self.across_ranks else value
        return current, None

    @torch.no_grad()
    def _move(self, batch: Statistics) -> Tensor:
        """Move on after a batch; return the centers that it is held against.

        What does not move for want of a finite batch is held against that batch all the same, and
        so is what waits for the other parts of its batch.
        """
        sums, counts, squares = self._over_ranks(batch)
        before, there = widest(self.value), None
        if self.complete():
            current = before
        else:
            there = counts > 0
            current = torch.where((there & ~self.seen).unsqueeze(-1), _means(sums, counts), before)
        # A copy, as the next batch may move the centers before this one's backward reads them.
        held = widen(current.to(self.value.dtype, copy=True))
        if self.accumulating:
            return held
        moved = current
        if self.update != "gradient":
            rule = alpha_rule if self.update == "alpha" else ema_rule
            moved = rule(current, sums, counts, self.rate)
        after = moved.to(self.value.dtype)
        # One sum for all questions, whose difference from itself is 0 unless it is not finite.
        total = squares + after.sum(dtype=moved.dtype)
        if total.device.type == "cpu" and plain((total,)):
            if not math.isfinite(total.item()):
                return held
            self.value.copy_(after)
        else:
            finite = total - total == 0
            self.value.copy_(torch.where(finite, after, self.value))
            there = there if there is None else there & finite
        if there is not None:
            self.seen.logical_or_(there)
        return held

    def _over_ranks(self, batch: Statistics) -> Statistics:
        if not self.across_ranks or number_of_ranks() == 1:
            return batch
        joined = sum_over_ranks(torch.cat([each.flatten() for each in batch]))
        pieces = joined.split([each.numel() for each in batch])
        return Statistics(*(piece.view_as(each) for piece, each in zip(pieces, batch, strict=True)))

    def extra_repr(self) -> str:
        """Say the sizes and the rule."""
        c, f = self.value.shape
        return f"{c}, {f}, update={self.update!r}, rate={self.rate}"


class LossWithCenters(nn.Module):
    """A loss that holds a batch against centers of its own."""

    def __init__(
        self,
        num_centers: int,
        num_features: int,
        center_update: CenterUpdate,
        center_rate: float,
        across_ranks: bool,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        self.across_ranks = across_ranks
        self.centers = Centers(
            num_centers,
            num_features,
            update=center_update,
            rate=center_rate,
            across_ranks=across_ranks,
            device=device,
            dtype=dtype,
        )

    def reset_parameters(self) -> None:
        """Forget the data, so that the next training batch is the first."""
        self.centers.reset_parameters()

    def accumulate(self) -> AbstractContextManager[None]:
        """Take all training batches inside for parts of one: the centers move once, at the end.

        See :meth:`FDRLLoss.accumulate`.
        """
        return self.centers.accumulate()

    def extra_repr(self) -> str:
        """Say whether ranks are joined."""
        return f"across_ranks={self.across_ranks}"
