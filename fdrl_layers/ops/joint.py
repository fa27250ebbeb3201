"""The joint loss's operator in training: the choice of a form, and its derivatives."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fdrl_layers._precision import widen, widened
from fdrl_layers._ranks import sum_over_ranks
from fdrl_layers.ops.backend import (
    Backend,
    BackendChoice,
    choose,
    log_once,
    obstacle_to_triton,
    plain,
    without_autocast,
)
from fdrl_layers.ops.eager import joint as eager, joint_over_ranks
from fdrl_layers.ops.eager.joint import Centers, Features, Options, Terms

__all__ = ["Centers", "Features", "Options", "Terms", "backend_choice", "by_hand", "joint"]


def joint(
    features: Features,
    target: Tensor,
    latent_centers: Centers,
    class_centers: Centers,
    options: Options,
    *,
    weight: Tensor | None = None,
    complete: Callable[[], bool] = lambda: False,
    backend: Backend = "auto",
) -> Terms:
    """Compute the joint loss of a training batch of class indices; update the centers.

    Class weights `weight` (K,) are those of the cross-entropy. `complete` returns whether all
    centers are known to have received data; kernels do not use it. The batch may be empty only if
    batches are joined over ranks.
    """
    choice = backend_choice(features, backend)
    log_once("FDRLLoss", choice)
    if choice.name == "torch" and complete():
        options = options._replace(complete=True)
    with without_autocast(target.device.type):
        terms = _Joint.apply(
            choice.name, latent_centers, class_centers, options, target, weight, *features
        )
    return Terms(*terms)


def backend_choice(features: Features, backend: Backend) -> BackendChoice:
    """Return the backend that runs for a batch, and why no faster one does."""
    logits, latents, intra_weights = features
    if torch.compiler.is_compiling():
        obstacle: str | None = "its kernels move centers, which a compiler does as well"
    elif logits.shape[1] > 1024:
        obstacle = f"its kernels know up to 1024 classes, not {logits.shape[1]}"
    elif logits.dtype != latents.dtype or intra_weights.dtype != torch.float32:
        obstacle = "its kernels want logits and latents of one type, and Intra-W in float32"
    else:
        obstacle = obstacle_to_triton([latents], latents.shape[1], latents.shape[2])
    return choose("FDRLLoss", backend, obstacle)


def by_hand(
    features: Features,
    target: Tensor,
    centers: Sequence[Tensor],
    *,
    weight: Tensor | None = None,
    ranks: bool = False,
) -> bool:
    """Return whether :func:`joint` supports this batch; if not, the single losses do.

    With `ranks` the result must not depend on properties that differ between ranks, such as size.
    """
    if torch.compiler.is_compiling():
        return False
    if target.is_floating_point() or (target.shape[0] == 0 and not ranks):
        return False
    dtype = features.intra_weights.dtype
    for center in centers:
        if center.dtype != dtype:
            return False
    for feature in features:
        if widened(feature.dtype) != dtype:
            return False
    return plain([*features, target, *centers, weight])


class _Joint(torch.autograd.Function):
    """A form with its own backward, which can be differentiated once more."""

    @staticmethod
    def forward(
        ctx: Any,
        form: str,
        latent_centers: Centers,
        class_centers: Centers,
        options: Options,
        target: Tensor,
        weight: Tensor | None,
        *features: Tensor,
    ) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.form, ctx.options = form, options
        by_eager = joint_over_ranks.forward if options.ranks else eager.forward
        forward = _triton_forward if form == "triton" else by_eager
        seen = Features(*features)
        if weight is not None:
            weight = weight.to(seen.intra_weights.dtype)
        terms, saved = forward(seen, target, latent_centers, class_centers, options, weight)
        # Numbers of samples are tensors only if the host does not know them.
        ctx.numbers = tuple(each for each in saved if not isinstance(each, Tensor))
        tensors = saved[: len(saved) - len(ctx.numbers)]
        ctx.save_for_backward(target, weight, *features, *tensors)
        return tuple(terms)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        target, weight, *rest = ctx.saved_tensors
        features = Features(*rest[:3])
        saved = (*rest[3:], *ctx.numbers)
        options, needs = ctx.options, ctx.needs_input_grad[6:]
        if options.ranks:
            gradients = _over_ranks(gradients, features.intra_weights)
        with without_autocast(target.device.type):
            if ctx.form == "triton" and not torch.is_grad_enabled():
                found = _triton_backward(gradients, features, target, weight, saved, options, needs)
            else:
                view = _triton_saved if ctx.form == "triton" else _eager_saved
                seen = view(features, target, weight, saved, options)
                found = eager.backward(gradients, features, seen, options, needs)
        return (None, None, None, None, None, None, *found)


def _over_ranks(gradients: Sequence[Tensor | None], like: Tensor) -> tuple[Tensor, ...]:
    """Sum the scalars' gradients over ranks, as each rank's features enter every rank's loss."""
    nothing = like.new_zeros(())
    return sum_over_ranks(
        torch.stack([nothing if each is None else each for each in gradients])
    ).unbind()


def _shares(index: Tensor, num_classes: int, weight: Tensor | None, smoothing: float) -> Tensor:
    """Return the smoothed and weighted targets (N, K) of class indices."""
    share = F.one_hot(index, num_classes) * (1 - smoothing) + smoothing / num_classes
    return share if weight is None else share * weight


def _eager_saved(
    features: Features,
    target: Tensor,
    weight: Tensor | None,
    tensors: Sequence[Any],
    options: Options,
) -> eager.Saved:
    """Return what `eager` saved; for a second derivative, as functions of the features."""
    saved = eager.Saved(*tensors)
    if not torch.is_grad_enabled():
        return saved
    counted = (target != options.ignore_index).unsqueeze(1)
    probability = torch.softmax(widen(features.logits), 1)
    change = probability - probability.detach()
    if weight is not None:
        index = torch.where(counted, target.unsqueeze(1), 0).squeeze(1)
        shares = _shares(index, len(weight), weight, options.label_smoothing)
        change = change * shares.sum(1, keepdim=True)
    residual = saved.residual + torch.where(counted, change, 0)
    offsets = saved.offsets + torch.where(
        counted, features.intra_weights - features.intra_weights.detach(), 0
    )
    return saved._replace(residual=residual, offsets=offsets)


def _triton_saved(
    features: Features,
    target: Tensor,
    weight: Tensor | None,
    tensors: Sequence[Tensor],
    options: Options,
) -> eager.Saved:
    """Return what the kernels saved, in the form that `eager` needs for a second derivative."""
    from fdrl_layers.ops.triton.joint import parts_of_state

    m, d = features.latents.shape[1:]
    latent_centers, class_centers, mean, mass, samples, number = parts_of_state(tensors[0], m, d)
    counted = target != options.ignore_index
    index = torch.where(counted, target, 0)
    num_classes = features.logits.shape[1]
    shares = _shares(index, num_classes, weight, options.label_smoothing)
    probability = torch.softmax(widen(features.logits), 1)
    residual = probability * shares.sum(1, keepdim=True) - shares
    offsets = features.intra_weights - class_centers.index_select(0, index)
    return eager.Saved(
        torch.where(counted.unsqueeze(1), residual, 0),
        latent_centers,
        mean - 1 / mean.shape[0],
        torch.where(counted.unsqueeze(1), offsets, 0),
        mass,
        samples,
        number,
    )


def _triton_forward(
    features: Features,
    target: Tensor,
    latent_centers: Centers,
    class_centers: Centers,
    options: Options,
    weight: Tensor | None,
) -> tuple[Terms, tuple[Tensor, ...]]:
    from fdrl_layers.ops.triton import joint as kernels

    found = kernels.forward(
        *features,
        target,
        *latent_centers,
        *class_centers,
        options.rule,
        options.rate,
        options.lambdas,
        options.label_smoothing,
        options.ignore_index,
        options.ranks,
        weight,
    )
    return Terms(*found[:5]), found[5:]


def _triton_backward(
    gradients: tuple[Tensor | None, ...],
    features: Features,
    target: Tensor,
    weight: Tensor | None,
    saved: Sequence[Tensor],
    options: Options,
    needs: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:
    from fdrl_layers.ops.triton import joint as kernels

    found = kernels.backward(
        gradients,
        *features,
        target,
        saved[0],
        options.lambdas,
        options.label_smoothing,
        options.ignore_index,
        weight,
    )
    return tuple(each if need else None for each, need in zip(found, needs, strict=True))
