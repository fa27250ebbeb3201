"""Hand-written passes of the head: fewer kernels than autograd, and half the saved memory.

The steps from the latents to their sum, and their derivative, are in `relations.py`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fdrl_layers.ops.by_hand import Needs, Tensors
from fdrl_layers.ops.eager.relations import (
    Options,
    Saved as Related,
    embed,
    open_workspace,
    relate,
    relate_backward,
    split,
)
from fdrl_layers.ops.reference.head import HeadParameters, reference


class Saved(NamedTuple):
    """What backward reads besides input and parameters: the latents and the relations' tensors."""

    latents: Tensor
    intra_weights: Tensor
    column_sums: Tensor
    distances: Tensor
    product: Tensor | None


class Head:
    """The head of basic features: a :class:`fdrl_layers.ops.by_hand.Form`."""

    def forward(
        self, tensors: Tensors, options: Options, keep: bool
    ) -> tuple[Sequence[Tensor], Tensors]:
        """Return logits, y, latents, Intra-W and Inter-W of basic features (N, P)."""
        input, p = split(HeadParameters, tensors)
        latents = _decompose(input, p)
        embedding, intra_weights, inter_weights, related = relate(
            latents, p.relations, options, keep
        )
        embedding = embedding.to(input.dtype)
        if p.classifier_weight is None:
            logits = embedding.new_empty(embedding.shape[0], 0)
        else:
            logits = _classify(embedding, p.classifier_weight, p.classifier_bias)
        outputs = (logits, embedding, latents, intra_weights, inter_weights)
        return outputs, Saved(latents, *related)

    def backward(
        self, gradients: Tensors, tensors: Tensors, saved: Tensors, options: Options, needs: Needs
    ) -> Tensors:
        """Return the gradients of the input and the parameters from those of the outputs."""
        input, p = split(HeadParameters, tensors)
        grad_logits, grad_embedding, grad_latents, grad_intra, grad_inter = gradients
        latents, related = saved[0], Related._make(saved[1:])
        assert latents is not None
        m = latents.shape[1]
        workspace = open_workspace(latents, p.relations, related, options, returned=False)
        nodes = workspace.nodes
        _embedding_gradient(grad_logits, grad_embedding, p.classifier_weight, nodes[:, m])
        found: dict[str, Tensor | None] = {}
        if grad_logits is not None and p.classifier_weight is not None:
            if needs[7]:
                y = embed(latents, nodes[:, :m], related, options.delta)
                found["classifier_weight"] = grad_logits.mT @ y.to(grad_logits.dtype)
            if needs[8]:
                found["classifier_bias"] = grad_logits.sum(0)
        through = relate_backward(
            workspace,
            grad_intra,
            grad_inter,
            grad_latents,
            latents,
            p.relations,
            related,
            options,
            (any(needs[:3]), *needs[3:7]),
        )
        found |= through._asdict()
        if through.latents is not None:
            dz = workspace.by_sample
            dz = dz if dz.dtype == input.dtype else torch.empty_like(latents)
            torch.ops.aten.threshold_backward(through.latents, latents, 0, grad_input=dz)
            flat, weight = dz.flatten(1), p.decomposition_weight
            found["input"] = flat @ weight.flatten(0, 1) if needs[0] else None
            if needs[1]:
                found["decomposition_weight"] = (flat.mT @ input).view_as(weight)
            found["decomposition_bias"] = dz.sum(0) if needs[2] else None
        return tuple(
            None if value is None or (grad := found.get(name)) is None else grad.to(value.dtype)
            for name, value in zip(("input", *HeadParameters._fields), tensors, strict=True)
        )

    def reference(self, tensors: Tensors, options: Options) -> Tensors:
        """Return the same outputs by operators of PyTorch."""
        input, parameters = split(HeadParameters, tensors)
        return reference(input, parameters, options.delta, options.reduction)


def _decompose(input: Tensor, p: HeadParameters) -> Tensor:
    weight = p.decomposition_weight.flatten(0, 1).mT
    if p.decomposition_bias is None:
        latents = torch.mm(input, weight).relu_()
    else:
        latents = torch._addmm_activation(p.decomposition_bias.flatten(), input, weight)
    # Not a view, which could not be changed in place.
    found: Tensor = torch.ops.aten._unsafe_view(latents, (-1, *p.decomposition_weight.shape[:2]))
    return found


def _classify(embedding: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if bias is None:
        return torch.mm(embedding, weight.mT)
    return torch.addmm(bias, embedding, weight.mT)


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
