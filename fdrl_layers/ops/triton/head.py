"""Kernels of the head: two launches forward, three and a matrix product backward.

The definition and the meaning of the letters are in `ops/reference/head.py`, the equations of the
backward pass in `ops/eager/relations.py`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from fdrl_layers.ops.reference.head import HeadParameters
from fdrl_layers.ops.triton.branch import branch_backward, branch_forward
from fdrl_layers.ops.triton.parameters import parameter_gradients
from fdrl_layers.ops.triton.plans import plan_launches, plan_sums
from fdrl_layers.ops.triton.relation import relation_backward, relation_forward
from fdrl_layers.ops.triton.tiles import precision

ONE_LAUNCH_LIMIT = 4096
"""Up to this batch size one kernel computes all parameters' gradients; above it, cuBLAS does."""


def forward(
    input: Tensor, parameters: HeadParameters, delta: float, reduction: str, keep: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return logits, embedding, latents, Intra-W, Inter-W, distances and the products to keep."""
    w = parameters
    assert w.intra_weight is not None
    assert w.inter_weight is not None
    (n, p), (m, d, _) = input.shape, w.decomposition_weight.shape
    k = 0 if w.classifier_weight is None else w.classifier_weight.shape[0]
    input = input.contiguous()
    like, device = input.new_empty, input.device
    logits, embedding, latents = like(n, k), like(n, d), like(n, m, d)
    # Intra-W, Inter-W, distances and the sums, which are not needed later, are in float32.
    intra_weights = torch.empty(n, m, device=device, dtype=torch.float32)
    wide = intra_weights.new_empty
    inter_weights, distances = wide(n, m, m), wide(n, m, m)
    product, sums = like(n, m, 2 * d), wide(n, m)
    if n:
        plan = plan_launches(n, m, d, k, input.dtype, reduction, precision(input.dtype))
        branch_forward[plan.branches](
            input,
            w.decomposition_weight.contiguous(),
            _or(w.decomposition_bias, input),
            w.intra_weight.contiguous(),
            _or(w.intra_bias, input),
            w.inter_weight.contiguous(),
            latents,
            product,
            sums,
            n,
            p,
            DECOMPOSE=True,
            HAS_BIAS=w.decomposition_bias is not None,
            HAS_INTRA_BIAS=w.intra_bias is not None,
            KEEP=keep,
            **plan.branch,
        )
        relation_forward[plan.samples](
            latents,
            product,
            _or(w.inter_bias, input),
            sums,
            _or(w.classifier_weight, input),
            _or(w.classifier_bias, input),
            logits,
            embedding,
            intra_weights,
            inter_weights,
            distances,
            n,
            k,
            delta,
            HAS_BIAS=w.inter_bias is not None,
            HAS_CLASSIFIER=w.classifier_weight is not None,
            HAS_CLASSIFIER_BIAS=w.classifier_bias is not None,
            **plan.relation,
        )
    kept = product if keep else like(0)
    return logits, embedding, latents, intra_weights, inter_weights, distances, kept


def _or(tensor: Tensor | None, other: Tensor) -> Tensor:
    """Return `tensor`, or as a placeholder `other`, which the kernel does not read."""
    return other if tensor is None else tensor.contiguous()


def backward(
    gradients: Sequence[Tensor | None],
    input: Tensor,
    parameters: HeadParameters,
    saved: Sequence[Tensor],
    delta: float,
    reduction: str,
    needs: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    """Return the gradients of the input and the eight parameters; None if none is needed."""
    grad_logits, grad_embedding, grad_latents, grad_intra_weights, grad_inter_weights = gradients
    latents, intra_weights, distances, product = saved
    w = parameters
    assert w.intra_weight is not None
    assert w.inter_weight is not None
    n, m, d = latents.shape
    k = 0 if w.classifier_weight is None else w.classifier_weight.shape[0]
    if k == 0:
        grad_logits = None
    if n == 0:
        return tuple(
            torch.zeros_like(each) if need and each is not None else None
            for each, need in zip((input, *parameters), needs, strict=True)
        )
    input = input.contiguous()
    intra_weight, inter_weight = w.intra_weight.contiguous(), w.inter_weight.contiguous()
    products = precision(input.dtype)
    plan = plan_launches(n, m, d, k, input.dtype, reduction, products)
    like, wide = input.new_empty, intra_weights.new_empty
    if product.numel() == 0:
        product = like(n, m, 2 * d)
        branch_forward[plan.branches](
            input,
            w.decomposition_weight,
            input,
            intra_weight,
            _or(w.intra_bias, input),
            inter_weight,
            latents,
            product,
            wide(n, m),
            n,
            input.shape[1],
            DECOMPOSE=False,
            HAS_BIAS=False,
            HAS_INTRA_BIAS=w.intra_bias is not None,
            KEEP=True,
            **plan.branch,
        )
    dp, slope, dy, y = like(n, m, d), wide(n, m), wide(n, d), like(n, d)
    relation_backward[plan.samples](
        logits_gradient := _or(grad_logits, input),
        _or(grad_embedding, input),
        _or(grad_intra_weights, input),
        _or(grad_inter_weights, input),
        latents,
        product,
        _or(w.inter_bias, input),
        _or(w.classifier_weight, input),
        intra_weights,
        distances,
        dp,
        slope,
        dy,
        y,
        n,
        k,
        delta,
        HAS_BIAS=w.inter_bias is not None,
        HAS_GRAD_LOGITS=grad_logits is not None,
        HAS_GRAD_EMBEDDING=grad_embedding is not None,
        HAS_GRAD_INTRA=grad_intra_weights is not None,
        HAS_GRAD_INTER=grad_inter_weights is not None,
        **plan.relation,
    )
    entering, dz = like(n, m, 2 * d), like(n, m, d)
    branch_backward[plan.branches](
        product,
        _or(w.intra_bias, input),
        intra_weight,
        inter_weight,
        latents,
        intra_weights,
        slope,
        dp,
        dy,
        _or(grad_latents, input),
        entering,
        dz,
        n,
        delta,
        HAS_BIAS=w.intra_bias is not None,
        HAS_GRAD=grad_latents is not None,
        **plan.branch,
    )
    found: list[Tensor | None] = [None] * 9
    if needs[0]:
        found[0] = dz.flatten(1) @ w.decomposition_weight.flatten(0, 1).to(input.dtype)
    if any(needs[1:]):
        sources = (input, dz, latents, entering, dp, logits_gradient, y)
        give = _in_one_launch if n <= ONE_LAUNCH_LIMIT else _by_products
        gradients = give(sources, parameters, grad_logits is not None, products)
        for i, gradient in enumerate(gradients, start=1):
            found[i] = gradient if needs[i] else None
    return tuple(found)


Sources = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def _in_one_launch(
    sources: Sources, parameters: HeadParameters, classified: bool, products: str
) -> list[Tensor | None]:
    """Compute the gradients of all parameters by one kernel."""
    input, _, latents, *_, grad_logits, _ = sources
    (n, m, d), p = latents.shape, input.shape[1]
    k = grad_logits.shape[1] if classified else 0
    found: list[Tensor | None] = [
        None if each is None else torch.empty_like(each, memory_format=torch.contiguous_format)
        for each in (parameters if classified else parameters[:6])
    ]
    found += [None] * (len(parameters) - len(found))
    programs, options = plan_sums(m, d, p, k, input.dtype, products)
    parameter_gradients[programs](
        *sources,
        *(input if each is None else each for each in found),
        n,
        p,
        k,
        HAS_DECOMPOSITION_BIAS=found[1] is not None,
        HAS_INTRA_BIAS=found[3] is not None,
        HAS_INTER_BIAS=found[5] is not None,
        HAS_CLASSIFIER_BIAS=found[7] is not None,
        **options,
    )
    return found


def _by_products(
    sources: Sources, parameters: HeadParameters, classified: bool, products: str
) -> list[Tensor | None]:
    """Compute the gradients of all parameters by cuBLAS, for batches that fill the device."""
    input, dz, latents, entering, dp, grad_logits, y = sources
    d = latents.shape[2]
    rows = latents.transpose(0, 1)
    da, dq = (each.transpose(0, 1).mT for each in entering.split(d, 2))
    found: list[Tensor | None] = [
        (dz.flatten(1).t() @ input).view(*latents.shape[1:], -1),
        dz.sum(0, dtype=torch.float32),
        torch.bmm(da, rows),
        da.sum(2, dtype=torch.float32),
        torch.bmm(dq, rows),
        dp.sum(0, dtype=torch.float32),
        grad_logits.t() @ y if classified else None,
        grad_logits.sum(0, dtype=torch.float32) if classified else None,
    ]
    return [
        None if each is None or value is None else each.to(value.dtype)
        for each, value in zip(found, parameters, strict=True)
    ]
