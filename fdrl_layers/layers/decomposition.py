"""The Feature Decomposition Network (FDN), equation 1."""

import torch
from torch import Tensor

from fdrl_layers._checks import check_size
from fdrl_layers._parts import fusable
from fdrl_layers.layers._stacked_linear import StackedLinear, check_stacked
from fdrl_layers.ops.reference.head import decompose


def feature_decomposition(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    r"""Decompose basic features into M latent features each (equation 1).

    .. math:: l_{i,j} = \mathrm{ReLU}(W_{d_j}^T x_i + b_{d_j}), \qquad j = 1, \dots, M

    The equation in the paper has no bias; its figure says "FC layer", and public code has biases.
    Both are supported.

    Args:
        input: Basic features x, the output of a backbone after pooling.
        weight: The M stacked layers; slice j is the transpose of the paper's :math:`W_{d_j}`.
        bias: The M stacked biases, or None for the equation as printed.

    Shape:
        - input: (\*, P) with any number of leading axes; the paper has P = 512.
        - weight: (M, D, P); the paper has M = 9, D = 128.
        - bias: (M, D).
        - Output: (\*, M, D), not negative.

    Returns:
        The latents, in the type of the matrix product.

    Raises:
        TypeError: If an argument is not floating point, or the types differ outside autocast.
        ValueError: If a shape does not fit, or the devices differ.

    Reference:
        Ruan et al., *Feature Decomposition and Reconstruction Learning for Effective Facial
        Expression Recognition*, CVPR 2021, section 3.1.

    Example:
        >>> import torch
        >>> from fdrl_layers.functional import feature_decomposition
        >>> latents = feature_decomposition(torch.randn(4, 512), torch.randn(9, 128, 512))
        >>> latents.shape
        torch.Size([4, 9, 128])
    """
    check_stacked("input", input, "* P", weight, bias, "M D P")
    return decompose(input, weight, bias)


@fusable
class FeatureDecomposition(StackedLinear):
    r"""Decompose basic features into M latents by one linear layer and ReLU each (equation 1).

    See :func:`fdrl_layers.functional.feature_decomposition` for the equation. This module holds the
    parameters `weight` (M, D, P) and `bias` (M, D). Each slice is drawn as :class:`torch.nn.Linear`
    does.

    Args:
        in_features: Width P of the basic feature; at least 1. The paper's ResNet-18 has 512.
        latent_dim: Width D of a latent; at least 1. Paper: 128.
        num_latents: Number M of latents; at least 1. Paper: 9, the best of figure 4.
        bias: Whether the layers have a bias. The printed equation has none.
        device: As in :class:`torch.nn.Linear`.
        dtype: As in :class:`torch.nn.Linear`.

    Shape:
        - Input: (\*, P).
        - Output: (\*, M, D).

    Raises:
        TypeError: If a size is not an integer, or the input is not floating point.
        ValueError: If a size is below 1, or the input's last axis is not P wide.

    Reference:
        Ruan et al., CVPR 2021, section 3.1.

    Example:
        >>> import torch
        >>> from fdrl_layers import FeatureDecomposition
        >>> decomposition = FeatureDecomposition(512)
        >>> decomposition(torch.randn(4, 512)).shape
        torch.Size([4, 9, 128])
    """

    def __init__(
        self,
        in_features: int,
        latent_dim: int = 128,
        num_latents: int = 9,
        *,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_size("in_features", in_features)
        super().__init__(num_latents, in_features, latent_dim, bias, device, dtype)
        self.in_features = in_features

    def forward(self, input: Tensor) -> Tensor:
        """Return the latents (*, M, D) of basic features (*, P)."""
        return feature_decomposition(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        """Return the sizes and whether there is a bias."""
        return f"in_features={self.in_features}, {super().extra_repr()}"
