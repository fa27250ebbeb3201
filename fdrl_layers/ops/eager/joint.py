r"""Hand-written passes of the joint loss (equations 2, 5, 6, 13): a third of autograd's kernels.

They are for training on class indices with centers that are buffers. With logits z, Intra-W w,
centers c of latents and v of classes, and :math:`\lambda` the weights times the upstream gradient,

.. math::
    \bar z_i = \tfrac{1}{n} (\mathrm{softmax}(z_i) - p_i), \quad
    \bar l_{ij} = \tfrac{2 \lambda_1}{N} (l_{ij} - c_j), \quad
    \bar w_i = \tfrac{\lambda_2}{N} \mathrm{sign}(\bar w - \tfrac1M)
        + \tfrac{2 \lambda_3}{n} (w_i - v_{t_i})

with p the one-hot or smoothed target and n the number of samples that are not ignored. With class
weights, the cross-entropy's p is weighted, softmax(z) is multiplied by the sum of this p, and its n
is the sum of the samples' weights.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from fdrl_layers._precision import widen

Next = Callable[..., Tensor]
"""Returns the centers after a step, in `out` if it is given."""

SUM = 2
"""ATen's number of the reduction "sum"."""


class Features(NamedTuple):
    """The parts of a head's output that the joint loss reads."""

    logits: Tensor
    latents: Tensor
    intra_weights: Tensor


class Terms(NamedTuple):
    """The joint loss and its terms, in the order of ``FDRLLossOutput``."""

    total: Tensor
    classification: Tensor
    compactness: Tensor
    balance: Tensor
    distribution: Tensor


class Options(NamedTuple):
    """Options of the terms and of the update of the centers.

    `all_counted` (no target is `ignore_index`) and `complete` (all centers have received data) are
    True only if this is known without waiting for a device. With `ranks` the batch is the joined
    batch of all ranks, of which each rank gives its own part.
    """

    rule: Literal["alpha", "ema", "gradient"]
    rate: float
    lambdas: tuple[float, float, float]
    label_smoothing: float
    ignore_index: int
    all_counted: bool
    complete: bool
    ranks: bool = False


class Centers(NamedTuple):
    """Centers (C, F) and which of them have received data (C,); both are updated in place."""

    value: Tensor
    seen: Tensor


class Saved(NamedTuple):
    """What backward reads in addition to the latents.

    Attributes:
        residual: Class probabilities minus target (N, K).
        latent_centers: The centers that the batch was compared with (M, D).
        deviation: Deviation of the batch's mean Intra-W from uniform (M,).
        offsets: Offsets of Intra-W from the class's center (N, M), 0 for ignored samples.
        mass: Sum of the samples' class weights, infinite if it is 0; without weights, `samples`.
        samples: Number of samples that are not ignored, at least 1.
        number: Number of samples, at least 1.
    """

    residual: Tensor
    latent_centers: Tensor
    deviation: Tensor
    offsets: Tensor
    mass: Tensor | int
    samples: Tensor | int
    number: Tensor | int


def forward(
    features: Features,
    target: Tensor,
    latent_centers: Centers,
    class_centers: Centers,
    options: Options,
    weight: Tensor | None,
) -> tuple[Terms, Saved]:
    """Return the joint loss of a batch and what backward needs; update the centers."""
    intra_weights = features.intra_weights
    n, m = intra_weights.shape
    logits, latents = widen(features.logits), widen(features.latents)
    sums = torch.empty(4, dtype=intra_weights.dtype, device=intra_weights.device)
    classification, distribution, compactness, balance = sums
    hot, counted, samples = one_hot(logits, target, options)
    share, mass = shares(hot, counted, weight, options.label_smoothing)
    residual = cross_entropy(logits, share, classification)
    held, moved_latents = _next_latent_centers(latents, latent_centers, options)
    squared = torch.ops.aten.mse_loss(latents, held.expand_as(latents), SUM)
    torch.mul(squared, 1 / n, out=compactness)
    deviation = intra_weights.mean(0).sub_(1 / m)
    torch.linalg.vector_norm(deviation, 1, out=balance)
    offsets, count, moved_classes = _next_class_centers(intra_weights, hot, class_centers, options)
    if counted is not None:
        offsets.mul_(counted)
    flat = offsets.flatten()
    torch.dot(flat, flat, out=distribution)
    finite = _finite(sums)
    _move(latent_centers, moved_latents, finite[2], None, options)
    _move(class_centers, moved_classes, finite[1], count, options)
    divisor: Tensor | int = samples
    if mass is None:
        sums[:2].div_(samples)
    else:
        divisor = torch.where(mass > 0, mass, torch.inf)
        classification.div_(divisor)
        distribution.div_(samples)
    total = _weighted_sum(sums, options.lambdas)
    saved = Saved(residual, held, deviation, offsets, divisor, samples, n)
    return Terms(total, classification, compactness, balance, distribution), saved


def minus_one_hot(like: Tensor, target: Tensor, ignore_index: int) -> Tensor:
    """Return minus the one-hot targets, of the shape (N, K) and type of `like`, in one operator.

    The row of an ignored sample is 0.
    """
    one = like.new_ones(())
    hot: Tensor = torch.ops.aten.nll_loss_backward(one, like, target, None, SUM, ignore_index, one)
    return hot


def one_hot(
    logits: Tensor, target: Tensor, options: Options
) -> tuple[Tensor, Tensor | None, Tensor | int]:
    """Return minus the one-hot targets (N, K), which samples count (N, 1), and their number.

    An ignored sample has a row of 0. None means that all samples count.
    """
    ignore = options.ignore_index
    hot = minus_one_hot(logits, target, ignore)
    if options.all_counted:
        return hot, None, target.shape[0]
    counted = (target != ignore).unsqueeze(1)
    return hot, counted, counted.sum().clamp_min_(1)


def shares(
    hot: Tensor, counted: Tensor | None, weight: Tensor | None, smoothing: float
) -> tuple[Tensor, Tensor | None]:
    """Return minus the smoothed and weighted targets (N, K), and the sum of the samples' weights.

    None means that there are no weights. A sample's weight is that of its class only.
    """
    mass = None
    if weight is not None:
        hot = hot * weight
        mass = -hot.sum()
    if smoothing:
        spread = smoothing / hot.shape[1]
        share: Tensor | float = spread if weight is None else weight * spread
        if counted is not None:
            share = counted.to(hot.dtype) * share
        hot = hot * (1 - smoothing) - share
    return hot, mass


def cross_entropy(logits: Tensor, share: Tensor, out: Tensor) -> Tensor:
    """Write the sum of cross-entropies to `out`; return its gradient with respect to the logits."""
    logp = torch.log_softmax(logits, 1)
    torch.dot(share.flatten(), logp.flatten(), out=out)
    residual: Tensor = torch.ops.aten._log_softmax_backward_data(share, logp, 1, logp.dtype)
    return residual


def _weighted_sum(sums: Tensor, lambdas: tuple[float, float, float]) -> Tensor:
    """Return the weighted sum of classification, distribution, compactness and balance."""
    l1, l2, l3 = lambdas
    if sums.device.type == "cpu":
        total: Tensor = torch.dot(sums, _constant((1.0, l3, l1, l2), sums.dtype, sums.device))
        return total
    # A tensor of weights would be copied from the host, and a CUDA graph would outlive the cache.
    classification, distribution, compactness, balance = sums
    weighted: Tensor = classification + l1 * compactness + l2 * balance + l3 * distribution
    return weighted


@functools.lru_cache(maxsize=16)
def _constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=dtype, device=device)


def _next_latent_centers(
    latents: Tensor, centers: Centers, options: Options
) -> tuple[Tensor, Next]:
    """Return the centers to compare the batch with, and a function that returns the next ones."""
    mean, n = latents.mean(0), latents.shape[0]
    if options.complete:
        held = centers.value.clone()
    else:
        held = torch.where(centers.seen.unsqueeze(1), centers.value, mean)
    # Wen et al.'s step, (n c - sum) / (1 + n), is a step towards the mean by n / (1 + n).
    rate = options.rate * n / (1 + n) if options.rule == "alpha" else options.rate
    return held, functools.partial(torch.lerp, held, mean, rate)


def _next_class_centers(
    intra_weights: Tensor, hot: Tensor, centers: Centers, options: Options
) -> tuple[Tensor, Tensor, Next]:
    """Return the offsets of Intra-W from the class centers, minus the counts, and the update.

    The update is a function that returns the centers after a step towards the mean of each class.
    `hot` is minus one-hot, so the counts and the sums are negative.
    """
    held = centers.value
    count, sums = hot.sum(0).unsqueeze(1), hot.mT @ intra_weights
    if not options.complete:
        held = torch.where(centers.seen.unsqueeze(1), held, sums / count.clamp_max(-1))
    offsets = intra_weights.addmm(hot, held)
    if options.rule == "alpha":
        step = torch.addcmul(sums, count, held, value=-1)
        moved = functools.partial(torch.addcdiv, held, step, 1 - count, value=-options.rate)
        return offsets, count, moved
    rate = (count < 0).to(sums.dtype) * options.rate
    return offsets, count, functools.partial(torch.lerp, held, sums / count.clamp_max(-1), rate)


def _finite(sums: Tensor) -> Sequence[Tensor | bool]:
    """Return which sums are finite, as Python values if the host need not wait for them."""
    if _readable(sums):
        return [math.isfinite(each) for each in sums.tolist()]
    return torch.eq(sums - sums, 0).unbind()


def _readable(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu"


def _move(
    centers: Centers,
    moved: Next,
    finite: Tensor | bool,
    count: Tensor | None,
    options: Options,
) -> None:
    """Update the centers, unless the batch's sum of squares is not finite."""
    if finite is False:
        return
    if finite is True:
        moved(out=centers.value)
    else:
        torch.where(finite, moved(), centers.value, out=centers.value)
    if not options.complete:
        met = finite if count is None else (count.squeeze(1) < 0) & finite
        centers.seen.logical_or_(met) if isinstance(met, Tensor) else centers.seen.fill_(True)


def backward(
    gradients: tuple[Tensor | None, ...],
    features: Features,
    saved: Saved,
    options: Options,
    needs: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:
    """Return the gradients of logits, latents and Intra-W from those of :class:`Terms`."""
    n, samples, (l1, l2, l3) = saved.number, saved.samples, options.lambdas
    total, classification, compactness, balance, distribution = gradients
    grad_logits = grad_latents = grad_intra = None
    if needs[0] and (scale := _weigh(total, 1.0, classification, saved.mass)) is not None:
        grad_logits = (saved.residual * scale).to(features.logits.dtype)
    if needs[1] and (scale := _weigh(total, l1, compactness, n)) is not None:
        wide = widen(features.latents)
        held = saved.latent_centers.expand_as(wide)
        grad = torch.ops.aten.mse_loss_backward(scale, wide, held, SUM)
        grad_latents = grad.to(features.latents.dtype)
    if needs[2]:
        scale = _weigh(total, 2 * l3, distribution, samples, 2.0)
        grad_intra = None if scale is None else saved.offsets * scale
        size = len(features.intra_weights)
        grad_intra = _add_balance(grad_intra, saved.deviation.sign(), total, l2, balance, n, size)
    return grad_logits, grad_latents, grad_intra


def _add_balance(
    grad: Tensor | None,
    signs: Tensor,
    total: Tensor | None,
    weight: float,
    term: Tensor | None,
    n: Tensor | int,
    size: int,
) -> Tensor | None:
    """Add the gradient of the balance loss to that of the distribution loss; either may be None.

    The mean is over n samples, of which this rank has `size`.
    """
    if total is None or term is None:
        term, weight = (term, 1.0) if total is None else (total, weight)
    else:
        term, weight = total * weight + term, 1.0
    if term is None:
        return grad
    if isinstance(n, Tensor):
        term, n = term / n, 1
    if grad is None:
        return (signs * (term * (weight / n))).expand(size, -1)
    return torch.addcmul(grad, signs, term, value=weight / n)


def _weigh(
    total: Tensor | None,
    weight: float,
    term: Tensor | None,
    samples: Tensor | int,
    factor: float = 1.0,
) -> Tensor | None:
    """Return the gradient of a sum over samples, from those of the joint loss and of its mean."""
    if total is None:
        return None if term is None else term * factor / samples
    if term is not None:
        return (total * weight + term * factor) / samples
    return total * (weight / samples) if isinstance(samples, int) else total * weight / samples
