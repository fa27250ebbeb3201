r"""Hand-written passes of Inter-RM alone, with a sum for each latent (equations 8 to 10).

With :math:`A` the gradient of the inter-aware features, and the other symbols as in
:mod:`fdrl_layers.ops.eager.relations`, the backward pass is

.. math::
    k_{jm} = (\langle A_j, g_m \rangle + \langle A_m, g_j \rangle + \bar\omega_{jm} +
        \bar\omega_{mj})\, \mathrm{sech}^2(d_{jm}) / d_{jm}, \qquad
    \bar g = \omega A + (\mathrm{diag}(k 1) - k)\, g
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from fdrl_layers._precision import widen
from fdrl_layers.ops.by_hand import Needs, Tensors
from fdrl_layers.ops.eager.relations import distances_of, pull
from fdrl_layers.ops.reference.head import collect


class InterRelation:
    """Inter-aware features and Inter-W: a :class:`fdrl_layers.ops.by_hand.Form` without options."""

    def forward(
        self, tensors: Tensors, options: None, keep: bool
    ) -> tuple[Sequence[Tensor], Tensors]:
        """Return the inter-aware features (N, M, D) and Inter-W of features (N, M, D)."""
        features, weight, bias = tensors
        assert features is not None
        assert weight is not None
        rows = torch.bmm(features.transpose(0, 1), weight.to(features.dtype).mT).transpose(0, 1)
        messages = rows.new_empty(rows.shape)
        if bias is None:
            messages.copy_(rows).relu_()
        else:
            torch.add(rows, bias.to(rows.dtype), out=messages).relu_()
        distances = distances_of(widen(messages))
        weights = distances.tanh()
        aware = torch.bmm(weights.to(messages.dtype), messages)
        return (aware, weights), (messages, distances)

    def backward(
        self, gradients: Tensors, tensors: Tensors, saved: Tensors, options: None, needs: Needs
    ) -> Tensors:
        """Return the gradients of features and parameters."""
        features, weight, bias = tensors
        kept, distances = saved
        grad_aware, grad_weights = gradients
        if grad_aware is None and grad_weights is None:
            return None, None, None
        assert features is not None
        assert weight is not None
        assert kept is not None
        assert distances is not None
        messages = widen(kept)
        k = torch.zeros_like(distances) if grad_weights is None else grad_weights
        if grad_aware is not None:
            grad_aware = widen(grad_aware)
            k = torch.baddbmm(k, grad_aware, messages.mT)
        k = k + k.mT
        pull(k, distances)
        entering = torch.bmm(k, messages).neg_()
        if grad_aware is not None:
            # Inter-W is symmetric.
            entering.baddbmm_(distances.tanh(), grad_aware)
        entering = torch.ops.aten.threshold_backward(entering, messages, 0)
        by_branch = entering.transpose(0, 1).to(features.dtype)
        grad_features = grad_weight = grad_bias = None
        if needs[0]:
            grad_features = torch.bmm(by_branch, weight.to(features.dtype)).transpose(0, 1)
        if needs[1]:
            grad_weight = torch.bmm(by_branch.mT, features.transpose(0, 1)).to(weight.dtype)
        if needs[2] and bias is not None:
            grad_bias = entering.sum(0).to(bias.dtype)
        return grad_features, grad_weight, grad_bias

    def reference(self, tensors: Tensors, options: None) -> Tensors:
        """Return the same outputs by operators of PyTorch."""
        features, weight, bias = tensors
        assert features is not None
        assert weight is not None
        return collect(features, weight.to(features.dtype), bias)
