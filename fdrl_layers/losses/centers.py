"""Centers of classes or latents: the only state that forward passes update."""

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
from fdrl_layers.losses._targets import readable
from fdrl_layers.ops.backend import plain
from fdrl_layers.ops.joint import Centers as Movable

CenterUpdate = Literal["alpha", "ema", "gradient"]


def alpha_rule(centers: Tensor, sums: Tensor, counts: Tensor, rate: float) -> Tensor:
    r"""Update centers by the rule of Wen et al. (ECCV 2016, equation 4 and algorithm 1).

    .. math:: c_j \leftarrow c_j - \alpha \frac{\sum_{i: y_i = j} (c_j - x_i)}{1 + n_j}

    `sums` (C, F) and `counts` (C,) are those of the batch's vectors that belong to each of the
    `centers` (C, F); `rate` is :math:`\alpha`. A center without data does not change.
    """
    n = counts.unsqueeze(-1)
    return centers - rate * (n * centers - sums) / (1 + n)


def ema_rule(centers: Tensor, sums: Tensor, counts: Tensor, rate: float) -> Tensor:
    r"""Update centers as an exponential moving average of their batch means.

    .. math:: c_j \leftarrow (1 - r)\, c_j + r\, \frac{1}{n_j} \sum_{i: y_i = j} x_i

    `sums` (C, F) and `counts` (C,) are those of the batch's vectors that belong to each of the
    `centers` (C, F); `rate` is r. A center without data does not change.
    """
    return torch.where(
        (counts > 0).unsqueeze(-1), centers.lerp(_means(sums, counts), rate), centers
    )


def _means(sums: Tensor, counts: Tensor) -> Tensor:
    return sums / torch.where(counts > 0, counts, 1).unsqueeze(-1)


@torch.library.custom_op("fdrl_layers::keep_for_backward", mutates_args=())
def keep_for_backward(centers: Tensor) -> Tensor:
    """Return a copy that a compiled backward pass reads.

    The compiler may compute again in backward what an operator of PyTorch returned, and would do so
    from the centers after the step.
    """
    return centers.clone()


@keep_for_backward.register_fake
def _(centers: Tensor) -> Tensor:
    return torch.empty_like(centers)


@fusable
class Centers(nn.Module):
    r"""C centers of width F that are initialized and updated from the data.

    A center is initialized to the mean of its first data in training. After that, each training
    batch updates it by the rule that `update` names:

    - "alpha": Wen et al.'s rule, :func:`alpha_rule`; `value` is a buffer.
    - "ema": a moving average, :func:`ema_rule`; `value` is a buffer.
    - "gradient": `value` is a parameter, **which must be passed to an optimizer**, preferably
      without weight decay.

    Evaluation never updates a center, and neither does a batch that is not finite: if the sum of
    its squares over all ranks is infinite or NaN, no center of the loss is updated or initialized,
    not even in the first batch. The loss itself is then not finite, so that the problem is visible,
    and if a ``GradScaler`` skips the step, the centers have not changed. Sums are in float64, and
    over all ranks if there is a process group, so that every rank has the same centers bit for bit.

    Args:
        num_centers: Number C of centers; at least 1.
        num_features: Width F of a center; at least 1.
        update: The rule, "alpha", "ema" or "gradient".
        rate: Wen et al.'s :math:`\alpha`, or the moving average's weight of the new batch, in
            [0, 1]. Without effect under "gradient", where the optimizer has its own.
        across_ranks: Whether sums are taken over all ranks.
        device: Device of the centers.
        dtype: Type of the centers.

    Attributes:
        value: The centers (C, F); zeros until they receive data.
        seen: Which centers (C,) have received data.
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
        """Reset the centers, so that the next training batch is the first."""
        self.value.zero_()
        self.seen.zero_()

    def complete(self) -> bool:
        """Return whether all centers are known to have data, without waiting for a device."""
        # Without operators, and again in each step, as the mask may change without a trace.
        seen = self.__dict__["_buffers"]["seen"]
        return seen.device.type == "cpu" and plain((seen,)) and all(seen.tolist())

    @property
    def accumulating(self) -> bool:
        """Whether batches are accumulated as parts of one batch that updates the centers."""
        return self._pending is not None

    @contextmanager
    def accumulate(self) -> Iterator[None]:
        """Treat all training batches inside as parts of one, and update once, at the end.

        After an exception nothing is updated. Raise RuntimeError if it is nested.
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
        """Return the tensors that an operator may update: copies while a batch is accumulated."""
        # Direct access, faster than nn.Module's attribute look-up.
        own = self.__dict__
        value = own["_buffers"].get("value")
        movable = Movable(self.value if value is None else value, own["_buffers"]["seen"])
        return movable if own["_pending"] is None else Movable(*(each.clone() for each in movable))

    def gather(self, statistics: Statistics) -> None:
        """Add a part of a batch if inside :meth:`accumulate`."""
        if self._pending is not None:
            self._pending.add(statistics)

    def __getstate__(self) -> dict[str, Any]:
        """Exclude the parts of an incomplete batch from copies."""
        return {**self.__dict__, "_pending": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Load modules that were pickled before batches could have parts."""
        super().__setstate__({"_pending": None, **state})  # type: ignore[no-untyped-call]

    def forward(self, batch: Statistics) -> tuple[Tensor, Tensor | None]:
        """Return a copy of the centers to compare this batch with, and which of them have data.

        The latter is None if all have data, and in training, where the batch itself initializes
        centers. The statistics of the batch are in the precision of
        :func:`fdrl_layers._precision.widest`. In training, this batch then updates the centers, or
        the batch that it is a part of does.
        """
        if not self.training:
            return widen(self.value.clone()), None if self.complete() else self.seen.clone()
        self.gather(batch)
        current = self._move(batch)
        if self.update == "gradient":
            value = widen(self.value.clone())
            if self.accumulating:
                # New centers are initialized at the end.
                value = torch.where(self.seen.clone().unsqueeze(-1), value, current)
            current = mean_gradient_over_ranks(value) if self.across_ranks else value
        return current, None

    @torch.no_grad()
    def _move(self, batch: Statistics) -> Tensor:
        """Update the centers; return those to compare the batch with.

        If the batch is not finite, or is a part of another, no center changes. The batch is still
        compared with the centers that it would initialize.
        """
        sums, counts, squares = self._over_ranks(batch)
        before, there = widest(self.value), None
        if self.complete():
            current = before
        else:
            there = counts > 0
            current = torch.where((there & ~self.seen).unsqueeze(-1), _means(sums, counts), before)
        # A copy, as the next batch may update the centers before this batch's backward pass.
        held = widen(current.to(self.value.dtype, copy=True))
        if torch.compiler.is_compiling():
            held = keep_for_backward(held)
        if self.accumulating:
            return held
        moved = current
        if self.update != "gradient":
            rule = alpha_rule if self.update == "alpha" else ema_rule
            moved = rule(current, sums, counts, self.rate)
        after = moved.to(self.value.dtype)
        # One sum checks all values: its difference from itself is 0 only if it is finite.
        total = squares + after.sum(dtype=moved.dtype)
        if readable(total) and plain((total,)):
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
        """Return the sizes, the rule and its rate."""
        c, f = self.value.shape
        return f"{c}, {f}, update={self.update!r}, rate={self.rate}"


class LossWithCenters(nn.Module):
    """A loss that compares a batch with centers of its own."""

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
        """Reset the centers, so that the next training batch is the first."""
        self.centers.reset_parameters()

    def accumulate(self) -> AbstractContextManager[None]:
        """Treat all training batches inside as parts of one; update the centers once, at the end.

        See :meth:`FDRLLoss.accumulate`.
        """
        return self.centers.accumulate()

    def extra_repr(self) -> str:
        """Return whether ranks are joined."""
        return f"across_ranks={self.across_ranks}"
