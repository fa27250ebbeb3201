"""The head as operators of torch.library, so that compiled graphs can contain its kernels.

The implementation is Triton's if it can run, and otherwise the hand-written passes.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fdrl_layers._precision import widen
from fdrl_layers.ops.backend import obstacle_to_triton
from fdrl_layers.ops.by_hand import Needs, Tensors
from fdrl_layers.ops.eager import head as eager
from fdrl_layers.ops.eager.relations import Options
from fdrl_layers.ops.reference.head import HeadParameters, Reduction


class TritonHead(eager.Head):
    """Triton's kernels, imported on the first call; the second derivative is that of the base."""

    def forward(
        self, tensors: Tensors, options: Options, keep: bool
    ) -> tuple[Sequence[Tensor], Tensors]:
        """Return the head's output, and latents, Intra-W, distances and the product."""
        from fdrl_layers.ops.triton import head

        input, *rest = tensors
        kernel: Any = head.forward
        given = (input, HeadParameters._make(rest), options.delta, options.reduction, keep)
        *outputs, distances, product = kernel(*given)
        return outputs, (outputs[2], outputs[3], distances, product)

    def backward(
        self, gradients: Tensors, tensors: Tensors, saved: Tensors, options: Options, needs: Needs
    ) -> Tensors:
        """Return the gradients of the input and the parameters from those of the outputs."""
        from fdrl_layers.ops.triton import head

        input, *rest = tensors
        kernel: Any = head.backward
        parameters, given = HeadParameters._make(rest), (options.delta, options.reduction, needs)
        found: Tensors = kernel(gradients, input, parameters, saved, *given)
        return found


EAGER = eager.Head()
TRITON = TritonHead()


def _form(input: Tensor, decomposition_weight: Tensor) -> eager.Head:
    m, d, _ = decomposition_weight.shape
    return EAGER if obstacle_to_triton([input], m, d) else TRITON


# Written out, as torch 2.6 infers no schema for a list with None, and to list them once.
_PARAMETERS = "Tensor decomposition_weight, " + ", ".join(
    f"Tensor? {name}" for name in HeadParameters._fields[1:]
)
_HEAD = (
    f"(Tensor input, {_PARAMETERS}, float delta, str reduction, bool keep) -> "
    "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)
_HEAD_BACKWARD = (
    "(Tensor?[] gradients, Tensor input, Tensor?[] parameters, Tensor latents, "
    "Tensor intra_weights, Tensor distances, Tensor product, float delta, str reduction, "
    "bool[] needs) -> Tensor[]"
)


@torch.library.custom_op("fdrl_layers::head", mutates_args=(), schema=_HEAD)
def head(input: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    """Return logits, embedding, latents, Intra-W, Inter-W, distances and the product to save."""
    *parameters, delta, reduction, keep = rest
    form = _form(input, parameters[0])
    output, saved = form.forward((input, *parameters), Options(delta, reduction), keep)
    distances, product = saved[-2:]
    assert distances is not None
    if form is EAGER:
        product = _to_rows(product, input)
    assert product is not None
    return (*output, distances, product)


def _to_rows(product: Tensor | None, like: Tensor) -> Tensor:
    """Convert the product (2, M, N, D) of `eager` to the kernels' layout (N, M, 2 D)."""
    if product is None:
        return like.new_empty(0)
    return product.permute(2, 1, 0, 3).flatten(2).contiguous()


def _to_stacks(product: Tensor) -> Tensor | None:
    if product.numel() == 0:
        return None
    n, m, width = product.shape
    return product.view(n, m, 2, width // 2).permute(2, 1, 0, 3).contiguous()


@head.register_fake
def _(input: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    parameters, keep = HeadParameters._make(rest[:8]), rest[-1]
    n, (m, d, _) = input.shape[0], parameters.decomposition_weight.shape
    classifier = parameters.classifier_weight
    k = 0 if classifier is None else classifier.shape[0]
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


@torch.library.custom_op("fdrl_layers::head_backward", mutates_args=(), schema=_HEAD_BACKWARD)
def head_backward(
    gradients: list[Tensor | None],
    input: Tensor,
    parameters: list[Tensor | None],
    latents: Tensor,
    intra_weights: Tensor,
    distances: Tensor,
    product: Tensor,
    delta: float,
    reduction: Reduction,
    needs: list[bool],
) -> list[Tensor]:
    """Return the gradients of the input and the parameters; an empty one if none is needed."""
    weight = parameters[0]
    assert weight is not None
    form = _form(input, weight)
    saved: Tensors = (latents, intra_weights, distances, product)
    if form is EAGER:
        sums = distances.tanh().sum(-1)
        saved = eager.Saved(latents, intra_weights, sums, distances, _to_stacks(product))
    tensors = (input, *parameters)
    found = form.backward(gradients, tensors, saved, Options(delta, reduction), needs)
    result = []
    for each, need, value in zip(found, needs, tensors, strict=True):
        if value is None or not need:
            result.append(input.new_empty(0))
        elif each is None:
            result.append(torch.zeros_like(value, memory_format=torch.contiguous_format))
        else:
            # Results of an operator must not share storage, but biases that were summed at once do.
            result.append(each.clone() if form is EAGER else each)
    return result


@head_backward.register_fake
def _(_: Any, input: Tensor, parameters: list[Tensor | None], *rest: Any) -> list[Tensor]:
    return [
        input.new_empty(0)
        if each is None or not need
        else torch.empty_like(each, memory_format=torch.contiguous_format)
        for each, need in zip((input, *parameters), rest[-1], strict=True)
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
    found = head_backward(gradients[:5], input, parameters, *saved, ctx.delta, ctx.reduction, needs)
    inputs = (input, *parameters)
    pairs = zip(inputs, needs, found, strict=True)
    wanted = [grad if need and each is not None else None for each, need, grad in pairs]
    return (*wanted, None, None, None)


head.register_autograd(_backward, setup_context=_setup_context)
