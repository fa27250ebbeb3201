"""The head: its definition in plain torch, without checks."""

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fdrl_layers._precision import widen

Reduction = Literal["sum", "mean", "share"]
SelfFeature = Literal["intra", "message"]


class RelationParameters(NamedTuple):
    """The parameters of both relations; those of an omitted relation are None."""

    intra_weight: Tensor | None
    intra_bias: Tensor | None
    inter_weight: Tensor | None
    inter_bias: Tensor | None


class HeadParameters(NamedTuple):
    """The parameters of a head, in the order in which every form takes them."""

    decomposition_weight: Tensor
    decomposition_bias: Tensor | None
    intra_weight: Tensor | None
    intra_bias: Tensor | None
    inter_weight: Tensor | None
    inter_bias: Tensor | None
    classifier_weight: Tensor | None
    classifier_bias: Tensor | None

    @property
    def relations(self) -> RelationParameters:
        """The parameters of both relations."""
        return RelationParameters._make(self[2:6])


class HeadOutput(NamedTuple):
    """The output of a head, in the order of ``FDRLOutput``."""

    logits: Tensor
    embedding: Tensor
    latents: Tensor
    intra_weights: Tensor
    inter_weights: Tensor | None


def stacked_product(features: Tensor, weight: Tensor) -> Tensor:
    """Multiply row j of `features` (*, M, in) by matrix j of `weight` (M, out, in)."""
    return torch.einsum("...mi,moi->...mo", features, weight)


def add_bias(product: Tensor, bias: Tensor | None) -> Tensor:
    """Add the stacked biases (M, out) to a product (*, M, out), in the product's type."""
    return product if bias is None else product + bias.to(product.dtype)


def decompose(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Compute equation 1 for all latents in one matrix product."""
    bias = None if bias is None else bias.flatten()
    latents = F.linear(input, weight.flatten(0, 1), bias).relu()
    return latents.reshape(*input.shape[:-1], *weight.shape[:2])


def reduce_gates(gates: Tensor, reduction: Reduction) -> Tensor:
    """Return Intra-W (*, M) from the sigmoid's input (*, M, D), by equations 3 and 4."""
    if reduction == "share":
        # The quotient of two sums, from their logarithms: all gates may underflow at once.
        return F.logsigmoid(gates).logsumexp(-1).softmax(-1)
    alpha = gates.sigmoid()
    return alpha.sum(-1) if reduction == "sum" else alpha.mean(-1)


_FOLLOWS_SIZES: bool = torch.__version__ >= (2, 14)  # type: ignore[operator]
"""Whether the compiler supports a dynamic batch in a function with its own backward pass.

That of torch 2.6 does not; 2.14 is the oldest version known to support it.
"""


def distances_to_weights(messages: Tensor) -> Tensor:
    """Return tanh of the Euclidean distance between messages, 0 on the diagonal (equation 9)."""
    compiling = _FOLLOWS_SIZES and torch.compiler.is_compiling()
    if compiling and torch.is_grad_enabled() and messages.requires_grad:
        weights: Tensor = _InterWeights.apply(messages)
        return weights
    distance, apart = _distances(messages)
    return torch.where(apart, distance.tanh(), 0.0)


def _distances(messages: Tensor) -> tuple[Tensor, Tensor]:
    """Return distances (*, M, M), 1 where messages coincide, and a mask of where they do not."""
    difference = messages.unsqueeze(-2) - messages.unsqueeze(-3)
    squared = difference.square().sum(-1)
    itself = torch.eye(squared.shape[-1], dtype=torch.bool, device=squared.device)
    # If two messages coincide, sqrt has an infinite slope. Taking the root of 1 there and
    # discarding it gives value 0 and gradient 0, in the second derivative too.
    apart = (squared > 0) & ~itself
    return torch.where(apart, squared, 1.0).sqrt(), apart


class _InterWeights(torch.autograd.Function):
    """Equation 9 with its derivative in closed form, which a compiler does not find.

    A compiler would write the (*, M, M, D) gradient of the differences and read it twice. In closed
    form it is one matrix per sample: (diag(k 1) - k) g with k as in `ops/eager/relations.py`.
    """

    @staticmethod
    def forward(ctx: Any, messages: Tensor) -> Tensor:
        distance, apart = _distances(messages)
        ctx.save_for_backward(messages, distance, apart)
        return torch.where(apart, distance.tanh(), 0.0)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        messages, distance, apart = ctx.saved_tensors
        e = torch.exp(-2 * distance)
        slope = 4 * e / ((1 + e).square() * distance)
        k = torch.where(apart, (gradient + gradient.mT) * slope, 0.0)
        result: Tensor = k.sum(-1, keepdim=True) * messages - k @ messages
        return result


def collect(features: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the inter-aware features and Inter-W of features (*, M, D), equations 8 to 10."""
    messages = add_bias(stacked_product(features, weight), bias).relu()
    weights = distances_to_weights(widen(messages))
    return torch.matmul(weights.to(messages.dtype), messages), weights


def reconstruct(
    latents: Tensor,
    intra_weight: Tensor | None,
    intra_bias: Tensor | None,
    inter_weight: Tensor | None,
    inter_bias: Tensor | None,
    delta: float,
    reduction: Reduction,
    self_feature: SelfFeature = "intra",
) -> tuple[Tensor, Tensor, Tensor | None]:
    r"""Return y, Intra-W and Inter-W of latents, by equations 3, 4 and 7 to 12 in merged form.

    Neither the intra-aware nor the inter-aware features are computed. A factor for each row
    commutes with a product from the right, and the sum over j in equation 12 needs only the column
    sums of Inter-W:

    .. math::
        W_{e_j}^T (\alpha_j l_j) = \alpha_j (W_{e_j}^T l_j), \qquad
        \sum_j \hat f_j = \sum_m s_m\, g_m, \quad s_m = \sum_j \omega(j, m)

    If equation 11 uses the messages instead of the intra-aware features, y is a sum of messages,
    :math:`\sum_m (\delta + (1 - \delta) s_m)\, g_m`.
    """
    if intra_weight is None:
        intra_weights = torch.ones_like(widen(latents[..., 0]))
    else:
        gates = add_bias(stacked_product(latents, intra_weight), intra_bias)
        intra_weights = reduce_gates(widen(gates), reduction)
    if inter_weight is None:
        features = _weighted_sum(intra_weights, latents)
        return features.to(latents.dtype), intra_weights, None
    scaled = intra_weights.unsqueeze(-1) * stacked_product(latents, inter_weight)
    messages = add_bias(scaled, inter_bias).relu()
    inter_weights = distances_to_weights(messages)
    received = inter_weights.sum(-2)
    if self_feature == "message":
        embedding = _weighted_sum(delta + (1 - delta) * received, messages)
    else:
        features = _weighted_sum(intra_weights, latents)
        embedding = delta * features + (1 - delta) * _weighted_sum(received, messages)
    return embedding.to(latents.dtype), intra_weights, inter_weights


def _weighted_sum(weights: Tensor, rows: Tensor) -> Tensor:
    """Sum rows (*, M, D) by weights (*, M), in the precision of the weights."""
    return (weights.unsqueeze(-1) * rows).sum(-2)


def predict(embedding: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """Return the class scores (*, K), or (*, 0) without a prediction layer."""
    if weight is None:
        return embedding.new_empty((*embedding.shape[:-1], 0))
    return F.linear(embedding, weight, bias)


def reference(
    input: Tensor,
    parameters: HeadParameters,
    delta: float,
    reduction: Reduction,
    self_feature: SelfFeature = "intra",
) -> HeadOutput:
    """Compute the head in plain torch: the definition, for compilers, exporters and torch.func."""
    # Read by name, as the compiler of torch 2.6 cannot slice a named tuple.
    p = parameters
    latents = decompose(input, p.decomposition_weight, p.decomposition_bias)
    embedding, intra_weights, inter_weights = reconstruct(
        latents,
        p.intra_weight,
        p.intra_bias,
        p.inter_weight,
        p.inter_bias,
        delta,
        reduction,
        self_feature,
    )
    logits = predict(embedding, p.classifier_weight, p.classifier_bias)
    return HeadOutput(logits, embedding, latents, intra_weights, inter_weights)
