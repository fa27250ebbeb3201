"""Centers: the only state that moves by itself."""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from fdrl_layers._checks import check_choice, check_number, check_size
from fdrl_layers._parts import fusable
from fdrl_layers._precision import widen, widest
from fdrl_layers._ranks import mean_gradient_over_ranks, sum_over_ranks

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
        if self.seen.device.type != "cpu" or self.seen.is_inference():
            return False
        version = self.seen._version
        if self._met is None or self._met[0] is not self.seen or self._met[1] != version:
            self._met = (self.seen, version) if bool(self.seen.all()) else None
        return self._met is not None

    def forward(self, sums: Tensor, counts: Tensor, squares: Tensor) -> tuple[Tensor, Tensor]:
        """Return the centers to hold this batch against, and which of them have met data.

        `sums` (C, F) and `counts` (C,) are those of the batch's vectors that belong to each
        center, in the precision of :func:`fdrl_layers._precision.widest`, and `squares` is the sum
        of all their squares. In training the centers move on after this batch.
        """
        if not self.training:
            return widen(self.value), self.seen.clone()
        current, known = self._move(sums, counts, squares)
        if self.update == "gradient":
            current = widen(self.value)
            if self.across_ranks:
                current = mean_gradient_over_ranks(current)
        return current, known

    @torch.no_grad()
    def _move(self, sums: Tensor, counts: Tensor, squares: Tensor) -> tuple[Tensor, Tensor]:
        """Move on after a batch; return the centers that it is held against, and which are known.

        What does not move for want of a finite batch is held against that batch all the same.
        """
        sums, counts, squares = self._over_ranks(sums, counts, squares)
        before, there = widest(self.value), counts > 0
        first = (there & ~self.seen).unsqueeze(-1)
        current = torch.where(first, _means(sums, counts), before)
        moved = current
        if self.update != "gradient":
            rule = alpha_rule if self.update == "alpha" else ema_rule
            moved = rule(current, sums, counts, self.rate)
        finite = squares.isfinite() & moved.to(self.value.dtype).isfinite().all()
        # A copy, as the next batch may change the mask before this one's backward reads it.
        known = self.seen | there
        self.value.copy_(torch.where(finite, moved, before))
        self.seen.logical_or_(there & finite)
        return widen(current.to(self.value.dtype)), known

    def _over_ranks(
        self, sums: Tensor, counts: Tensor, squares: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        squares = squares.to(sums.dtype)
        if not self.across_ranks:
            return sums, counts, squares
        packed = sum_over_ranks(torch.cat([sums.flatten(), counts, squares.reshape(1)]))
        c, f = sums.shape
        return packed[: c * f].view(c, f), packed[c * f : -1], packed[-1]

    def extra_repr(self) -> str:
        """Say the sizes and the rule."""
        c, f = self.value.shape
        return f"{c}, {f}, update={self.update!r}, rate={self.rate}"
