"""One fully connected layer per latent, stacked in one parameter: the base of three layers."""

import math

import torch
from torch import Tensor, nn

from fdrl_layers._checks import check_alike, check_floating, check_shape, check_size


def check_stacked(
    name: str,
    tensor: Tensor,
    axes: str,
    weight: Tensor,
    bias: Tensor | None,
    weight_axes: str,
    prefix: str = "",
) -> None:
    """Raise unless `tensor` and the stacked parameters have the named axes and fit each other.

    `prefix` completes the parameters' names if a caller has several pairs.
    """
    check_floating(f"{prefix}weight", weight)
    check_shape(f"{prefix}weight", weight, weight_axes)
    if bias is not None:
        check_floating(f"{prefix}bias", bias)
        check_shape(f"{prefix}bias", bias, "M D", M=weight.shape[0], D=weight.shape[1])
        check_alike(f"{prefix}bias", bias, f"{prefix}weight", weight)
    check_floating(name, tensor)
    sizes = dict(zip(weight_axes.split(), weight.shape, strict=True))
    check_shape(name, tensor, axes, **{axis: sizes[axis] for axis in axes.split() if axis != "*"})
    check_alike(name, tensor, f"{prefix}weight", weight)


def check_pair(
    name: str,
    weight: Tensor | None,
    bias: Tensor | None,
    axes: str,
    bias_axes: str,
    input: Tensor,
    sizes: dict[str, int],
) -> None:
    """Raise unless a weight and its bias, each of which may be None, fit `sizes` and `input`."""
    if weight is None:
        if bias is not None:
            raise ValueError(f"`{name}_bias` must be None where `{name}_weight` is, got a tensor")
        return
    check_floating(f"{name}_weight", weight)
    check_shape(f"{name}_weight", weight, axes, **sizes)
    check_alike(f"{name}_weight", weight, "input", input)
    if bias is None:
        return
    known = dict(zip(axes.split(), weight.shape, strict=True))
    check_floating(f"{name}_bias", bias)
    check_shape(f"{name}_bias", bias, bias_axes, **{a: known[a] for a in bias_axes.split()})
    check_alike(f"{name}_bias", bias, "input", input)


class StackedLinear(nn.Module):
    """Parameters of M fully connected layers: `weight` (M, D, in) and `bias` (M, D)."""

    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(
        self,
        num_latents: int,
        in_features: int,
        latent_dim: int,
        bias: bool,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        check_size("latent_dim", latent_dim)
        check_size("num_latents", num_latents)
        super().__init__()
        self.latent_dim = latent_dim
        self.num_latents = num_latents
        shape = (num_latents, latent_dim, in_features)
        self.weight = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        if bias:
            self.bias = nn.Parameter(torch.empty(shape[:2], device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw every slice as :class:`torch.nn.Linear` does: U(-b, b) with b = in ** -0.5.

        :func:`torch.nn.init.kaiming_uniform_` would compute another fan from the stacked shape.
        """
        bound = 1 / math.sqrt(self.weight.shape[-1])
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def extra_repr(self) -> str:
        """Return the sizes and whether there is a bias."""
        return (
            f"latent_dim={self.latent_dim}, num_latents={self.num_latents}, "
            f"bias={self.bias is not None}"
        )
