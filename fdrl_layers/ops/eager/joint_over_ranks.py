"""Hand-written forward pass of the joint loss for the joined batch of all ranks: one exchange.

The backward pass is that of :mod:`fdrl_layers.ops.eager.joint`.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from fdrl_layers._precision import widen, widest
from fdrl_layers._ranks import sum_over_ranks
from fdrl_layers.ops.eager.joint import (
    SUM,
    Centers,
    Features,
    Options,
    Saved,
    Terms,
    cross_entropy,
    one_hot,
    shares,
)


class Sums(NamedTuple):
    """The sums over samples that the ranks exchange.

    Attributes:
        entropy: Sum of cross-entropies.
        mass: Sum of class weights, 1 each if there are none, of samples that are not ignored.
        samples: Number of samples that are not ignored.
        number: Number of all samples.
        latent_squares: Squared distances of latents to the centers before the update.
        class_squares: Squared distances of Intra-W to the centers of the samples' classes.
        shares: Intra-W (M,).
        latents: Latents (M, D).
        counts: Number of samples of each class (K,).
        classes: Intra-W of each class (K, M).
    """

    entropy: Tensor
    mass: Tensor
    samples: Tensor
    number: Tensor
    latent_squares: Tensor
    class_squares: Tensor
    shares: Tensor
    latents: Tensor
    counts: Tensor
    classes: Tensor

    def over_ranks(self) -> "Sums":
        """Return the sums over all ranks, by one exchange."""
        joined = sum_over_ranks(torch.cat([widest(each).flatten() for each in self]))
        pieces = joined.split([each.numel() for each in self])
        return Sums(*(piece.view_as(each) for piece, each in zip(pieces, self, strict=True)))


def forward(
    features: Features,
    target: Tensor,
    latent_centers: Centers,
    class_centers: Centers,
    options: Options,
    weight: Tensor | None,
) -> tuple[Terms, Saved]:
    """Return the joint loss of all ranks' joined batch, and what backward needs on this rank.

    Update the centers, equally on every rank. The batch of a rank may be empty.

    Each rank compares its batch with the centers before the update. The effect of centers that this
    batch initializes follows from the joined sums.
    """
    intra_weights = features.intra_weights
    (n, m), dtype = intra_weights.shape, intra_weights.dtype
    logits, latents = widen(features.logits), widen(features.latents)
    hot, counted, _ = one_hot(logits, target, options)
    entropy = intra_weights.new_empty(())
    share, mass = shares(hot, counted, weight, options.label_smoothing)
    residual = cross_entropy(logits, share, entropy)
    samples = intra_weights.new_full((), n) if counted is None else counted.sum()
    wide = latent_centers.value.expand_as(latents)
    sums = Sums(
        entropy,
        samples if mass is None else mass,
        samples,
        intra_weights.new_full((), n),
        torch.ops.aten.mse_loss(latents, wide, SUM),
        _offsets(intra_weights, hot, class_centers.value, counted).square().sum(),
        intra_weights.sum(0),
        latents.sum(0),
        -hot.sum(0),
        -(hot.t() @ intra_weights),
    ).over_ranks()
    number, samples = sums.number.clamp_min(1), sums.samples.clamp_min(1)
    counts = sums.number.expand(m)
    held, squares = _move_by_sums(
        latent_centers, sums.latents, counts, sums.latent_squares, options
    )
    compactness = (sums.latent_squares + squares).clamp_min(0) / number
    held_classes, squares = _move_by_sums(
        class_centers, sums.classes, sums.counts, sums.class_squares, options
    )
    distribution = (sums.class_squares + squares).clamp_min(0) / samples
    deviation = sums.shares / number - 1 / m
    # The balance loss of an empty batch is 0.
    balance = deviation.abs().sum() * (sums.number > 0)
    mass = torch.where(sums.mass > 0, sums.mass, torch.inf)
    classification = sums.entropy / mass
    l1, l2, l3 = options.lambdas
    total = classification + l1 * compactness + l2 * balance + l3 * distribution
    terms = (total, classification, compactness, balance, distribution)
    offsets = _offsets(intra_weights, hot, held_classes, counted)
    numbers = (each.to(dtype) for each in (mass, samples, number))
    saved = Saved(residual, held, deviation.to(dtype), offsets, *numbers)
    return Terms(*(term.to(dtype) for term in terms)), saved


def _offsets(intra_weights: Tensor, hot: Tensor, centers: Tensor, counted: Tensor | None) -> Tensor:
    """Return the offsets of Intra-W from the class's center, 0 for ignored samples."""
    offsets = intra_weights.addmm(hot, centers)
    return offsets if counted is None else offsets.mul_(counted)


def _move_by_sums(
    centers: Centers, sums: Tensor, counts: Tensor, before_squares: Tensor, options: Options
) -> tuple[Tensor, Tensor]:
    r"""Return the centers to compare a batch with, and what initializing them adds to the squares.

    With v the centers before, h the initialized centers, and S and n the sums and the counts, it is
    :math:`\sum \lVert x - h \rVert^2 - \sum \lVert x - v \rVert^2
    = n \lVert h - v \rVert^2 - 2 (h - v) (S - n v)`. Then update the centers, equally on all ranks,
    unless the squares or the sums are not finite.
    """
    before, n = widest(centers.value), counts.unsqueeze(1)
    mean = sums / n.clamp_min(1)
    starts = ((counts > 0) & ~centers.seen).unsqueeze(1)
    held = torch.where(starts, mean.to(centers.value.dtype), centers.value)
    start = widest(held) - before
    squares = (start * (n * start - 2 * (sums - n * before))).sum()
    rate = options.rate * n / (1 + n) if options.rule == "alpha" else options.rate * (n > 0)
    moved = torch.lerp(widest(held), mean, rate.to(mean.dtype))
    finite = before_squares.isfinite() & sums.isfinite().all()
    centers.value.copy_(torch.where(finite, moved, before))
    centers.seen.logical_or_((counts > 0) & finite)
    return held, squares
