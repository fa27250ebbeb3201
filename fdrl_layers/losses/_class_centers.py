"""Squared distances to the center of a sample's class: the basis of two losses."""

from typing import Any

import torch
from torch import Tensor

from fdrl_layers._checks import check_device, check_floating, check_shape, check_size
from fdrl_layers._precision import widen, widest
from fdrl_layers._ranks import batch_mean, mean_of_sum
from fdrl_layers.losses._cross_entropy import check_weight_fits, register_weight, weights_of
from fdrl_layers.losses._pending import Statistics
from fdrl_layers.losses._targets import check_target, class_shares
from fdrl_layers.losses.centers import CenterUpdate, LossWithCenters


def check_class_centers(
    name: str, features: Tensor, axis: str, target: Tensor, centers: Tensor, ignore_index: int
) -> bool:
    """Raise unless `features` (N, `axis`), `target` and `centers` (K, `axis`) fit each other.

    Return whether every sample is known to count.
    """
    check_floating("centers", centers)
    check_shape("centers", centers, f"K {axis}")
    check_floating(name, features)
    check_shape(name, features, f"N {axis}", **{axis: centers.shape[1]})
    all_counted = check_target(target, features.shape[0], centers.shape[0], ignore_index)
    check_device("centers", centers, name, features)
    check_device("target", target, name, features)
    return all_counted


def mean_squared_distance(
    features: Tensor,
    target: Tensor,
    centers: Tensor,
    ignore_index: int,
    *,
    all_counted: bool = False,
    known: Tensor | None = None,
    weight: Tensor | None = None,
    across_ranks: bool = False,
) -> Tensor:
    r"""Return the batch mean of :math:`\sum_k p_{ik} \lVert x_i - c_k \rVert_2^2`.

    `all_counted` says that no target is `ignore_index`. A class outside the mask `known` (K,) has
    no center yet and adds nothing. Class weights `weight` (K,) are applied as in the cross-entropy.
    """
    features, centers = widen(features), widen(centers)
    weight = None if weight is None else weight.to(features.dtype)
    if target.is_floating_point():
        shares = target if known is None else target * known
        shares = shares if weight is None else shares * weight
        squared = (features.unsqueeze(1) - centers).square().sum(-1)
        return batch_mean((shares * squared).sum(-1), across_ranks=across_ranks)
    if all_counted and known is None and weight is None:
        squared = (features - centers.index_select(0, target)).square().sum()
        return mean_of_sum(squared, target.shape[0], across_ranks=across_ranks)
    counted = target != ignore_index
    index = torch.where(counted, target, 0)
    squared = (features - centers.index_select(0, index)).square().sum(-1)
    if known is not None:
        squared = torch.where(known[index], squared, 0)
    weights = None if weight is None else weights_of(target, counted, weight)
    if weights is not None:
        squared = weights * squared
    return batch_mean(squared, counted, weights, across_ranks=across_ranks)


class ClassCenterLoss(LossWithCenters):
    """A center for each class and the mean squared distance to it."""

    weight: Tensor | None

    def __init__(
        self,
        num_classes: int,
        num_features: int,
        center_update: CenterUpdate,
        center_rate: float,
        ignore_index: int,
        across_ranks: bool,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
        weight: Tensor | None = None,
    ) -> None:
        check_size("num_classes", num_classes)
        super().__init__(
            num_classes, num_features, center_update, center_rate, across_ranks, device, dtype
        )
        register_weight(self, "weight", weight, num_classes, device)
        self.num_classes = num_classes
        self.ignore_index = ignore_index

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Load modules that were pickled before class weights existed."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._buffers.setdefault("weight", None)

    def _statistics(self, features: Tensor, target: Tensor) -> Statistics:
        """Return the statistics of a batch that the centers need."""
        features = features.detach()
        wide, flat = widest(features), widen(features).flatten()
        shares = class_shares(target, self.num_classes, self.ignore_index, wide.dtype)
        return Statistics(shares.mT @ wide, shares.sum(0), torch.dot(flat, flat).to(wide.dtype))

    def mean_squared_distance(
        self, name: str, features: Tensor, axis: str, target: Tensor
    ) -> Tensor:
        """Return the distance of `features` (N, `axis`) to centers; in training, update these."""
        all_counted = check_class_centers(
            name, features, axis, target, self.centers.value, self.ignore_index
        )
        if self.weight is not None:
            check_weight_fits("weight", self.weight, self.num_classes, name, features)
        centers, known = self.centers(self._statistics(features, target))
        return mean_squared_distance(
            features,
            target,
            centers,
            self.ignore_index,
            all_counted=all_counted,
            known=known,
            weight=self.weight,
            across_ranks=self.across_ranks and self.training,
        )

    def extra_repr(self) -> str:
        """Return the ignored index and whether ranks are joined."""
        return f"ignore_index={self.ignore_index}, {super().extra_repr()}"
