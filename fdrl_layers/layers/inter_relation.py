"""Inter-feature relation modeling (Inter-RM), equations 8, 9 and 10."""

from typing import Literal, overload

import torch
from torch import Tensor

from fdrl_layers._parts import fusable
from fdrl_layers.layers._stacked_linear import StackedLinear, check_stacked
from fdrl_layers.ops.layers import collect_messages


@overload
def inter_relation(
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    need_weights: Literal[False] = False,
) -> Tensor: ...


@overload
def inter_relation(
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    need_weights: Literal[True],
) -> tuple[Tensor, Tensor]: ...


def inter_relation(
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    need_weights: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Sum the messages of all other latents, weighted by distance (equations 8, 9, 10).

    .. math::
        g_{i,j} &= \mathrm{ReLU}(W_{e_j}^T f_{i,j} + b_{e_j}) \\
        \omega_i(j, m) &= \begin{cases}
            \tanh \lVert g_{i,j} - g_{i,m} \rVert_2 & j \neq m \\ 0 & j = m \end{cases} \\
        \hat f_{i,j} &= \sum_{m=1}^{M} \omega_i(j, m)\, g_{i,m}

    Distances are computed from differences in at least float32. If the messages of two latents
    coincide, as all-zero messages after ReLU often do, Inter-W is 0 and its gradient through that
    pair is 0.

    Args:
        features: Intra-aware features f; latents if Intra-RM is omitted (table 2).
        weight: The M stacked message layers; slice j is the transpose of :math:`W_{e_j}`.
        bias: The M stacked biases, or None for the equation as printed.
        need_weights: Whether to return Inter-W as well.

    Shape:
        - features: (\*, M, D).
        - weight: (M, D, D).
        - bias: (M, D).
        - Output: inter-aware features (\*, M, D); with `need_weights` also Inter-W (\*, M, M),
          symmetric, in [0, 1).

    Returns:
        The inter-aware features in the type of the messages, and Inter-W in at least float32.

    Raises:
        TypeError: If an argument is not floating point, or the types differ outside autocast.
        ValueError: If a shape does not fit, or the devices differ.

    Note:
        Beyond a distance of about 9 (4 in bfloat16) tanh rounds to 1: Inter-W is constant and has
        no gradient. With `reduction="sum"` and `gate_init="linear"` every new head starts there.

    Reference:
        Ruan et al., CVPR 2021, section 3.2.

    Example:
        >>> import torch
        >>> from fdrl_layers.functional import inter_relation
        >>> same = torch.eye(128).expand(9, 128, 128)  # the message is the feature itself
        >>> features = torch.zeros(1, 9, 128)
        >>> features[0, 0, 0] = 0.5
        >>> aware, inter_weights = inter_relation(features, same, need_weights=True)
        >>> inter_weights[0, 0, :3]  # tanh(0.5) to the others, 0 to itself
        tensor([0.0000, 0.4621, 0.4621])
    """
    check_stacked("features", features, "* M D", weight, bias, "M D D")
    aware, weights = collect_messages(features, weight, bias)
    return (aware, weights) if need_weights else aware


@fusable
class InterRelation(StackedLinear):
    r"""Sum the messages of all other latents, weighted by distance (equations 8, 9, 10).

    See :func:`fdrl_layers.functional.inter_relation` for the equations. This module holds the
    parameters `weight` (M, D, D) and `bias` (M, D).

    Args:
        latent_dim: Width D of a latent; at least 1. Paper: 128.
        num_latents: Number M of latents; at least 1. Paper: 9.
        bias: Whether the message layers have a bias. The printed equation has none.
        device: As in :class:`torch.nn.Linear`.
        dtype: As in :class:`torch.nn.Linear`.

    Shape:
        - Input: intra-aware features (\*, M, D).
        - Output: inter-aware features (\*, M, D); with `need_weights=True` also Inter-W
          (\*, M, M).

    Raises:
        TypeError: If a size is not an integer, or the features are not floating point.
        ValueError: If a size is below 1, or the features do not fit.

    Reference:
        Ruan et al., CVPR 2021, section 3.2.

    Example:
        >>> import torch
        >>> from fdrl_layers import InterRelation
        >>> relation = InterRelation()
        >>> relation(torch.rand(4, 9, 128)).shape
        torch.Size([4, 9, 128])
        >>> _, inter_weights = relation(torch.rand(4, 9, 128), need_weights=True)
        >>> inter_weights.shape
        torch.Size([4, 9, 9])
    """

    def __init__(
        self,
        latent_dim: int = 128,
        num_latents: int = 9,
        *,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(num_latents, latent_dim, latent_dim, bias, device, dtype)

    @overload
    def forward(self, features: Tensor, need_weights: Literal[False] = False) -> Tensor: ...

    @overload
    def forward(self, features: Tensor, need_weights: Literal[True]) -> tuple[Tensor, Tensor]: ...

    def forward(
        self, features: Tensor, need_weights: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return the inter-aware features (*, M, D), with `need_weights` also Inter-W."""
        if need_weights:
            return inter_relation(features, self.weight, self.bias, need_weights=True)
        return inter_relation(features, self.weight, self.bias)
