"""What takes the cross-entropy's place where classes are not equally common.

Weights of the classes, logits that are adjusted by how common each is (Menon et al. 2021), and the
focal loss (Lin et al. 2017), which weighs down what is classified well.
"""

import torch
from torch import Tensor, distributed as dist, nn
from torch.nn import functional as F

from fer.options import Options


def count_classes(labels: Tensor, classes: int) -> Tensor:
    """Return how many of `labels` (N,) each class has, (K,), in the host's memory."""
    return torch.bincount(labels.cpu(), minlength=classes)


def class_weights(counts: Tensor, kind: str) -> Tensor | None:
    """Return the weight (K,) of each class, whose mean over the counted samples is 1.

    With "balanced" every class has as much weight in all, N / (K n) each of its samples, for K
    classes that have samples; "sqrt" goes half the way. A class without samples has weight 0: no
    sample shows it, and smoothed labels do not count it. "none" is None.
    """
    if kind == "none":
        return None
    present = counts > 0
    weights = torch.where(present, 1 / counts.clamp_min(1).double(), 0)
    if kind == "sqrt":
        weights = weights.sqrt()
    return (weights * counts.sum() / (weights * counts).sum()).float()


def log_prior(counts: Tensor) -> Tensor:
    """Return the logarithm of each class's share (K,); one without samples counts as one sample."""
    counts = counts.clamp_min(1).double()
    return (counts / counts.sum()).log().float()


class Classification(nn.Module):
    """A cross-entropy or focal loss with weights of the classes, or of adjusted logits.

    Without weights, or of shares, it is the mean over samples, with weights the weighted mean, as
    in `torch.nn.CrossEntropyLoss`; over the samples of all processes, if their gradients are
    averaged.

    Args:
        weight: Of each class (K,).
        adjustment: What is added to the logits in training (K,): tau times the log-prior, so that
            a rare class must win by more while it learns.
        gamma: Of the focal loss, at least 0; None is the cross-entropy.
        label_smoothing: Of the cross-entropy.
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
        # They follow from the training faces and the options, so that a checkpoint needs neither.
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("adjustment", adjustment, persistent=False)
        self.gamma = gamma
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits (N, K) and class indices (N,), or their shares (N, K)."""
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if self.adjustment is not None and self.training:
            logits = logits + self.adjustment
        each = F.cross_entropy(
            logits, target, self.weight, reduction="none", label_smoothing=self.label_smoothing
        )
        if self.gamma is not None:
            if target.ndim > 1:
                raise ValueError("the focal loss wants class indices (N,), got shares (N, K)")
            each = each * self._doubt(logits, target)
        if self.weight is None or target.ndim > 1:
            return each.mean()
        return each.sum() / _mean_over_ranks(self.weight[target].sum())

    def _doubt(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return (1 - p) ** gamma for the probability p of the true class."""
        assert self.gamma is not None
        true = -F.cross_entropy(logits, target, reduction="none")
        # Where p rounds to 1, the slope of a power below 1 would be infinite.
        return (-torch.expm1(true)).clamp_min(torch.finfo(true.dtype).tiny) ** self.gamma


def make_classification(options: Options, counts: Tensor) -> Classification | None:
    """Return what takes the cross-entropy's place, for class counts (K,), or None.

    Weights alone are the joint loss's matter, but a plain head has none.
    """
    weight = class_weights(counts, options.class_weights)
    focal, tau = options.criterion == "focal", options.logit_adjust
    if not focal and not tau and (weight is None or options.head == "fdrl"):
        return None
    return Classification(
        weight=weight,
        adjustment=tau * log_prior(counts) if tau else None,
        gamma=options.focal_gamma if focal else None,
        label_smoothing=options.label_smoothing,
    )


def _mean_over_ranks(total: Tensor) -> Tensor:
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return total
    total = total.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()
