r"""Hand-written passes of both relations and their sum: the derivation of equations 3 to 12.

The forward pass is as in :mod:`fdrl_layers.ops.reference.head`. With :math:`\bar v` the gradient of
v, :math:`\beta = 1 - \delta`, and :math:`\langle , \rangle` a product over D, the backward pass is

.. math::
    \bar s_m &= \beta \langle \bar y, g_m \rangle, \qquad
    k_{jm} = (\bar s_j + \bar s_m + \bar\omega_{jm} + \bar\omega_{mj})\,
        \mathrm{sech}^2(d_{jm}) / d_{jm}, \quad k_{jm} = 0 \text{ where } d_{jm} = 0 \\
    \bar g &= \beta\, s \otimes \bar y + (\mathrm{diag}(k 1) - k)\, g, \qquad
    \bar p = \bar g\, [g > 0] \\
    \bar\alpha_j &\mathrel{+}= \delta \langle \bar y, l_j \rangle + \langle \bar p_j, q_j \rangle \\
    \bar l_j &\mathrel{+}= W_{s_j} \bar a_j + W_{e_j} \alpha_j \bar p_j + \delta \alpha_j \bar y

with :math:`q_j = W_{e_j}^T l_j`, :math:`p_j = \alpha_j q_j + b_{e_j}` and :math:`\bar a_j` the
gradient of the sigmoid's input. Stacks that enter only products are M-major, (M, N, D), as the
batched products require; those that enter distances are N-major.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from fdrl_layers._precision import widen
from fdrl_layers.ops.by_hand import Tensors
from fdrl_layers.ops.eager.scratch import scratch
from fdrl_layers.ops.reference.head import HeadParameters, Reduction, RelationParameters


class Saved(NamedTuple):
    """What backward reads in addition to latents and parameters.

    Attributes:
        intra_weights: Intra-W (N, M).
        column_sums: Column sums of Inter-W (N, M).
        distances: Distances between messages (N, M, M).
        product: The gates (after the sigmoid, but before it for "share") and the products q
            (2, M, N, D); None if backward recomputes them.
    """

    intra_weights: Tensor
    column_sums: Tensor
    distances: Tensor
    product: Tensor | None


class Gradients(NamedTuple):
    """The gradients of the latents (N, M, D), not contiguous, and of the parameters."""

    latents: Tensor | None
    intra_weight: Tensor | None
    intra_bias: Tensor | None
    inter_weight: Tensor | None
    inter_bias: Tensor | None


class Options(NamedTuple):
    """The options of equations 4 and 11."""

    delta: float
    reduction: Reduction


Parameters = TypeVar("Parameters", RelationParameters, HeadParameters)


def split(kind: type[Parameters], tensors: Tensors) -> tuple[Tensor, Parameters]:
    """Return the features of a form, and its parameters in their type, for products."""
    features, *rest = tensors
    assert features is not None
    dtype, make = features.dtype, cast(Any, kind)._make
    if any(each is not None and each.dtype != dtype for each in rest):
        rest = [None if each is None else each.to(dtype) for each in rest]
    return features, make(rest)


def relate(
    latents: Tensor, p: RelationParameters, options: Options, keep: bool
) -> tuple[Tensor, Tensor, Tensor, Saved]:
    """Return y in at least float32, Intra-W, Inter-W and what backward needs."""
    product = _product(latents, p, options.reduction)
    intra_weights = _intra_weights(product[0], options.reduction)
    (room,) = scratch(latents, tuple(latents.shape))
    messages = _messages(product[1], intra_weights, p.inter_bias, out=room)
    distances = distances_of(messages)
    inter_weights = distances.tanh()
    saved = Saved(intra_weights, inter_weights.sum(-1), distances, product if keep else None)
    embedding = embed(latents, messages, saved, options.delta)
    return embedding, intra_weights, inter_weights, saved


def embed(latents: Tensor, messages: Tensor, saved: Saved, delta: float) -> Tensor:
    """Return y (N, D) in at least float32 (equation 12)."""
    features = torch.bmm(saved.intra_weights.unsqueeze(1), widen(latents))
    sums = saved.column_sums.unsqueeze(1)
    # Its own memory, as autograd forbids in-place changes of a view that a function returns.
    y = _room(messages, latents.shape[0], latents.shape[2])
    into = y.unsqueeze(1)
    torch.baddbmm(features, sums, messages, beta=delta, alpha=1 - delta, out=into)
    return y


def distances_of(messages: Tensor) -> Tensor:
    """Return the distances (N, M, M) of messages (N, M, D)."""
    # Mode 2 uses differences; a Gram matrix would lose small distances to rounding.
    distances: Tensor = torch.ops.aten._cdist_forward(messages, messages, 2.0, 2)
    # The distance of infinite messages from themselves and from each other is 0.
    return distances.nan_to_num_(nan=0.0, posinf=float("inf"))


def _room(like: Tensor, *shape: int) -> Tensor:
    """Return uninitialized memory of a tensor's type, on its device."""
    return torch.empty(shape, dtype=like.dtype, device=like.device)


def _product(latents: Tensor, p: RelationParameters, reduction: Reduction) -> Tensor:
    """Return the gates and the products q (2, M, N, D)."""
    assert p.intra_weight is not None
    assert p.inter_weight is not None
    rows = latents.transpose(0, 1)
    product = _room(latents, 2, *rows.shape)
    gates, q = product
    if p.intra_bias is None:
        torch.bmm(rows, p.intra_weight.mT, out=gates)
    else:
        torch.baddbmm(p.intra_bias.unsqueeze(1), rows, p.intra_weight.mT, out=gates)
    torch.bmm(rows, p.inter_weight.mT, out=q)
    if reduction != "share":
        gates.sigmoid_()
    return product


def _intra_weights(gates: Tensor, reduction: Reduction) -> Tensor:
    """Return Intra-W (N, M) of the gates (M, N, D)."""
    gates = widen(gates)
    intra_weights = _room(gates, gates.shape[1], gates.shape[0])
    if reduction == "share":
        return torch.softmax(F.logsigmoid(gates).logsumexp(-1), 0, out=intra_weights.mT).mT
    reduce = torch.sum if reduction == "sum" else torch.mean
    reduce(gates, -1, out=intra_weights.mT)
    return intra_weights


def _messages(q: Tensor, intra_weights: Tensor, bias: Tensor | None, out: Tensor) -> Tensor:
    """Return the messages (N, M, D) in at least float32."""
    rows, scale = widen(q).transpose(0, 1), intra_weights.unsqueeze(-1)
    if bias is None:
        torch.mul(rows, scale, out=out)
    else:
        torch.addcmul(widen(bias), rows, scale, out=out)
    return out.relu_()


class Workspace(NamedTuple):
    """The memory of a backward pass.

    Attributes:
        product: The gates and the products q (2, M, N, D).
        nodes: The messages, followed by the gradient of y, as one matrix product reads both
            (N, M + 1, D).
        entering: The gradients of the sigmoid's input, and of that of the ReLU or of q
            (2, M, N, D).
        by_sample: A stack (N, M, D) of the messages' type, which is free afterwards.
        by_branch: A stack (M, N, D) of that type, which then holds the gradient of the latents.
    """

    product: Tensor
    nodes: Tensor
    entering: Tensor
    by_sample: Tensor
    by_branch: Tensor


def open_workspace(
    latents: Tensor, p: RelationParameters, saved: Saved, options: Options, *, returned: bool
) -> Workspace:
    """Return the memory of a backward pass, in which the messages are.

    If the gradient of the latents is `returned`, it has memory of its own.
    """
    product = saved.product
    if product is None:
        product = _product(latents, p, options.reduction)
    n, m, d = latents.shape
    nodes, by_sample, by_branch, entering = scratch(
        latents, (n, m + 1, d), (n, m, d), (m, n, d), (2, m, n, d)
    )
    if entering.dtype != product.dtype:
        entering = torch.empty_like(product)
    if returned:
        by_branch = torch.empty_like(by_branch)
    _messages(product[1], saved.intra_weights, p.inter_bias, out=nodes[:, :m])
    return Workspace(product, nodes, entering, by_sample, by_branch)


def relate_backward(
    workspace: Workspace,
    grad_intra: Tensor | None,
    grad_inter: Tensor | None,
    grad_latents: Tensor | None,
    latents: Tensor,
    p: RelationParameters,
    saved: Saved,
    options: Options,
    needs: Sequence[bool],
) -> Gradients:
    """Return the gradients, given messages and the gradient of y in the workspace.

    `grad_latents` is added to the latents' own gradient.
    """
    m = latents.shape[1]
    (gates, q), nodes, entering, by_sample, by_branch = workspace
    (da, dp), dy = entering, nodes[:, m]
    _message_gradient(nodes, saved, grad_inter, options.delta, by_sample, dp.transpose(0, 1))
    dalpha = _intra_gradient(grad_intra, latents, dy, dp, q, options.delta, by_branch)
    _gate_gradient(dalpha, gates, saved.intra_weights, options.reduction, da)
    intra_bias = inter_bias = None
    if needs[2] or needs[4]:
        both = entering.sum(2)
        intra_bias, inter_bias = both[0] if needs[2] else None, both[1] if needs[4] else None
    dq = dp.mul_(saved.intra_weights.mT.unsqueeze(-1))
    rows = latents.transpose(0, 1)
    found = Gradients(
        None,
        torch.bmm(da.mT, rows) if needs[1] else None,
        intra_bias,
        torch.bmm(dq.mT, rows) if needs[3] else None,
        inter_bias,
    )
    if not needs[0]:
        return found
    grad = by_branch if by_branch.dtype == da.dtype else torch.empty_like(da)
    _latent_gradient(grad_latents, saved, dy, entering, p, options.delta, grad)
    return found._replace(latents=grad.transpose(0, 1))


def _message_gradient(
    nodes: Tensor,
    saved: Saved,
    grad_inter: Tensor | None,
    delta: float,
    scratch: Tensor,
    out: Tensor,
) -> None:
    """Write the gradient of the messages' ReLU input (N, M, D), from messages and dy in `nodes`."""
    n, m = saved.intra_weights.shape
    messages, dy = nodes[:, :m], nodes[:, m]
    mixing = _room(nodes, n, m, m + 1)
    k, beta = mixing[..., :m], 1 - delta
    dots = _dots(messages, dy)
    torch.add(dots.unsqueeze(2), dots.unsqueeze(1), out=k)
    torch.neg(saved.column_sums, out=mixing[..., m])
    if grad_inter is not None:
        mixing.mul_(beta)
        k.add_(grad_inter).add_(grad_inter.mT)
        beta = 1.0
    pull(k, saved.distances)
    torch.baddbmm(messages, mixing, nodes, beta=0, alpha=-beta, out=scratch)
    torch.ops.aten.threshold_backward(scratch, messages, 0, grad_input=out)


def pull(k: Tensor, distances: Tensor) -> None:
    """Turn the symmetric gradients k (N, M, M) of Inter-W into k - diag(k 1), in place."""
    # sech^2(d) / d, and 0 for messages that coincide: the slope of a norm is bounded by 1, and of
    # all subgradients 0 is the symmetric one.
    slope = torch.ops.aten.tanh_backward(k, distances.tanh())
    torch.div(slope, F.threshold(distances, 0, float("inf")), out=k)
    k.diagonal(dim1=1, dim2=2).sub_(k.sum(-1))


def _dots(rows: Tensor, vector: Tensor) -> Tensor:
    """Return the products (N, M) of rows (N, M, D) with a vector (N, D) each."""
    # Multiply by a row on the left: MKL takes six times as long for a column on the right.
    return torch.bmm(vector.unsqueeze(1), rows.mT).squeeze(1)


def _intra_gradient(
    grad_intra: Tensor | None,
    latents: Tensor,
    dy: Tensor,
    dp: Tensor,
    q: Tensor,
    delta: float,
    scratch: Tensor,
) -> Tensor:
    """Return the gradient of Intra-W (N, M)."""
    through = torch.mul(widen(dp), widen(q), out=scratch).sum(-1).mT
    if grad_intra is not None:
        through = through + grad_intra
    dy = dy.unsqueeze(1)
    return torch.baddbmm(through.unsqueeze(1), dy, widen(latents).mT, alpha=delta).squeeze(1)


def _gate_gradient(
    dalpha: Tensor, gates: Tensor, intra_weights: Tensor, reduction: Reduction, out: Tensor
) -> None:
    """Write the gradient of the sigmoid's input (M, N, D)."""
    if reduction != "share":
        if reduction == "mean":
            dalpha = dalpha / gates.shape[-1]
        grad = dalpha.mT.unsqueeze(-1).to(gates.dtype).expand_as(gates)
        torch.ops.aten.sigmoid_backward(grad, gates, grad_input=out)
        return
    # Differentiate the logarithm of the sum of gates by softmax, as the gates may underflow.
    inner = intra_weights * (dalpha - (dalpha * intra_weights).sum(-1, keepdim=True))
    gates = widen(gates)
    shares = F.logsigmoid(gates).softmax(-1).mul_(gates.neg().sigmoid_())
    out.copy_(shares.mul_(inner.mT.unsqueeze(-1)))


def _latent_gradient(
    grad_latents: Tensor | None,
    saved: Saved,
    dy: Tensor,
    entering: Tensor,
    p: RelationParameters,
    delta: float,
    out: Tensor,
) -> None:
    """Write the gradient of the latents, M-major (M, N, D)."""
    assert p.intra_weight is not None
    assert p.inter_weight is not None
    da, dq = entering
    # The gradient through y's sum of latents.
    direct, scale = dy.unsqueeze(1), saved.intra_weights.unsqueeze(-1)
    rows = out.transpose(0, 1)
    if out.dtype != dy.dtype:
        direct = delta * scale * direct
        rows.copy_(direct if grad_latents is None else direct.add_(grad_latents))
    elif grad_latents is None:
        torch.mul(scale * delta, direct, out=rows)
    else:
        torch.addcmul(grad_latents, scale, direct, value=delta, out=rows)
    out.baddbmm_(da, p.intra_weight).baddbmm_(dq, p.inter_weight)
