"""The head's operator: the choice of a form, and its derivatives."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fdrl_layers.ops import library
from fdrl_layers.ops.backend import (
    Backend,
    BackendChoice,
    choose,
    log_once,
    obstacle_to_triton,
    plain,
    without_autocast,
    working_dtype,
)
from fdrl_layers.ops.eager import head as eager
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

    With `recompute` training saves the latents alone, and backward does their products again.
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
        form = library.triton_form if choice.name == "triton" else eager
        with without_autocast(input.device.type):
            found = _Head.apply(form, delta, reduction, recompute, flat, *parameters)
    if len(lead) == 1:
        return HeadOutput(*found)
    return HeadOutput(*(each.unflatten(0, lead) if lead else each.squeeze(0) for each in found))


def backend_choice(
    input: Tensor,
    parameters: HeadParameters,
    backend: Backend,
    self_feature: SelfFeature = "intra",
) -> BackendChoice:
    """Say what runs for this input, and why nothing faster does."""
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


class _Head(torch.autograd.Function):
    """A form with its own backward; the second derivative is that of the reference."""

    @staticmethod
    def forward(
        ctx: Any,
        form: Any,
        delta: float,
        reduction: Reduction,
        recompute: bool,
        input: Tensor,
        *parameters: Tensor | None,
    ) -> tuple[Tensor, ...]:
        ctx.form, ctx.delta, ctx.reduction = form, delta, reduction
        ctx.set_materialize_grads(False)
        keep = not recompute and any(ctx.needs_input_grad)
        stacked = HeadParameters._make(parameters)
        output, saved = form.forward(input, stacked, delta, reduction, keep)
        ctx.save_for_backward(input, *parameters, *saved)
        return tuple(output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        input, *rest = ctx.saved_tensors
        parameters, saved = HeadParameters._make(rest[:8]), ctx.form.Saved(*rest[8:])
        needs = ctx.needs_input_grad[4:]
        with without_autocast(input.device.type):
            if torch.is_grad_enabled():
                found = _differentiable(
                    gradients, [input, *parameters], needs, ctx.delta, ctx.reduction
                )
            else:
                found = ctx.form.backward(
                    gradients, input, parameters, saved, ctx.delta, ctx.reduction, needs
                )
        return (None, None, None, None, *found)


def _differentiable(
    gradients: Sequence[Tensor | None],
    inputs: Sequence[Tensor | None],
    needs: Sequence[bool],
    delta: float,
    reduction: Reduction,
) -> tuple[Tensor | None, ...]:
    """Return the gradients of the input and the parameters, with a graph of their own."""
    # Through aliases, so that an input which was made of another is not counted twice.
    twins = [None if each is None else each.view_as(each) for each in inputs]
    input, *parameters = twins
    assert input is not None
    output = reference(
        input, eager.cast(HeadParameters._make(parameters), input.dtype), delta, reduction
    )
    pairs = [
        (value, gradient)
        for value, gradient in zip(output, gradients, strict=True)
        if value is not None and gradient is not None
    ]
    wanted = [twin for twin, need in zip(twins, needs, strict=True) if need and twin is not None]
    found = iter(
        torch.autograd.grad(
            [value for value, _ in pairs],
            wanted,
            [gradient for _, gradient in pairs],
            create_graph=True,
            allow_unused=True,
        )
    )
    return tuple(
        next(found) if need and twin is not None else None
        for twin, need in zip(twins, needs, strict=True)
    )
