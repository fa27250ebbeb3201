"""The head as operators of torch.library, so that compilers and graphs can hold its kernels.

The implementation is Triton's where it can run, and otherwise the passes by hand.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from fdrl_layers._precision import widen
from fdrl_layers.ops.backend import obstacle_to_triton
from fdrl_layers.ops.eager import head as eager
from fdrl_layers.ops.eager.relations import Options
from fdrl_layers.ops.reference.head import HeadParameters, Reduction


class TritonHead(eager.Head):
    """Triton's kernels, imported when first called; the second derivative is the same."""

    def forward(
        self, tensors: Sequence[Tensor | None], options: Options, keep: bool
    ) -> tuple[Sequence[Tensor], Sequence[Tensor | None]]:
        """Return the head's output, and latents, Intra-W, distances and the product."""
        from fdrl_layers.ops.triton import head

        input, *rest = tensors
        kernel: Any = head.forward
        given = (input, HeadParameters._make(rest), options.delta, options.reduction, keep)
        *outputs, distances, product = kernel(*given)
        return outputs, (outputs[2], outputs[3], distances, product)

    def backward(
        self,
        gradients: Sequence[Tensor | None],
        tensors: Sequence[Tensor | None],
        saved: Sequence[Tensor | None],
        options: Options,
        needs: Sequence[bool],
    ) -> Sequence[Tensor | None]:
        """Return the gradients of the input and the parameters from those of the outputs."""
        from fdrl_layers.ops.triton import head

        input, *rest = tensors
        kernel: Any = head.backward
        parameters, given = HeadParameters._make(rest), (options.delta, options.reduction, needs)
        found: Sequence[Tensor | None] = kernel(gradients, input, parameters, saved, *given)
        return found


EAGER = eager.Head()
TRITON = TritonHead()


def _form(input: Tensor, decomposition_weight: Tensor) -> eager.Head:
    m, d, _ = decomposition_weight.shape
    return EAGER if obstacle_to_triton([input], m, d) else TRITON


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
    tensors = (
        input,
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
    output, saved = form.forward(tensors, Options(delta, cast(Reduction, reduction)), keep)
    distances, product = saved[-2:]
    assert distances is not None
    if form is EAGER:
        product = _to_rows(product, input)
    assert product is not None
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
    weight = parameters[0]
    assert weight is not None
    form = _form(input, weight)
    saved: Sequence[Tensor | None] = (latents, intra_weights, distances, product)
    if form is EAGER:
        sums = distances.tanh().sum(-1)
        saved = eager.Saved(latents, intra_weights, sums, distances, _to_stacks(product))
    tensors = (input, *parameters)
    found = form.backward(
        gradients, tensors, saved, Options(delta, cast(Reduction, reduction)), needs
    )
    result = []
    for each, need, value in zip(found, needs, (input, *parameters), strict=True):
        if value is None or not need:
            result.append(input.new_empty(0))
        elif each is None:
            result.append(torch.zeros_like(value, memory_format=torch.contiguous_format))
        else:
            # An operator's results may share no storage, as biases do that were summed at once.
            result.append(each.clone() if form is EAGER else each)
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
