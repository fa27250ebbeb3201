"""The compactness loss, equation 2."""

import torch
from torch import Tensor

from fdrl_layers._checks import check_device, check_floating, check_shape, check_size
from fdrl_layers._parts import fusable
from fdrl_layers._precision import widen, widest
from fdrl_layers._ranks import mean_of_sum
from fdrl_layers.losses._pending import Statistics
from fdrl_layers.losses.centers import CenterUpdate, LossWithCenters
from fdrl_layers.ops.eager.joint import SUM


def compactness_loss(latents: Tensor, centers: Tensor) -> Tensor:
    r"""Compute the batch mean of the latents' squared distances to their centers (equation 2).

    .. math:: \mathcal L_C = \frac1N \sum_{i=1}^N \sum_{j=1}^M \lVert l_{i,j} - c_j \rVert_2^2

    Args:
        latents: Latents l of a batch.
        centers: A center for each latent, the same for every class.

    Shape:
        - latents: (N, M, D).
        - centers: (M, D).
        - Output: a scalar.

    Returns:
        The loss, in at least float32; 0 for an empty batch.

    Raises:
        TypeError: If an argument is not floating point.
        ValueError: If the shapes do not fit, or the devices differ.

    Reference:
        Ruan et al., CVPR 2021, section 3.1.

    Example:
        >>> import torch
        >>> from fdrl_layers.functional import compactness_loss
        >>> compactness_loss(torch.ones(4, 9, 128), torch.zeros(9, 128))  # 9 x 128 ones a sample
        tensor(1152.)
    """
    _check(latents, centers)
    # A copy, as the centers may change before backward reads them.
    return _loss(latents, centers.clone(), across_ranks=False)


def _check(latents: Tensor, centers: Tensor) -> None:
    check_floating("centers", centers)
    check_shape("centers", centers, "M D")
    check_floating("latents", latents)
    check_shape("latents", latents, "N M D", M=centers.shape[0], D=centers.shape[1])
    check_device("centers", centers, "latents", latents)


def _loss(
    latents: Tensor, centers: Tensor, *, known: Tensor | None = None, across_ranks: bool
) -> Tensor:
    latents, centers = widen(latents), widen(centers)
    if known is None:
        squared: Tensor = torch.ops.aten.mse_loss(latents, centers.expand_as(latents), SUM)
    else:
        squared = torch.where(known, (latents - centers).square().sum(-1), 0).sum()
    return mean_of_sum(squared, latents.shape[0], across_ranks=across_ranks)


@fusable
class CompactnessLoss(LossWithCenters):
    r"""Keep each latent close to a center that all samples share (equation 2).

    **With** `center_update="gradient"` **the centers are parameters: pass** ``loss.parameters()``
    **to an optimizer.** With "alpha" and "ema" they are buffers that every training forward pass
    updates, and no optimizer is needed.

    See :func:`fdrl_layers.functional.compactness_loss` for the equation. Every sample has every
    latent, so in Wen et al.'s rule each center has n = N. Centers are initialized to the mean of
    the first training batch; before it the loss is 0. Evaluation never updates them.

    Args:
        latent_dim: Width D of a latent; at least 1. Paper: 128.
        num_latents: Number M of latents; at least 1. Paper: 9.
        center_update: "alpha", Wen et al.'s rule, :math:`c_j \leftarrow c_j - \alpha
            \sum_i (c_j - l_{i,j}) / (1 + N)`; "ema", a moving average; or "gradient". The paper
            says "updated based on a mini-batch" and cites Wen et al.
        center_rate: :math:`\alpha`, or the moving average's weight of the new batch, in [0, 1];
            without effect under "gradient". Wen et al.: 0.5.
        across_ranks: Whether, in training with a process group, the batch is the joined batch of
            all ranks. Every rank must then call the loss equally often, and gradients must be
            averaged over ranks, as DDP and FSDP do.
        device: Device of the centers.
        dtype: Type of the centers.

    Shape:
        - Input: latents (N, M, D).
        - Output: a scalar.

    Raises:
        TypeError: If a size is not an integer, or the latents are not floating point.
        ValueError: If a size is below 1, `center_update` is unknown, `center_rate` is outside
            [0, 1], or the latents do not fit.

    Reference:
        Ruan et al., CVPR 2021, section 3.1; Wen et al., ECCV 2016, for the centers.

    Example:
        >>> import torch
        >>> from fdrl_layers import CompactnessLoss
        >>> loss = CompactnessLoss(latent_dim=2, num_latents=1)
        >>> loss(torch.tensor([[[0.0, 0.0]], [[2.0, 0.0]]]))  # center (1, 0), 1 away from both
        tensor(1.)
    """

    def __init__(
        self,
        latent_dim: int = 128,
        num_latents: int = 9,
        *,
        center_update: CenterUpdate = "alpha",
        center_rate: float = 0.5,
        across_ranks: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_size("latent_dim", latent_dim)
        check_size("num_latents", num_latents)
        super().__init__(
            num_latents, latent_dim, center_update, center_rate, across_ranks, device, dtype
        )

    def _statistics(self, latents: Tensor) -> Statistics:
        """Return the statistics of a batch that the centers need."""
        latents = widen(latents.detach())
        sums = latents.sum(0, dtype=widest(latents[:0]).dtype)
        counts, flat = sums.new_full(sums.shape[:1], latents.shape[0]), latents.flatten()
        return Statistics(sums, counts, torch.dot(flat, flat).to(sums.dtype))

    def forward(self, latents: Tensor) -> Tensor:
        """Return the loss of latents (N, M, D); in training, update the centers."""
        _check(latents, self.centers.value)
        centers, known = self.centers(self._statistics(latents))
        return _loss(
            latents,
            centers,
            known=known,
            across_ranks=self.across_ranks and self.training,
        )
