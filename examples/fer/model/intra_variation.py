"""Three attempts to make Intra-W differ between faces. They are ours, not the paper's.

The balance loss (equation 6) requires a uniform mean of Intra-W over a batch, which a constant
satisfies. The two losses reward differences between a face's weights or between classes; the layer
gives the gates latents of one size. The study `living` reports the results.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from fdrl_layers import FDRLLoss, FDRLLossOutput, FDRLOutput, IntraRelation
from fdrl_layers.functional import intra_relation

MARGIN = 1.0
"""Target distance of two classes, in units of the mean Intra-W."""


def entropy_loss(intra_weights: Tensor) -> Tensor:
    """Return the mean entropy of a face's Intra-W (N, M) over its latents, divided by log M.

    It is 1 if each face's Intra-W is uniform and 0 if a single latent has all the weight. Together
    with the balance loss it forms the usual pair of clustering losses: peaked faces, uniform mean.
    """
    shares = intra_weights / intra_weights.sum(1, keepdim=True)
    tiny = torch.finfo(shares.dtype).tiny
    entropy = -(shares * shares.clamp_min(tiny).log()).sum(1)
    return entropy.mean() / math.log(intra_weights.shape[1])


def class_separation_loss(intra_weights: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """Return the squared shortfall of the distances of the classes' mean Intra-W below `MARGIN`.

    It is the mean over pairs of classes in the batch, and 0 for a batch of one class. The
    distribution loss (equation 5) pulls a class together; this loss pushes classes apart.

    Args:
        intra_weights: Intra-W (N, M).
        target: Class indices (N,) or shares (N, K).
        num_classes: Number K of classes.
    """
    shares = target if target.ndim > 1 else F.one_hot(target, num_classes)
    shares = shares.to(intra_weights.dtype)
    counts = shares.sum(0)
    means = shares.T @ intra_weights / counts.clamp_min(1e-6).unsqueeze(1)
    # M times Intra-W, which has a mean of about 1.
    gaps = intra_weights.shape[1] * (means.unsqueeze(1) - means)
    # A distance of zero has no gradient.
    distances = (gaps.square().sum(2) + 1e-12).sqrt()
    pairs = (counts > 0).unsqueeze(1) & (counts > 0)
    pairs = pairs.triu(1).to(intra_weights.dtype)
    return ((MARGIN - distances).relu().square() * pairs).sum() / pairs.sum().clamp_min(1)


class VariedIntraLoss(FDRLLoss):
    """The joint loss (equation 13) plus weighted `entropy_loss` and `class_separation_loss`."""

    lambda_peak = 0.0
    lambda_apart = 0.0

    def forward(self, output: FDRLOutput, target: Tensor) -> FDRLLossOutput:
        """Return the joint loss and its terms; the two additional losses are in the total only."""
        losses = super().forward(output, target)
        weights = output.intra_weights.float()
        total = losses.total
        if self.lambda_peak:
            total = total + self.lambda_peak * entropy_loss(weights)
        if self.lambda_apart:
            total = total + self.lambda_apart * class_separation_loss(
                weights, target, self.num_classes
            )
        return FDRLLossOutput(
            total, losses.classification, losses.compactness, losses.balance, losses.distribution
        )


class NormalizedIntraRelation(IntraRelation):
    """Intra-RM whose gates receive latents that layer norm scales to zero mean and unit variance.

    The size of a latent alone then cannot saturate a gate or keep it at its initial value. Intra-W
    weights the original latents.
    """

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Return the intra-aware features (*, M, D) and Intra-W (*, M)."""
        normed = F.layer_norm(latents, latents.shape[-1:])
        _, weights = intra_relation(normed, self.weight, self.bias, reduction=self.reduction)
        return (weights.unsqueeze(-1) * latents).to(latents.dtype), weights
