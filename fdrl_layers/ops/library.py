"""The head as operators of torch.library, so that compilers and graphs can hold its kernels.

The implementation is Triton's where it can run, and otherwise the passes by hand.
"""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from fdrl_layers._precision import widen
from fdrl_layers.ops.backend import obstacle_to_triton
from fdrl_layers.ops.eager import head as eager
from fdrl_layers.ops.reference.head import HeadOutput, HeadParameters, Reduction


def _triton_forward(
    input: Tensor, parameters: HeadParameters, delta: float, reduction: Reduction, keep: bool
) -> tuple[HeadOutput, tuple[Tensor, ...]]:
    from fdrl_layers.ops.triton import head

    kernel: Any = head.forward
    *output, distances, product = kernel(input, *parameters, delta, reduction, keep)
    _, _, latents, intra_weights, _ = output
    return HeadOutput._make(output), (latents, intra_weights, distances, product)


def _triton_backward(
    gradients: tuple[Tensor | None, ...],
    input: Tensor,
    parameters: HeadParameters,
    saved: tuple[Tensor, ...],
    delta: float,
    reduction: Reduction,
    needs: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:
    from fdrl_layers.ops.triton import head

    kernel: Any = head.backward
    found = kernel(*gradients, input, *parameters, *saved, delta, reduction, needs)
    return tuple(found)


triton_form = SimpleNamespace(
    forward=_triton_forward, backward=_triton_backward, Saved=lambda *tensors: tensors
)
"""Triton's kernels under the signatures of `ops.eager.head`; imported when first called."""


def _form(input: Tensor, decomposition_weight: Tensor) -> Any:
    m, d, _ = decomposition_weight.shape
    return eager if obstacle_to_triton([input], m, d) else triton_form


@torch.library.custom_op("fdrl_layers::head", mutates_args=())
def head(
    input: Tensor,
    decomposition_weight: Tensor,
    decomposition_bias: Tensor | None,
    intra_weight: Tensor,
    intra_bias: Tensor | None,
    inter_weight: Tensor,
    inter_bias: Tensor | None,
    classifier_weight: Tensor | None,
    classifier_bias: Tensor | None,
    delta: float,
    reduction: str,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return logits, embedding, latents, Intra-W, Inter-W, distances and the product to save."""
    parameters = HeadParameters(
        decomposition_weight,
        decomposition_bias,
        intra_weight,
        intra_bias,
        inter_weight,
        inter_bias,
        classifier_weight,
        classifier_bias,
    )
    form = _form(input, decomposition_weight)
    output, saved = form.forward(input, parameters, delta, reduction, keep)
    if form is eager:
        distances, product = saved.distances, _to_rows(saved.product, input)
    else:
        distances, product = saved[2:]
    logits, embedding, latents, intra_weights, inter_weights = output
    return logits, embedding, latents, intra_weights, inter_weights, distances, product


def _to_rows(product: Tensor | None, like: Tensor) -> Tensor:
    """The kernels' layout (N, M, 2 D) of what the passes by hand keep as (2, M, N, D)."""
    if product is None:
        return like.new_empty(0)
    return product.permute(2, 1, 0, 3).flatten(2).contiguous()


def _to_stacks(product: Tensor) -> Tensor | None:
    if product.numel() == 0:
        return None
    n, m, width = product.shape
    return product.view(n, m, 2, width // 2).permute(2, 1, 0, 3).contiguous()


@head.register_fake
def _(
    input: Tensor,
    decomposition_weight: Tensor,
    decomposition_bias: Tensor | None,
    intra_weight: Tensor,
    intra_bias: Tensor | None,
    inter_weight: Tensor,
    inter_bias: Tensor | None,
    classifier_weight: Tensor | None,
    classifier_bias: Tensor | None,
    delta: float,
    reduction: str,
    keep: bool,
) -> tuple[Tensor, ...]:
    n, (m, d, _) = input.shape[0], decomposition_weight.shape
    k = 0 if classifier_weight is None else classifier_weight.shape[0]
    like, wide = input.new_empty, widen(input.new_empty(0)).new_empty
    return (
        like(n, k),
        like(n, d),
        like(n, m, d),
        wide(n, m),
        wide(n, m, m),
        wide(n, m, m),
        like(n, m, 2 * d) if keep else like(0),
    )


# Spelled out, as torch 2.6 infers none for a list that may hold None.
@torch.library.custom_op(
    "fdrl_layers::head_backward",
    mutates_args=(),
    schema=(
        "(Tensor? grad_logits, Tensor? grad_embedding, Tensor? grad_latents, "
        "Tensor? grad_intra_weights, Tensor? grad_inter_weights, Tensor input, "
        "Tensor?[] parameters, Tensor latents, Tensor intra_weights, Tensor distances, "
        "Tensor product, float delta, str reduction, bool[] needs) -> Tensor[]"
    ),
)
def head_backward(
    grad_logits: Tensor | None,
    grad_embedding: Tensor | None,
    grad_latents: Tensor | None,
    grad_intra_weights: Tensor | None,
    grad_inter_weights: Tensor | None,
    input: Tensor,
    parameters: list[Tensor | None],
    latents: Tensor,
    intra_weights: Tensor,
    distances: Tensor,
    product: Tensor,
    delta: float,
    reduction: str,
    needs: list[bool],
) -> list[Tensor]:
    """Return the gradients of the input and the parameters; an empty one where none is needed."""
    gradients = (grad_logits, grad_embedding, grad_latents, grad_intra_weights, grad_inter_weights)
    stacked = HeadParameters._make(parameters)
    form = _form(input, stacked.decomposition_weight)
    saved: Any = (latents, intra_weights, distances, product)
    if form is eager:
        sums = distances.tanh().sum(-1)
        saved = eager.Saved(latents, intra_weights, sums, distances, _to_stacks(product))
    found = form.backward(gradients, input, stacked, saved, delta, reduction, tuple(needs))
    result = []
    for each, need, value in zip(found, needs, (input, *parameters), strict=True):
        if value is None or not need:
            result.append(input.new_empty(0))
        elif each is None:
            result.append(torch.zeros_like(value, memory_format=torch.contiguous_format))
        else:
            # An operator's results may share no storage, as biases do that were summed at once.
            result.append(each.clone() if form is eager else each)
    return result


@head_backward.register_fake
def _(
    grad_logits: Tensor | None,
    grad_embedding: Tensor | None,
    grad_latents: Tensor | None,
    grad_intra_weights: Tensor | None,
    grad_inter_weights: Tensor | None,
    input: Tensor,
    parameters: list[Tensor | None],
    latents: Tensor,
    intra_weights: Tensor,
    distances: Tensor,
    product: Tensor,
    delta: float,
    reduction: str,
    needs: list[bool],
) -> list[Tensor]:
    inputs = [input, *parameters]
    return [
        input.new_empty(0)
        if each is None or not need
        else torch.empty_like(each, memory_format=torch.contiguous_format)
        for each, need in zip(inputs, needs, strict=True)
    ]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    input, *parameters, delta, reduction, _ = inputs
    _, _, latents, intra_weights, _, distances, product = output
    ctx.delta, ctx.reduction = delta, reduction
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(input, *parameters, latents, intra_weights, distances, product)


def _backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
    input, *rest = ctx.saved_tensors
    parameters, saved = rest[:8], rest[8:]
    needs = list(ctx.needs_input_grad[:9])
    found = head_backward(
        *gradients[:5], input, parameters, *saved, ctx.delta, ctx.reduction, needs
    )
    inputs = (input, *parameters)
    pairs = zip(inputs, needs, found, strict=True)
    wanted = [grad if need and each is not None else None for each, need, grad in pairs]
    return (*wanted, None, None, None)


head.register_autograd(_backward, setup_context=_setup_context)
