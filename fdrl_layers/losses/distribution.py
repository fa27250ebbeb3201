"""The distribution loss, equation 5."""

import torch
from torch import Tensor

from fdrl_layers._checks import check_size
from fdrl_layers._parts import fusable
from fdrl_layers.losses._class_centers import (
    ClassCenterLoss,
    check_class_centers,
    mean_squared_distance,
)
from fdrl_layers.losses._cross_entropy import check_weight, check_weight_fits
from fdrl_layers.losses.centers import CenterUpdate


def distribution_loss(
    intra_weights: Tensor,
    target: Tensor,
    centers: Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
) -> Tensor:
    r"""Compute the mean squared distance of Intra-W to the sample's class center (equation 5).

    .. math:: \mathcal L_D = \frac1N \sum_{i=1}^N \lVert w_i - w_{k_i} \rVert_2^2

    With soft targets :math:`p_i` it is the expectation :math:`\frac1N \sum_i \sum_k p_{i,k} \lVert
    w_i - w_k \rVert_2^2`, which is not in the paper. Class weights :math:`\omega` are not in the
    paper either: they multiply each term by :math:`\omega_k`, and with class indices the sum is
    divided by :math:`\sum_i \omega_{k_i}` instead of N.

    Args:
        intra_weights: Intra-W of a batch.
        target: Class indices in [0, K), or class shares, each row of which sums to 1.
        centers: A center for each class.
        weight: Class weights, at least 0, applied as in :class:`torch.nn.CrossEntropyLoss`: with
            class indices the mean is over the samples' weights, with shares over samples. None
            weights all classes equally, as in the paper.
        ignore_index: Class index of samples to ignore, which the mean's N does not count either.

    Shape:
        - intra_weights: (N, M).
        - target: (N,) of int64, or (N, K) of a floating-point type.
        - centers: (K, M).
        - weight: (K,).
        - Output: a scalar.

    Returns:
        The loss, in at least float32; 0 if no sample counts.

    Raises:
        TypeError: If Intra-W or the centers are not floating point, or `target` is neither
            int64 nor floating point.
        ValueError: If the shapes do not fit, the devices differ, or, on the CPU, a target or a
            weight is out of range.

    Reference:
        Ruan et al., CVPR 2021, section 3.2.

    Example:
        >>> import torch
        >>> from fdrl_layers.functional import distribution_loss
        >>> centers = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
        >>> intra_weights = torch.tensor([[0.0, 0.0], [1.0, 3.0]])  # 0 and 2 away
        >>> distribution_loss(intra_weights, torch.tensor([0, 1]), centers)
        tensor(2.)
    """
    check_class_centers("intra_weights", intra_weights, "M", target, centers, ignore_index)
    if weight is not None:
        check_weight("weight", weight, centers.shape[0])
        check_weight_fits("weight", weight, centers.shape[0], "intra_weights", intra_weights)
    return mean_squared_distance(intra_weights, target, centers, ignore_index, weight=weight)


@fusable
class DistributionLoss(ClassCenterLoss):
    r"""Keep the Intra-W of a class close to that class's center (equation 5).

    **With** `center_update="gradient"` **the centers are parameters: pass** ``loss.parameters()``
    **to an optimizer.** With "alpha" and "ema" they are buffers that every training forward pass
    updates, and no optimizer is needed.

    See :func:`fdrl_layers.functional.distribution_loss` for the equation. A center is initialized
    to the mean of its class in the first training batch that has the class; until then the class
    adds nothing. The center of a class that is not in a batch does not change. Evaluation never
    updates a center. With soft targets a sample belongs to each class by its share.

    Args:
        num_classes: Number K of classes; at least 1. Paper: 7, or 6.
        num_latents: Number M of latents; at least 1. Paper: 9.
        center_update: "alpha", Wen et al.'s rule, :math:`w_k \leftarrow w_k - \alpha
            \sum_{i: k_i = k} (w_k - w_i) / (1 + n_k)`; "ema", a moving average; or "gradient".
        center_rate: :math:`\alpha`, or the moving average's weight of the new batch, in [0, 1];
            without effect under "gradient". Wen et al.: 0.5.
        weight: Class weights (K,) in the loss, at least 0; see
            :func:`fdrl_layers.functional.distribution_loss`. They do not affect the centers.
        ignore_index: Class index of samples to ignore.
        across_ranks: Whether, in training with a process group, the batch is the joined batch of
            all ranks. Every rank must then call the loss equally often, and gradients must be
            averaged over ranks, as DDP and FSDP do.
        device: Device of the centers.
        dtype: Type of the centers.

    Shape:
        - Input: Intra-W (N, M) and target (N,) or (N, K).
        - Output: a scalar.

    Raises:
        TypeError: As :func:`fdrl_layers.functional.distribution_loss`, or if a size is not an
            integer.
        ValueError: As :func:`fdrl_layers.functional.distribution_loss`, or if a size is below 1,
            `center_update` is unknown or `center_rate` is outside [0, 1].

    Reference:
        Ruan et al., CVPR 2021, section 3.2; Wen et al., ECCV 2016, for the centers.

    Example:
        >>> import torch
        >>> from fdrl_layers import DistributionLoss
        >>> loss = DistributionLoss(num_classes=2, num_latents=1)
        >>> loss(torch.tensor([[0.0], [2.0], [5.0]]), torch.tensor([0, 0, 1]))  # (1 + 1 + 0) / 3
        tensor(0.6667)
    """

    def __init__(
        self,
        num_classes: int,
        num_latents: int = 9,
        *,
        center_update: CenterUpdate = "alpha",
        center_rate: float = 0.5,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        across_ranks: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_size("num_latents", num_latents)
        super().__init__(
            num_classes,
            num_latents,
            center_update,
            center_rate,
            ignore_index,
            across_ranks,
            device,
            dtype,
            weight,
        )

    def forward(self, intra_weights: Tensor, target: Tensor) -> Tensor:
        """Return the loss of Intra-W (N, M); in training, update the centers."""
        return self.mean_squared_distance("intra_weights", intra_weights, "M", target)
