"""The balance loss, equation 6."""

from torch import Tensor, nn

from fdrl_layers._checks import check_floating, check_shape
from fdrl_layers._parts import fusable
from fdrl_layers._precision import widen
from fdrl_layers._ranks import batch_mean


def balance_loss(intra_weights: Tensor) -> Tensor:
    r"""Compute the L1 distance of the batch's mean Intra-W to the uniform vector (equation 6).

    .. math:: \mathcal L_B = \lVert \bar w - w_u \rVert_1, \qquad
        \bar w = \frac1N \sum_{i=1}^N w_i, \quad w_u = (\tfrac1M, \dots, \tfrac1M)

    The mean over the batch is inside the norm: a sample may favor one latent as long as the batch
    does not. The loss's scale depends on how Intra-W is reduced; see :func:`intra_relation`.

    Args:
        intra_weights: Intra-W of a batch.

    Shape:
        - intra_weights: (N, M).
        - Output: a scalar.

    Returns:
        The loss, in at least float32; 0 for an empty batch.

    Raises:
        TypeError: If Intra-W is not floating point.
        ValueError: If Intra-W does not have two axes.

    Reference:
        Ruan et al., CVPR 2021, section 3.2.

    Example:
        >>> import torch
        >>> from fdrl_layers.functional import balance_loss
        >>> balance_loss(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))  # uniform in the mean
        tensor(0.)
        >>> balance_loss(torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
        tensor(1.)
    """
    return _loss(intra_weights, across_ranks=False)


def _loss(intra_weights: Tensor, *, across_ranks: bool) -> Tensor:
    check_floating("intra_weights", intra_weights)
    check_shape("intra_weights", intra_weights, "N M")
    m = intra_weights.shape[1]
    # The deviations from uniform, whose mean over no sample is 0.
    mean = batch_mean(widen(intra_weights) - 1 / m, across_ranks=across_ranks)
    return mean.abs().sum()


@fusable
class BalanceLoss(nn.Module):
    r"""Keep the batch's mean Intra-W close to uniform (equation 6).

    See :func:`fdrl_layers.functional.balance_loss` for the equation. There is no state.

    Args:
        across_ranks: Whether, in training with a process group, the mean is that of the joined
            batch of all ranks: the norm of a mean is not the mean of the ranks' norms. Every rank
            must then call the loss equally often, and gradients must be averaged over ranks, as DDP
            and FSDP do.

    Shape:
        - Input: Intra-W (N, M).
        - Output: a scalar.

    Raises:
        TypeError: If Intra-W is not floating point.
        ValueError: If Intra-W does not have two axes.

    Reference:
        Ruan et al., CVPR 2021, section 3.2.

    Example:
        >>> import torch
        >>> from fdrl_layers import BalanceLoss
        >>> BalanceLoss()(torch.full((4, 9), 64.0))  # "sum" at a new layer: 9 x (64 - 1 / 9)
        tensor(575.)
    """

    def __init__(self, *, across_ranks: bool = True) -> None:
        super().__init__()
        self.across_ranks = across_ranks

    def forward(self, intra_weights: Tensor) -> Tensor:
        """Return the loss of Intra-W (N, M)."""
        return _loss(intra_weights, across_ranks=self.across_ranks and self.training)

    def extra_repr(self) -> str:
        """Return whether ranks are joined."""
        return f"across_ranks={self.across_ranks}"
