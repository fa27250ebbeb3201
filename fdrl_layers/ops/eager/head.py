r"""The head's passes by hand: fewer kernels than autograd needs, and half of what it saves.

Forward as in :mod:`fdrl_layers.ops.reference.head`. With :math:`\bar v` for the gradient of v,
:math:`\beta = 1 - \delta`, and :math:`\langle , \rangle` a product over D, backward is

.. math::
    \bar s_m &= \beta \langle \bar y, g_m \rangle, \qquad
    k_{jm} = (\bar s_j + \bar s_m + \bar\omega_{jm} + \bar\omega_{mj})\,
        \mathrm{sech}^2(d_{jm}) / d_{jm}, \quad k_{jm} = 0 \text{ where } d_{jm} = 0 \\
    \bar g &= \beta\, s \otimes \bar y + (\mathrm{diag}(k 1) - k)\, g, \qquad
    \bar p = \bar g\, [g > 0] \\
    \bar\alpha_j &\mathrel{+}= \delta \langle \bar y, l_j \rangle + \langle \bar p_j, q_j \rangle \\
    \bar l_j &\mathrel{+}= W_{s_j} \bar a_j + W_{e_j} \alpha_j \bar p_j + \delta \alpha_j \bar y

with :math:`q_j = W_{e_j}^T l_j`, :math:`p_j = \alpha_j q_j + b_{e_j}` and :math:`\bar a_j` the
gradient of what enters the sigmoid. Stacks that only enter products lie M-major, (M, N, D), as the
batched products want them; those that enter distances lie N-major.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fdrl_layers._precision import widen
from fdrl_layers.ops.reference.head import HeadOutput, HeadParameters, Reduction

Needs = tuple[bool, ...]


class Saved(NamedTuple):
    """What backward reads beside the inputs.

    Attributes:
        latents: (N, M, D).
        intra_weights: (N, M).
        column_sums: Of Inter-W, (N, M).
        distances: Between messages, (N, M, M).
        product: The gates (after the sigmoid, but before it for "share") and the products q
            (2, M, N, D); None where backward is to compute them again.
    """

    latents: Tensor
    intra_weights: Tensor
    column_sums: Tensor
    distances: Tensor
    product: Tensor | None


def forward(
    input: Tensor, parameters: HeadParameters, delta: float, reduction: Reduction, keep: bool
) -> tuple[HeadOutput, Saved]:
    """Return the head's output for basic features (N, P), and what backward wants."""
    p = cast(parameters, input.dtype)
    latents = _decompose(input, p)
    product = _product(latents, p, reduction)
    intra_weights = _intra_weights(product[0], reduction)
    messages = _messages(product[1], intra_weights, p.inter_bias)
    # Mode 2 takes differences; a Gram matrix would lose close messages to rounding.
    distances = torch.ops.aten._cdist_forward(messages, messages, 2.0, 2)
    inter_weights = distances.tanh()
    sums = inter_weights.sum(-1)
    features = torch.bmm(intra_weights.unsqueeze(1), widen(latents))
    embedding = torch.baddbmm(features, sums.unsqueeze(1), messages, beta=delta, alpha=1 - delta)
    embedding = embedding.squeeze(1).to(input.dtype)
    if p.classifier_weight is None:
        logits = embedding.new_empty(embedding.shape[0], 0)
    else:
        logits = F.linear(embedding, p.classifier_weight, p.classifier_bias)
    saved = Saved(latents, intra_weights, sums, distances, product if keep else None)
    return HeadOutput(logits, embedding, latents, intra_weights, inter_weights), saved


def cast(parameters: HeadParameters, dtype: torch.dtype) -> HeadParameters:
    """Return the parameters in the type in which products are taken."""
    if all(p is None or p.dtype == dtype for p in parameters):
        return parameters
    return HeadParameters._make(p if p is None else p.to(dtype) for p in parameters)


def _decompose(input: Tensor, p: HeadParameters) -> Tensor:
    weight = p.decomposition_weight.flatten(0, 1).t()
    if p.decomposition_bias is None:
        latents = torch.mm(input, weight).relu_()
    else:
        latents = torch._addmm_activation(p.decomposition_bias.flatten(), input, weight)
    return latents.view(-1, *p.decomposition_weight.shape[:2])


def _product(latents: Tensor, p: HeadParameters, reduction: Reduction) -> Tensor:
    """Gates and products q (2, M, N, D)."""
    assert p.intra_weight is not None
    assert p.inter_weight is not None
    rows = latents.transpose(0, 1)
    product = latents.new_empty(2, *rows.shape)
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
    """Intra-W (N, M) of the gates (M, N, D)."""
    gates = widen(gates)
    intra_weights = gates.new_empty(gates.shape[1], gates.shape[0])
    if reduction == "share":
        return torch.softmax(F.logsigmoid(gates).logsumexp(-1), 0, out=intra_weights.t()).t()
    reduce = torch.sum if reduction == "sum" else torch.mean
    reduce(gates, -1, out=intra_weights.t())
    return intra_weights


def _messages(
    q: Tensor, intra_weights: Tensor, bias: Tensor | None, out: Tensor | None = None
) -> Tensor:
    """Messages (N, M, D) in at least float32."""
    rows, scale = widen(q).transpose(0, 1), intra_weights.unsqueeze(-1)
    if out is None:
        out = rows.new_empty(rows.shape)
    if bias is None:
        torch.mul(rows, scale, out=out)
    else:
        torch.addcmul(widen(bias), rows, scale, out=out)
    return out.relu_()


def backward(
    gradients: tuple[Tensor | None, ...],
    input: Tensor,
    parameters: HeadParameters,
    saved: Saved,
    delta: float,
    reduction: Reduction,
    needs: Needs,
) -> tuple[Tensor | None, ...]:
    """Return the gradients of `input` and the parameters from those of a :class:`HeadOutput`.

    Where `needs` is False, for the input and each of the parameters, there is None.
    """
    p = cast(parameters, input.dtype)
    grad_logits, grad_embedding, grad_latents, grad_intra, grad_inter = gradients
    product = _product(saved.latents, p, reduction) if saved.product is None else saved.product
    gates, q = product
    n, m, d = saved.latents.shape
    # The gradient of y lies behind the messages, so that one product reaches both.
    nodes = saved.distances.new_empty(n, m + 1, d)
    messages, dy = nodes[:, :m], nodes[:, m]
    _messages(q, saved.intra_weights, p.inter_bias, out=messages)
    _embedding_gradient(grad_logits, grad_embedding, p.classifier_weight, dy)
    # What enters the sigmoid, and what enters the messages' ReLU, which q's will replace.
    entering = torch.empty_like(product)
    da, dp = entering
    # Two stacks more are written to three times each, since memory in a cache is faster.
    by_sample, by_branch = messages.new_empty(n, m, d), messages.new_empty(m, n, d)
    _message_gradient(nodes, saved, grad_inter, delta, by_sample, dp.transpose(0, 1))
    found: dict[str, Tensor | None] = {}
    if grad_logits is not None and p.classifier_weight is not None:
        if needs[7]:
            y = _embedding(saved, messages, delta)
            found["classifier_weight"] = grad_logits.t() @ y.to(grad_logits.dtype)
        if needs[8]:
            found["classifier_bias"] = grad_logits.sum(0)
    dalpha = _intra_gradient(grad_intra, saved, dy, dp, q, delta, by_branch)
    _gate_gradient(dalpha, gates, saved.intra_weights, reduction, da)
    if needs[4] or needs[6]:
        both = entering.sum(2)
        found["intra_bias"] = both[0] if needs[4] else None
        found["inter_bias"] = both[1] if needs[6] else None
    dq = dp.mul_(saved.intra_weights.t().unsqueeze(-1))
    rows = saved.latents.transpose(0, 1)
    found["intra_weight"] = torch.bmm(da.mT, rows) if needs[3] else None
    found["inter_weight"] = torch.bmm(dq.mT, rows) if needs[5] else None
    if any(needs[:3]):
        same = by_sample.dtype == input.dtype
        dz = by_sample if same else torch.empty_like(saved.latents)
        scratch = by_branch if same else torch.empty_like(da)
        _latent_gradient(grad_latents, saved, dy, entering, p, delta, scratch, dz)
        flat = dz.flatten(1)
        weight = p.decomposition_weight
        found["input"] = flat @ weight.flatten(0, 1) if needs[0] else None
        if needs[1]:
            found["decomposition_weight"] = (flat.t() @ input).view_as(weight)
        found["decomposition_bias"] = dz.sum(0) if needs[2] else None
    names = ("input", *HeadParameters._fields)
    return tuple(
        None if value is None or (grad := found.get(name)) is None else grad.to(value.dtype)
        for name, value in zip(names, (input, *parameters), strict=True)
    )


def _embedding_gradient(
    grad_logits: Tensor | None, grad_embedding: Tensor | None, weight: Tensor | None, out: Tensor
) -> None:
    if grad_logits is None or weight is None:
        out.zero_() if grad_embedding is None else out.copy_(grad_embedding)
        return
    grad_logits, weight = grad_logits.to(out.dtype), weight.to(out.dtype)
    if grad_embedding is None:
        torch.mm(grad_logits, weight, out=out)
    else:
        torch.addmm(grad_embedding.to(out.dtype), grad_logits, weight, out=out)


def _message_gradient(
    nodes: Tensor,
    saved: Saved,
    grad_inter: Tensor | None,
    delta: float,
    scratch: Tensor,
    out: Tensor,
) -> None:
    """Gradient of what enters the messages' ReLU (N, M, D), from messages and dy in `nodes`."""
    n, m = saved.intra_weights.shape
    messages, dy = nodes[:, :m], nodes[:, m]
    mixing = nodes.new_empty(n, m, m + 1)
    k, beta = mixing[..., :m], 1 - delta
    dots = _dots(messages, dy)
    torch.add(dots.unsqueeze(2), dots.unsqueeze(1), out=k)
    torch.neg(saved.column_sums, out=mixing[..., m])
    if grad_inter is not None:
        mixing.mul_(beta)
        k.add_(grad_inter).add_(grad_inter.mT)
        beta = 1.0
    # sech^2(d) / d, and 0 for messages that coincide: the slope of a norm is bounded by 1, and of
    # all subgradients 0 is the symmetric one.
    slope = torch.ops.aten.tanh_backward(k, saved.distances.tanh())
    torch.div(slope, F.threshold(saved.distances, 0, float("inf")), out=k)
    k.diagonal(dim1=1, dim2=2).sub_(k.sum(-1))
    torch.baddbmm(messages, mixing, nodes, beta=0, alpha=-beta, out=scratch)
    torch.ops.aten.threshold_backward(scratch, messages, 0, grad_input=out)


def _dots(rows: Tensor, vector: Tensor) -> Tensor:
    """Products of rows (N, M, D) with a vector (N, D) each: (N, M)."""
    # A row from the left: MKL takes six times as long for a column from the right.
    return torch.bmm(vector.unsqueeze(1), rows.mT).squeeze(1)


def _embedding(saved: Saved, messages: Tensor, delta: float) -> Tensor:
    features = torch.bmm(saved.intra_weights.unsqueeze(1), widen(saved.latents))
    sums = saved.column_sums.unsqueeze(1)
    return torch.baddbmm(features, sums, messages, beta=delta, alpha=1 - delta).squeeze(1)


def _intra_gradient(
    grad_intra: Tensor | None,
    saved: Saved,
    dy: Tensor,
    dp: Tensor,
    q: Tensor,
    delta: float,
    scratch: Tensor,
) -> Tensor:
    """Gradient of Intra-W (N, M)."""
    through = torch.mul(widen(dp), widen(q), out=scratch).sum(-1).t()
    if grad_intra is not None:
        through = through + grad_intra
    latents, dy = widen(saved.latents), dy.unsqueeze(1)
    return torch.baddbmm(through.unsqueeze(1), dy, latents.mT, alpha=delta).squeeze(1)


def _gate_gradient(
    dalpha: Tensor, gates: Tensor, intra_weights: Tensor, reduction: Reduction, out: Tensor
) -> None:
    """Gradient of what enters the sigmoid (M, N, D)."""
    if reduction != "share":
        if reduction == "mean":
            dalpha = dalpha / gates.shape[-1]
        grad = dalpha.t().unsqueeze(-1).to(gates.dtype).expand_as(gates)
        torch.ops.aten.sigmoid_backward(grad, gates, grad_input=out)
        return
    # Of the logarithm of a sum of gates, by softmax, as the gates themselves may underflow.
    inner = intra_weights * (dalpha - (dalpha * intra_weights).sum(-1, keepdim=True))
    gates = widen(gates)
    shares = F.logsigmoid(gates).softmax(-1).mul_(gates.neg().sigmoid_())
    out.copy_(shares.mul_(inner.t().unsqueeze(-1)))


def _latent_gradient(
    grad_latents: Tensor | None,
    saved: Saved,
    dy: Tensor,
    entering: Tensor,
    p: HeadParameters,
    delta: float,
    grad: Tensor,
    out: Tensor,
) -> None:
    """Gradient of what enters the latents' ReLU (N, M, D), by way of `grad` (M, N, D)."""
    assert p.intra_weight is not None
    assert p.inter_weight is not None
    da, dq = entering
    # Through y's own sum of latents.
    direct, scale = dy.unsqueeze(1), saved.intra_weights.unsqueeze(-1)
    rows = grad.transpose(0, 1)
    if grad.dtype != dy.dtype:
        direct = delta * scale * direct
        rows.copy_(direct if grad_latents is None else direct.add_(grad_latents))
    elif grad_latents is None:
        torch.mul(scale * delta, direct, out=rows)
    else:
        torch.addcmul(grad_latents, scale, direct, value=delta, out=rows)
    grad.baddbmm_(da, p.intra_weight).baddbmm_(dq, p.inter_weight)
    torch.ops.aten.threshold_backward(rows, saved.latents, 0, grad_input=out)
