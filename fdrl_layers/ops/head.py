"""The head's operator: the choice of a form."""

import torch
from torch import Tensor

from fdrl_layers.ops import by_hand, library
from fdrl_layers.ops.backend import (
    Backend,
    BackendChoice,
    choose,
    log_once,
    obstacle_to_triton,
    plain,
    working_dtype,
)
from fdrl_layers.ops.eager.relations import Options
from fdrl_layers.ops.reference.head import (
    HeadOutput,
    HeadParameters,
    Reduction,
    SelfFeature,
    reference,
)


def head(
    input: Tensor,
    parameters: HeadParameters,
    delta: float,
    reduction: Reduction,
    self_feature: SelfFeature = "intra",
    *,
    backend: Backend = "auto",
    recompute: bool = False,
) -> HeadOutput:
    """Compute the head of basic features (*, P) by the form that `backend` names.

    With `recompute`, training saves only the latents, and backward repeats their products.
    """
    choice = backend_choice(input, parameters, backend, self_feature)
    if not torch.compiler.is_compiling():
        log_once("FDRLHead", choice)
    if choice.name == "torch" and not _by_hand(input, parameters, self_feature):
        return reference(input, parameters, delta, reduction, self_feature)
    lead = input.shape[:-1]
    flat = input if len(lead) == 1 else input.reshape(-1, input.shape[-1])
    flat = flat.to(working_dtype(input))
    if choice.name == "triton" and torch.compiler.is_compiling():
        found = library.head(flat, *parameters, delta, reduction, not recompute)[:5]
    else:
        form = library.TRITON if choice.name == "triton" else library.EAGER
        options = Options(delta, reduction)
        found = by_hand.apply(form, options, (flat, *parameters), keep=not recompute)
    if len(lead) == 1:
        return HeadOutput(*found)
    return HeadOutput(*(each.unflatten(0, lead) if lead else each.squeeze(0) for each in found))


def backend_choice(
    input: Tensor,
    parameters: HeadParameters,
    backend: Backend,
    self_feature: SelfFeature = "intra",
) -> BackendChoice:
    """Return the backend that runs for this input, and why no faster one does."""
    weight = parameters.decomposition_weight
    if parameters.intra_weight is None or parameters.inter_weight is None:
        obstacle: str | None = "its kernels have both relations, and the head leaves one out"
    elif self_feature != "intra":
        obstacle = f'its kernels know equation 11 as printed, not self_feature="{self_feature}"'
    else:
        obstacle = obstacle_to_triton([input], weight.shape[0], weight.shape[1])
    return choose("FDRLHead", backend, obstacle)


def _by_hand(input: Tensor, parameters: HeadParameters, self_feature: SelfFeature) -> bool:
    if parameters.intra_weight is None or parameters.inter_weight is None:
        return False
    if self_feature != "intra":
        return False
    return plain([input, *parameters])
