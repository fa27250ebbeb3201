"""Intra-feature relation modeling (Intra-RM), equations 3, 4 and 7."""

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from fdrl_layers._checks import check_choice
from fdrl_layers._parts import fusable
from fdrl_layers._precision import widen
from fdrl_layers.layers._stacked_linear import StackedLinear, check_stacked
from fdrl_layers.ops.reference.head import Reduction, add_bias, reduce_gates, stacked_product

__all__ = [
    "GateInit",
    "IntraRelation",
    "Reduction",
    "check_gate_init",
    "check_reduction",
    "intra_relation",
]

GateInit = Literal["uniform", "linear"]

# Evaluated here and not where it is used: the compiler of torch 2.6 cannot inspect a type.
_REDUCTIONS = get_args(Reduction)
_GATE_INITS = get_args(GateInit)

_OPEN = math.log(99)
"""The logit of a gate of 0.99."""


def check_reduction(reduction: str) -> None:
    """Raise unless `reduction` is a known way to reduce D gate values to one Intra-W."""
    check_choice("reduction", reduction, _REDUCTIONS)


def check_gate_init(gate_init: str) -> None:
    """Raise unless `gate_init` is a known initialization of the gates."""
    check_choice("gate_init", gate_init, _GATE_INITS)


def intra_relation(
    latents: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    reduction: Reduction = "sum",
) -> tuple[Tensor, Tensor]:
    r"""Weight every latent by an Intra-W computed from its own gate (equations 3, 4, 7).

    .. math::
        \boldsymbol\alpha_{i,j} &= \sigma(W_{s_j}^T l_{i,j} + b_{s_j}) \\
        \alpha_{i,j} &= \lVert \boldsymbol\alpha_{i,j} \rVert_1 \\
        f_{i,j} &= \alpha_{i,j}\, l_{i,j}

    `reduction` selects how the D gate values become one Intra-W:

    ========= ============================================ ==================== =================
    reduction Intra-W                                      where gates are 1/2  balance loss there
    ========= ============================================ ==================== =================
    "sum"     their sum: equation 4 as printed             D / 2                M (D / 2 - 1 / M)
    "mean"    their mean, the sum divided by D             1 / 2                M / 2 - 1
    "share"   their sum, divided by its sum over latents   1 / M                0
    ========= ============================================ ==================== =================

    The target of the balance loss is 1 / M. With the paper's M = 9 and D = 128 and gates near
    1 / 2, where :class:`torch.nn.Linear` initializes them, the loss is 575 for "sum" and 3.5 for
    "mean". With "sum", tanh of the distances in equation 9 is then 1, Inter-W is constant, and a
    network from random weights hardly learns. The cause is the initialization, not the equation:
    :class:`fdrl_layers.IntraRelation` initializes the gates so that Intra-W is 1 / M. The uniform
    target suggests a distribution over latents; "share" is exactly that. The meaning of the loss
    weights :math:`\lambda_2` and :math:`\lambda_3` depends on the choice.

    Args:
        latents: Latents l, the output of :func:`feature_decomposition`.
        weight: The M stacked gate layers; slice j is the transpose of :math:`W_{s_j}`.
        bias: The M stacked biases, or None for the equation as printed.
        reduction: "sum" (the paper's), "mean" or "share".

    Shape:
        - latents: (\*, M, D).
        - weight: (M, D, D).
        - bias: (M, D).
        - Output: intra-aware features (\*, M, D) and Intra-W (\*, M).

    Returns:
        The intra-aware features f in the type of `latents`, and Intra-W in at least float32.

    Raises:
        TypeError: If an argument is not floating point, or the types differ outside autocast.
        ValueError: If a shape does not fit, the devices differ, or `reduction` is unknown.

    Reference:
        Ruan et al., CVPR 2021, section 3.2.

    Example:
        >>> import torch
        >>> from fdrl_layers.functional import intra_relation
        >>> gates = torch.zeros(9, 128, 128)  # every gate is sigmoid(0) = 1 / 2
        >>> features, intra_weights = intra_relation(torch.rand(4, 9, 128), gates)
        >>> features.shape, intra_weights[0, 0].item()
        (torch.Size([4, 9, 128]), 64.0)
    """
    check_reduction(reduction)
    check_stacked("latents", latents, "* M D", weight, bias, "M D D")
    gates = add_bias(stacked_product(latents, weight), bias)
    weights = reduce_gates(widen(gates), reduction)
    return (weights.unsqueeze(-1) * latents).to(latents.dtype), weights


@fusable
class IntraRelation(StackedLinear):
    r"""Weight every latent by the L1 norm of its own gate (equations 3, 4, 7).

    See :func:`fdrl_layers.functional.intra_relation` for the equations and for the effect of
    `reduction` on the scale of the losses. This module holds the parameters `weight` (M, D, D) and
    `bias` (M, D).

    Args:
        latent_dim: Width D of a latent; at least 1. Paper: 128.
        num_latents: Number M of latents; at least 1. Paper: 9.
        reduction: How D gate values become one Intra-W: "sum" (equation 4 as printed), "mean"
            or "share" (a distribution over latents).
        gate_init: Initialization of the gates: "uniform", with one constant bias at which Intra-W
            is 1 / M, the balance loss's target, if the latents are zero; or "linear", with a bias
            drawn as :class:`torch.nn.Linear` does and gates near 1 / 2. The weight is drawn alike.
        bias: Whether the gates have a bias. The printed equation has none. Without a bias, gates
            start near 1 / 2 whatever `gate_init` is, since nothing else in equation 3 shifts them.
        device: As in :class:`torch.nn.Linear`.
        dtype: As in :class:`torch.nn.Linear`.

    Shape:
        - Input: latents (\*, M, D).
        - Output: intra-aware features (\*, M, D) and Intra-W (\*, M).

    Raises:
        TypeError: If a size is not an integer, or the latents are not floating point.
        ValueError: If a size is below 1, `reduction` or `gate_init` is unknown, or the latents do
            not fit.

    Note:
        The bias of "uniform" is -log(M D - 1) for "sum", -log(M - 1) for "mean" and 0 for "share".
        The weight shifts the initial Intra-W from 1 / M: in a new :class:`FDRLHead` of the paper's
        sizes, on rectified normal features, the mean of Intra-W is within 3 % of 1 / M, and each
        value of a sample within 15 %. If M = 1 with "mean", or M = D = 1 with "sum", the target of
        each gate is 1, which a sigmoid cannot reach, and the gates start at 0.99.

    Reference:
        Ruan et al., CVPR 2021, section 3.2.

    Example:
        >>> import torch
        >>> from fdrl_layers import IntraRelation
        >>> features, intra_weights = IntraRelation(reduction="share")(torch.rand(4, 9, 128))
        >>> features.shape, intra_weights.shape
        (torch.Size([4, 9, 128]), torch.Size([4, 9]))
        >>> torch.allclose(intra_weights.sum(-1), torch.ones(4))
        True
    """

    def __init__(
        self,
        latent_dim: int = 128,
        num_latents: int = 9,
        *,
        reduction: Reduction = "sum",
        gate_init: GateInit = "uniform",
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_reduction(reduction)
        check_gate_init(gate_init)
        # Set before the parameters are drawn, as drawing them uses these.
        self.reduction: Reduction = reduction
        self.gate_init: GateInit = gate_init
        super().__init__(num_latents, latent_dim, latent_dim, bias, device, dtype)

    def reset_parameters(self) -> None:
        """Reinitialize all parameters, and the gates according to `gate_init`."""
        # The bias is always drawn, so that later draws from the same seed do not change.
        super().reset_parameters()
        if self.bias is not None and self.gate_init == "uniform":
            nn.init.constant_(self.bias, self._uniform_bias())

    def _uniform_bias(self) -> float:
        """Return the gate's logit at which Intra-W is 1 / M."""
        m, d = self.weight.shape[:2]
        # Each gate must be 1 / inverse. For "share" any gate gives 1 / M; the sigmoid is steepest
        # at 1 / 2.
        inverse = {"sum": m * d, "mean": m, "share": 2}[self.reduction]
        # If `inverse` is 1, a gate must be 1, which a sigmoid never reaches.
        return -math.log(inverse - 1) if inverse > 1 else _OPEN

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Return the intra-aware features (*, M, D) and Intra-W (*, M)."""
        return intra_relation(latents, self.weight, self.bias, reduction=self.reduction)

    def extra_repr(self) -> str:
        """Return the sizes, the reduction and whether there is a bias."""
        return (
            f"latent_dim={self.latent_dim}, num_latents={self.num_latents}, "
            f"reduction={self.reduction!r}, bias={self.bias is not None}"
            f"{'' if self.gate_init == 'uniform' else f', gate_init={self.gate_init!r}'}"
        )
