"""Maps of the image regions that the Intra-W of a latent depends on."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fdrl_layers._checks import check_floating, check_size
from fdrl_layers.backbones.dry_run import without_trace
from fdrl_layers.head import FDRLOutput


def latent_cam(
    model: nn.Module,
    images: Tensor,
    latent: int,
    layer: nn.Module,
    *,
    channels_last: bool = False,
) -> Tensor:
    r"""Compute a Grad-CAM map of the Intra-W of one latent, from the gradients at a layer.

    With the maps :math:`A_c` that `layer` returns, and the Intra-W :math:`\omega_j` of equation 4,

    .. math::
        \alpha_c = \frac{1}{HW} \sum_{h,w} \frac{\partial \omega_j}{\partial A_{c,h,w}}, \qquad
        \text{map} = \max\Bigl(0, \sum_c \alpha_c A_c\Bigr).

    Grad-CAM itself uses the score of a class. For that, use Captum with :class:`LogitsOnly`.

    Args:
        model: A module that maps images to an :class:`FDRLOutput`. It runs in evaluation mode; its
            state is restored, and its parameters get no gradients.
        images: Images of faces.
        latent: Index j of the latent, in [0, M).
        layer: The layer of `model` whose maps are used, usually the last convolution or block.
        channels_last: Whether `layer` returns (N, H', W', C'), as the blocks of Swin do.

    Shape:
        - images: (N, C, H, W).
        - Output of `layer`: (N, C', H', W'), or (N, H', W', C') with `channels_last`.
        - Output: (N, H, W), interpolated from (N, H', W').

    Returns:
        The maps, at least 0 and on the scale of gradient times activation, so that the maps of
        images and latents can be compared. Divide them by their maximum to draw them.

    Raises:
        TypeError: If `images` are not floating point, or `latent` is not an integer.
        ValueError: If `layer` does not run exactly once or does not return maps, if square images
            give maps that are square along other axes, if `latent` is not below M, or if the model
            has no Intra-RM.

    Reference:
        Selvaraju et al., Grad-CAM, ICCV 2017, equations 1 and 2; applied to Ruan et al., CVPR
        2021, equation 4.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from fdrl_layers import attach_head, latent_cam
        >>> model = attach_head(nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU()), num_classes=7)
        >>> latent_cam(model, torch.randn(4, 3, 32, 32), 0, model.backbone[1]).shape
        torch.Size([4, 32, 32])
    """
    check_floating("images", images)
    check_size("latent", latent, minimum=0)
    caught: list[Tensor] = []

    def catch(module: nn.Module, inputs: Any, output: Any) -> Tensor:
        _check_maps(output, images, channels_last)
        caught.append(output.detach().requires_grad_())
        # Return a copy, as the next layer may work in place.
        return caught[-1].clone()

    hook = layer.register_forward_hook(catch)
    try:
        with without_trace(model), torch.enable_grad():
            weight = _intra_weight(model(images), latent)
    finally:
        hook.remove()
    if len(caught) != 1:
        raise ValueError(
            f"`layer` must run once in `model`, it ran {len(caught)} times; of a compiled model, "
            "give what was compiled"
        )
    if not weight.requires_grad:
        raise ValueError("`model` must have Intra-RM: without it, Intra-W is 1 whatever is shown")
    # A sample's Intra-W depends only on that sample, so one pass gives the gradients of all.
    (gradient,) = torch.autograd.grad(weight, caught)
    maps = caught[0].detach()
    if channels_last:
        gradient, maps = gradient.permute(0, 3, 1, 2), maps.permute(0, 3, 1, 2)
    found = torch.einsum("nc,nchw->nhw", gradient.mean((2, 3)), maps).relu()
    size = images.shape[-2:]
    return F.interpolate(found[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def _check_maps(maps: Any, images: Tensor, channels_last: bool) -> None:
    axes = "(N, H, W, C)" if channels_last else "(N, C, H, W)"
    if not isinstance(maps, Tensor) or maps.ndim != 4:
        got = tuple(maps.shape) if isinstance(maps, Tensor) else type(maps).__name__
        raise ValueError(f"`layer` must give maps {axes}, got {got}")
    _, a, b, c = maps.shape
    other, own = (b == c, a == b) if channels_last else (a == b, b == c)
    if images.shape[-2] == images.shape[-1] and other and not own:
        raise ValueError(
            f"`layer` must give maps {axes}, got {tuple(maps.shape)}: give "
            f"channels_last={not channels_last}"
        )


def _intra_weight(output: FDRLOutput, latent: int) -> Tensor:
    """Return the Intra-W of one latent, summed over samples."""
    intra_weights = output.intra_weights
    if latent >= intra_weights.shape[-1]:
        raise ValueError(f"`latent` must be below {intra_weights.shape[-1]}, got {latent}")
    return intra_weights[:, latent].sum()
