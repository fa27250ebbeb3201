"""A measure of how much Intra-W varies between faces."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fdrl_layers._checks import check_floating, check_shape, check_size

DEAD_BELOW = 0.02
"""Spread below which Intra-W counts as constant."""


@dataclass(frozen=True)
class IntraSpread:
    """Result of :func:`intra_spread` for the Intra-W of a data set.

    Attributes:
        spread: Mean over latents of the standard deviation over faces, divided by the mean size.
        explained: Share of the variance over faces that lies between classes, from 0 to 1; None
            if no classes were given.
        effective_latents: How many latents carry the variance, from 1 to M; 0 without variance.
        num_latents: Number M of latents.
    """

    spread: float
    explained: float | None
    effective_latents: float
    num_latents: int

    @property
    def dead(self) -> bool:
        """Whether the spread is below 2 %, so that Intra-RM treats every face alike."""
        return self.spread < DEAD_BELOW

    @property
    def sentence(self) -> str:
        """The meaning of the result in one sentence."""
        percent = f"{100 * self.spread:.0f}" if self.spread >= 0.1 else f"{100 * self.spread:.1g}"
        if self.dead:
            return f"Intra-W is the same for every face to {percent} %: Intra-RM does nothing here."
        said = f"Intra-W varies over faces by {percent} % of its size"
        if self.explained is not None:
            said += f", {100 * self.explained:.0f} % of the variance is between classes"
        return f"{said}, and {self.effective_latents:.1f} of {self.num_latents} latents carry it."


@torch.no_grad()
def intra_spread(
    intra_weights: Tensor, target: Tensor | None = None, *, ignore_index: int = -100
) -> IntraSpread:
    r"""Measure how much Intra-W varies over faces, and how much of the variance classes explain.

    With the standard deviation :math:`s_j` over faces of latent j, and the mean :math:`w_j^{(k)}`
    over the :math:`n_k` faces of class k,

    .. math::
        \text{spread} = \frac{\frac1M \sum_j s_j}{\frac1{NM} \sum_{i,j} \lvert w_{ij} \rvert},
        \qquad
        \text{explained} = \frac{\sum_{j,k} n_k (w_j^{(k)} - \bar w_j)^2}
                                {\sum_{i,j} (w_{ij} - \bar w_j)^2},

    the latter being eta squared over all latents. With shares :math:`p_j = s_j^2 / \sum_l s_l^2`,

    .. math:: \text{effective latents} = \exp\Bigl(-\sum_j p_j \log p_j\Bigr).

    If the spread is near 0, Intra-W does not distinguish faces: no loss can benefit from it, and
    selecting images by it means selecting by noise. For few faces, eta squared is high by chance:
    for Intra-W that is unrelated to the class, it is (K - 1) / (N - 1) on average.

    Args:
        intra_weights: Intra-W of a data set, from a head in evaluation mode.
        target: Class of each face, at least 0, or `ignore_index`; with None, `explained` is None.
            Classes without faces have no effect.
        ignore_index: Class of the faces that `explained` ignores.

    Shape:
        - intra_weights: (N, M), N at least 1.
        - target: (N,), int64.

    Returns:
        The spread, the explained share and the effective latents. A quotient 0 / 0, as for one face
        or for faces that are all the same, is 0.

    Raises:
        TypeError: If Intra-W is not floating point, or `target` is not int64.
        ValueError: If shapes do not fit, there is no face, Intra-W is not finite, or a class is
            negative.

    Note:
        The measure is not in the paper. It uses population deviations, and float64 sums on the CPU.

    Reference:
        Ruan et al., CVPR 2021, section 3.2, has Intra-W. Eta squared is Fisher's.

    Example:
        >>> import torch
        >>> from fdrl_layers import intra_spread
        >>> weights = torch.tensor([[0.5, 1.0], [0.5, 1.0], [1.5, 1.0], [1.5, 1.0]])
        >>> found = intra_spread(weights, torch.tensor([0, 0, 1, 1]))
        >>> found.spread, found.explained, found.effective_latents
        (0.25, 1.0, 1.0)
        >>> intra_spread(torch.full((4, 9), 1 / 9)).sentence
        'Intra-W is the same for every face to 0 %: Intra-RM does nothing here.'
    """
    check_floating("intra_weights", intra_weights)
    check_shape("intra_weights", intra_weights, "N M")
    check_size("ignore_index", ignore_index, minimum=-(2**63))
    if not intra_weights.numel():
        raise ValueError(
            "`intra_weights` must have at least one face and one latent, "
            f"got {tuple(intra_weights.shape)}"
        )
    weights = intra_weights.detach().to("cpu", torch.float64)
    if not weights.isfinite().all():
        raise ValueError("`intra_weights` must be finite, got NaN or infinity")
    # Subtract the first face, so that equal faces differ by exactly 0 and not by rounding.
    moved = weights - weights[0]
    variances = moved.var(0, correction=0)
    size = float(weights.abs().mean())
    explained = None if target is None else _explained(weights, target, ignore_index)
    return IntraSpread(
        spread=float(variances.sqrt().mean()) / size if size else 0.0,
        explained=explained,
        effective_latents=_effective(variances),
        num_latents=weights.shape[1],
    )


def _explained(weights: Tensor, target: Tensor, ignore_index: int) -> float:
    """Return the share of the sum of squares that lies between classes."""
    if not isinstance(target, Tensor):
        raise TypeError(f"`target` must be a torch.Tensor, got {type(target).__name__}")
    if target.dtype != torch.int64:
        raise TypeError(f"`target` must be int64 class indices, got {target.dtype}")
    check_shape("target", target, "N", N=len(weights))
    labels = target.cpu()
    counted = labels != ignore_index
    weights, labels = weights[counted], labels[counted]
    if not len(labels):
        return 0.0
    if (labels < 0).any():
        raise ValueError(
            f"`target` must be at least 0 or `ignore_index` = {ignore_index}, "
            f"got {int(labels.min())}"
        )
    weights = weights - weights[0]
    total = float((weights - weights.mean(0)).square().sum())
    if not total:
        return 0.0
    _, index, counts = labels.unique(return_inverse=True, return_counts=True)
    sums = weights.new_zeros(len(counts), weights.shape[1]).index_add_(0, index, weights)
    means = sums / counts[:, None]
    between = float((counts[:, None] * (means - weights.mean(0)).square()).sum())
    return min(between / total, 1.0)


def _effective(variances: Tensor) -> float:
    """Return the exponential of the entropy of the variances' shares."""
    total = variances.sum()
    if not total:
        return 0.0
    return float(torch.special.entr(variances / total).sum().exp())
