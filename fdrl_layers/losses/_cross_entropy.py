"""The cross-entropy of the joint loss, with support for ranks and ignored samples."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fdrl_layers._checks import check_device, check_floating, check_shape
from fdrl_layers._precision import widen
from fdrl_layers._ranks import batch_mean
from fdrl_layers.losses._targets import readable


def check_weight(name: str, weight: Tensor, num_classes: int) -> None:
    """Raise unless `weight` (K,) holds a finite number of at least 0 for each class.

    Values are checked only if they can be read without waiting for a device.
    """
    check_floating(name, weight)
    check_shape(name, weight, "K", K=num_classes)
    if readable(weight) and not bool(((weight >= 0) & weight.isfinite()).all()):
        raise ValueError(f"`{name}` must hold finite numbers >= 0, got {weight.tolist()}")


def check_weight_fits(
    name: str, weight: Tensor, num_classes: int, other_name: str, other: Tensor
) -> None:
    """Raise unless there is a weight for each class, on the device of `other`."""
    check_shape(name, weight, "K", K=num_classes)
    check_device(name, weight, other_name, other)


def register_weight(
    module: nn.Module,
    name: str,
    weight: Tensor | None,
    num_classes: int,
    device: torch.device | str | None,
) -> None:
    """Register a copy of class weights as a buffer, as torch's own losses do."""
    if weight is not None:
        check_weight(name, weight, num_classes)
        weight = weight.detach().clone().to(device)
    module.register_buffer(name, weight)


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    label_smoothing: float,
    ignore_index: int,
    across_ranks: bool,
) -> Tensor:
    """Return the same as :class:`torch.nn.CrossEntropyLoss`, but 0 if no sample counts."""
    logits = widen(logits)
    weight = None if weight is None else weight.to(logits.dtype)
    if target.is_floating_point():
        each = F.cross_entropy(
            logits, widen(target), weight, reduction="none", label_smoothing=label_smoothing
        )
        return batch_mean(each, across_ranks=across_ranks)
    each = F.cross_entropy(
        logits,
        target,
        weight,
        reduction="none",
        label_smoothing=label_smoothing,
        ignore_index=ignore_index,
    )
    counted = target != ignore_index
    weights = None if weight is None else weights_of(target, counted, weight)
    return batch_mean(each, counted, weights, across_ranks=across_ranks)


def weights_of(target: Tensor, counted: Tensor, weight: Tensor) -> Tensor:
    """Return the weight (N,) of each sample's class, 0 for a sample that does not count."""
    return torch.where(counted, weight[torch.where(counted, target, 0)], 0)
