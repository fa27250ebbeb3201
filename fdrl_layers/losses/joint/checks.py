"""Checks of the joint loss's options and of a batch."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from fdrl_layers._checks import check_device, check_floating, check_number, check_shape
from fdrl_layers.head import FDRLOutput
from fdrl_layers.losses._targets import check_target


def check_numbers(weights: tuple[float, float, float], label_smoothing: float) -> None:
    """Raise unless the weights of the terms and the smoothing are in their ranges."""
    for name, weight in zip(("compactness", "balance", "distribution"), weights, strict=True):
        check_number(f"lambda_{name}", weight, 0)
    check_number("label_smoothing", label_smoothing, 0, 1)


def check_classification(
    classification: Callable[..., Any] | None, weight: Tensor | None, label_smoothing: float
) -> None:
    """Raise unless `classification` is callable and the cross-entropy's own options are unset."""
    if classification is None:
        return
    if not callable(classification):
        raise TypeError(f"`classification` must be callable, got {type(classification).__name__}")
    for name, given in (("weight", weight is not None), ("label_smoothing", label_smoothing != 0)):
        if given:
            raise ValueError(
                f"`{name}` is of the cross-entropy, whose place `classification` takes: "
                "give only one of them"
            )


def check_batch(
    output: FDRLOutput,
    target: Tensor,
    num_classes: int | None,
    latent_centers: Tensor | None,
    class_centers: Tensor | None,
    ignore_index: int,
) -> bool:
    """Raise unless all fit each other, before any center is updated.

    Return whether every sample is known to count. A user's own term may have no centers.
    """
    if not isinstance(output, FDRLOutput):
        raise TypeError(f"`output` must be an FDRLOutput, got {type(output).__name__}")
    logits = output.logits
    if not _fits(output, num_classes, latent_centers, class_centers):
        _check_each(output, num_classes, latent_centers, class_centers)
    n, k = logits.shape
    all_counted = check_target(target, n, k, ignore_index)
    check_device("target", target, "output.logits", logits)
    return all_counted


def _fits(
    output: FDRLOutput,
    num_classes: int | None,
    latent_centers: Tensor | None,
    class_centers: Tensor | None,
) -> bool:
    """Return whether the common case fits, by a fast check; otherwise `_check_each` decides."""
    logits, latents, weights = output.logits, output.latents, output.intra_weights
    given = (logits, latents, weights, latent_centers, class_centers)
    for each in given:
        if not isinstance(each, Tensor) or not each.is_floating_point():
            return False
        if each.device != logits.device:
            return False
    assert latent_centers is not None
    assert class_centers is not None
    k, m = class_centers.shape if class_centers.ndim == 2 else (-1, -1)
    shape = latents.shape
    return (
        latents.ndim == 3
        and latent_centers.shape == shape[1:]
        and shape[1] == m
        and weights.shape == shape[:2]
        and logits.shape == (shape[0], k)
        and (num_classes is None or num_classes == k)
    )


def _check_each(
    output: FDRLOutput,
    num_classes: int | None,
    latent_centers: Tensor | None,
    class_centers: Tensor | None,
) -> None:
    """Raise unless all fit each other."""
    for name, centers, axes in (
        ("latent_centers", latent_centers, "M D"),
        ("class_centers", class_centers, "K M"),
    ):
        if centers is not None:
            check_floating(name, centers)
            check_shape(name, centers, axes)
    sizes = {} if num_classes is None else {"K": num_classes}
    if class_centers is not None:
        sizes["K"], sizes["M"] = class_centers.shape
    if latent_centers is not None:
        sizes["D"] = latent_centers.shape[1]
    logits = output.logits
    for name, tensor, axes in (
        ("output.logits", logits, "N K"),
        ("latent_centers", latent_centers, "M D"),
        ("output.latents", output.latents, "N M D"),
        ("output.intra_weights", output.intra_weights, "N M"),
    ):
        if tensor is not None:
            check_floating(name, tensor)
            known = {axis: sizes[axis] for axis in axes.split() if axis in sizes}
            check_shape(name, tensor, axes, **known)
            check_device(name, tensor, "output.logits", logits)
            if len(known) < tensor.ndim:
                sizes |= zip(axes.split(), tensor.shape, strict=True)
    if class_centers is not None:
        check_device("class_centers", class_centers, "output.logits", logits)
