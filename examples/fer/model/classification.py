"""Replacements for the cross-entropy if classes are not equally common.

These are class weights, logits adjusted by the frequency of each class (Menon et al. 2021), and the
focal loss (Lin et al. 2017), which reduces the weight of samples that are classified well.
"""

import torch
from torch import Tensor, distributed as dist, nn
from torch.nn import functional as F

from fer.options import Options


def count_classes(labels: Tensor, classes: int) -> Tensor:
    """Return the number (K,) of samples of each class in `labels` (N,), as a CPU tensor."""
    return torch.bincount(labels.cpu(), minlength=classes)


def compute_class_weights(counts: Tensor, kind: str) -> Tensor | None:
    """Return the weight (K,) of each class, whose mean over the counted samples is 1.

    With "balanced" every class has the same total weight: N / (K n) for each of its n samples, with
    K classes that have samples. "sqrt" is proportional to the square root of that. A class without
    samples has weight 0, so that label smoothing ignores it. "none" gives None.
    """
    if kind == "none":
        return None
    present = counts > 0
    weights = torch.where(present, 1 / counts.clamp_min(1).double(), 0)
    if kind == "sqrt":
        weights = weights.sqrt()
    return (weights * counts.sum() / (weights * counts).sum()).float()


def compute_log_prior(counts: Tensor) -> Tensor:
    """Return the log of each class's share (K,); a class without samples counts as one sample."""
    counts = counts.clamp_min(1).double()
    return (counts / counts.sum()).log().float()


class Classification(nn.Module):
    """A cross-entropy or focal loss with class weights or adjusted logits.

    Without weights, or for targets that are shares, it is the mean over samples. With weights it is
    the weighted mean, as in `torch.nn.CrossEntropyLoss`, over the samples of all processes if their
    gradients are averaged.

    Args:
        weight: Weight of each class (K,).
        adjustment: Offset of the logits in training (K,): tau times the log-prior, so that a rare
            class must win by a larger margin in training.
        gamma: Exponent of the focal loss, at least 0; None selects the cross-entropy.
        label_smoothing: Label smoothing of the cross-entropy.
    """

    weight: Tensor | None
    adjustment: Tensor | None

    def __init__(
        self,
        *,
        weight: Tensor | None = None,
        adjustment: Tensor | None = None,
        gamma: float | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        # The training faces and the options determine both, so a checkpoint does not store them.
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("adjustment", adjustment, persistent=False)
        self.gamma = gamma
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits (N, K) for class indices (N,) or shares (N, K)."""
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if self.adjustment is not None and self.training:
            logits = logits + self.adjustment
        each = F.cross_entropy(
            logits, target, self.weight, reduction="none", label_smoothing=self.label_smoothing
        )
        if self.gamma is not None:
            if target.ndim > 1:
                raise ValueError("the focal loss wants class indices (N,), got shares (N, K)")
            each = each * self._focal_factor(logits, target)
        if self.weight is None or target.ndim > 1:
            return each.mean()
        return each.sum() / _mean_over_ranks(self.weight[target].sum())

    def _focal_factor(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return (1 - p) ** gamma for the probability p of the true class."""
        assert self.gamma is not None
        true = -F.cross_entropy(logits, target, reduction="none")
        # If p rounds to 1, the gradient for a gamma below 1 would be infinite.
        return (-torch.expm1(true)).clamp_min(torch.finfo(true.dtype).tiny) ** self.gamma


def make_classification(options: Options, counts: Tensor) -> Classification | None:
    """Return the replacement for the cross-entropy, for class counts (K,), or None.

    The joint loss handles class weights alone, but only the FDRL head has a joint loss.
    """
    weight = compute_class_weights(counts, options.class_weights)
    focal, tau = options.criterion == "focal", options.logit_adjust
    if not focal and not tau and (weight is None or options.head == "fdrl"):
        return None
    return Classification(
        weight=weight,
        adjustment=tau * compute_log_prior(counts) if tau else None,
        gamma=options.focal_gamma if focal else None,
        label_smoothing=options.label_smoothing,
    )


def _mean_over_ranks(total: Tensor) -> Tensor:
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return total
    total = total.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()
