"""The center loss of Wen et al., from which the compactness and distribution losses are derived."""

import torch
from torch import Tensor

from fdrl_layers._checks import check_size
from fdrl_layers.losses._class_centers import (
    ClassCenterLoss,
    check_class_centers,
    mean_squared_distance,
)
from fdrl_layers.losses.centers import CenterUpdate


def center_loss(
    features: Tensor, target: Tensor, centers: Tensor, *, ignore_index: int = -100
) -> Tensor:
    r"""Compute half the mean squared distance of features to the center of their class.

    .. math:: \mathcal L = \frac{1}{2N} \sum_{i=1}^N \lVert x_i - c_{y_i} \rVert_2^2

    This is equation 2 of Wen et al. with a mean instead of their sum over the batch, so that the
    loss weight does not depend on N; their loss is N times as large. With soft targets it is the
    expectation over classes.

    Args:
        features: Features x of a batch, such as the embedding of a head.
        target: Class indices in [0, K), or class shares, each row of which sums to 1.
        centers: A center for each class.
        ignore_index: Class index of samples to ignore, which the mean's N does not count either.

    Shape:
        - features: (N, F), of any width F.
        - target: (N,) of int64, or (N, K) of a floating-point type.
        - centers: (K, F).
        - Output: a scalar.

    Returns:
        The loss, in at least float32; 0 if no sample counts.

    Raises:
        TypeError: If features or centers are not floating point, or `target` is neither int64 nor
            floating point.
        ValueError: If the shapes do not fit, the devices differ, or, on the CPU, a target is out
            of range.

    Reference:
        Wen et al., *A Discriminative Feature Learning Approach for Deep Face Recognition*,
        ECCV 2016, equation 2.

    Example:
        >>> import torch
        >>> from fdrl_layers.functional import center_loss
        >>> features = torch.tensor([[0.0, 0.0], [1.0, 3.0]])
        >>> center_loss(features, torch.tensor([0, 1]), torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
        tensor(1.)
    """
    check_class_centers("features", features, "F", target, centers, ignore_index)
    return mean_squared_distance(features, target, centers, ignore_index) / 2


class CenterLoss(ClassCenterLoss):
    r"""Keep the features of a class close to that class's center (Wen et al. 2016).

    **With** `center_update="gradient"` **the centers are parameters: pass** ``loss.parameters()``
    **to an optimizer.** With "alpha" and "ema" they are buffers that every training forward pass
    updates, and no optimizer is needed.

    See :func:`fdrl_layers.functional.center_loss` for the equation. The centers behave like those
    of :class:`DistributionLoss`. FDRL does not use this loss: it is the baseline that FDRL's own
    losses are modeled on.

    Args:
        num_classes: Number K of classes; at least 1.
        num_features: Width F of the features; at least 1.
        center_update: "alpha", Wen et al.'s rule, :math:`c_j \leftarrow c_j - \alpha
            \sum_{i: y_i = j} (c_j - x_i) / (1 + n_j)`; "ema", a moving average; or "gradient".
        center_rate: :math:`\alpha`, or the moving average's weight of the new batch, in [0, 1];
            without effect under "gradient". Wen et al.: 0.5.
        ignore_index: Class index of samples to ignore.
        across_ranks: Whether, in training with a process group, the batch is the joined batch of
            all ranks. Every rank must then call the loss equally often, and gradients must be
            averaged over ranks, as DDP and FSDP do.
        device: Device of the centers.
        dtype: Type of the centers.

    Shape:
        - Input: features (N, F) and target (N,) or (N, K).
        - Output: a scalar.

    Raises:
        TypeError: As :func:`fdrl_layers.functional.center_loss`, or if a size is not an integer.
        ValueError: As :func:`fdrl_layers.functional.center_loss`, or if a size is below 1,
            `center_update` is unknown or `center_rate` is outside [0, 1].

    Reference:
        Wen et al., ECCV 2016, section 3.2 and algorithm 1.

    Example:
        >>> import torch
        >>> from fdrl_layers import CenterLoss
        >>> loss = CenterLoss(num_classes=2, num_features=1)
        >>> loss(torch.tensor([[0.0], [2.0], [5.0]]), torch.tensor([0, 0, 1]))  # (1 + 1 + 0) / 6
        tensor(0.3333)
    """

    def __init__(
        self,
        num_classes: int,
        num_features: int,
        *,
        center_update: CenterUpdate = "alpha",
        center_rate: float = 0.5,
        ignore_index: int = -100,
        across_ranks: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_size("num_features", num_features)
        super().__init__(
            num_classes,
            num_features,
            center_update,
            center_rate,
            ignore_index,
            across_ranks,
            device,
            dtype,
        )

    def forward(self, features: Tensor, target: Tensor) -> Tensor:
        """Return the loss of features (N, F); in training, update the centers."""
        return self.mean_squared_distance("features", features, "F", target) / 2
