"""The Feature Reconstruction Network (FRN), equations 11 and 12, and the rows of table 2."""

from typing import get_args

import torch
from torch import Tensor, nn

from fdrl_layers._checks import check_choice, check_floating, check_number, check_shape, check_size
from fdrl_layers._parts import fusable, reason_to_call, reset_parts
from fdrl_layers._precision import widen
from fdrl_layers.layers._stacked_linear import check_stacked
from fdrl_layers.layers.inter_relation import InterRelation
from fdrl_layers.layers.intra_relation import (
    GateInit,
    IntraRelation,
    Reduction,
    check_gate_init,
    check_reduction,
)
from fdrl_layers.ops.layers import reconstruct_feature
from fdrl_layers.ops.reference.head import (
    RelationParameters,
    SelfFeature,
    add_bias,
    stacked_product,
)

__all__ = ["FeatureReconstruction", "SelfFeature", "check_self_feature", "feature_reconstruction"]

# Evaluated here and not where it is used: the compiler of torch 2.6 cannot inspect a type.
_SELF_FEATURES = get_args(SelfFeature)


def check_self_feature(self_feature: str, has_messages: bool) -> None:
    """Raise unless `self_feature` is known and its feature for equation 11 is computed."""
    check_choice("self_feature", self_feature, _SELF_FEATURES)
    if self_feature == "message" and not has_messages:
        raise ValueError(
            '`self_feature` must be "intra" where Inter-RM is left out, which makes the messages, '
            f"got {self_feature!r}"
        )


def feature_reconstruction(
    latents: Tensor,
    intra_weight: Tensor | None = None,
    intra_bias: Tensor | None = None,
    inter_weight: Tensor | None = None,
    inter_bias: Tensor | None = None,
    *,
    delta: float = 0.5,
    reduction: Reduction = "sum",
    self_feature: SelfFeature = "intra",
) -> tuple[Tensor, Tensor, Tensor | None]:
    r"""Reconstruct the expression feature from latents (equations 3, 4 and 7 to 12).

    .. math::
        y_{i,j} &= \delta f_{i,j} + (1 - \delta) \hat f_{i,j} \\
        y_i &= \sum_{j=1}^{M} y_{i,j}

    with f from :func:`intra_relation` and :math:`\hat f` from :func:`inter_relation`. A relation
    without parameters is omitted, which gives the rows of table 2. The paper does not specify how.
    This function computes:

    - without Intra-RM: :math:`f_{i,j} = l_{i,j}`, every Intra-W is 1;
    - without Inter-RM: :math:`y_{i,j} = f_{i,j}`, as with :math:`\delta = 1`.

    Args:
        latents: Latents l.
        intra_weight: Stacked gate layers, or None to omit Intra-RM.
        intra_bias: Their biases.
        inter_weight: Stacked message layers, or None to omit Inter-RM.
        inter_bias: Their biases.
        delta: Share of the intra-aware feature, in [0, 1]. Paper: 0.5.
        reduction: How D gate values become one Intra-W; see :func:`intra_relation`.
        self_feature: What equation 11 mixes with :math:`\hat f_{i,j}`: "intra", the intra-aware
            feature :math:`f_{i,j}` as printed; or "message", :math:`g_{i,j}` of equation 8, as in
            the public implementation whose checkpoints :mod:`fdrl_layers.convert` reads.

    Shape:
        - latents: (\*, M, D).
        - intra_weight, inter_weight: (M, D, D).
        - intra_bias, inter_bias: (M, D).
        - Output: embedding (\*, D), Intra-W (\*, M), Inter-W (\*, M, M) or None.

    Returns:
        The embedding y in the type of the features, Intra-W and Inter-W in at least float32.

    Raises:
        TypeError: If an argument is not floating point, or the types differ outside autocast.
        ValueError: If a shape does not fit, `delta` is outside [0, 1], `reduction` or
            `self_feature` is unknown, a bias is given without its weight, or `self_feature` is
            "message" and Inter-RM is omitted.

    Reference:
        Ruan et al., CVPR 2021, section 3.2 and table 2.

    Example:
        >>> import torch
        >>> from fdrl_layers.functional import feature_reconstruction
        >>> latents = torch.rand(4, 9, 128)
        >>> embedding, _, inter_weights = feature_reconstruction(latents)  # FDN alone
        >>> torch.equal(embedding, latents.sum(-2)), inter_weights
        (True, None)
    """
    check_number("delta", delta, 0, 1)
    check_reduction(reduction)
    check_self_feature(self_feature, inter_weight is not None)
    check_floating("latents", latents)
    check_shape("latents", latents, "* M D")
    for prefix, weight, bias in (
        ("intra_", intra_weight, intra_bias),
        ("inter_", inter_weight, inter_bias),
    ):
        if weight is not None:
            check_stacked("latents", latents, "* M D", weight, bias, "M D D", prefix)
        elif bias is not None:
            raise ValueError(f"`{prefix}bias` must be None where `{prefix}weight` is, got a tensor")
    parameters = RelationParameters(intra_weight, intra_bias, inter_weight, inter_bias)
    return reconstruct_feature(latents, parameters, delta, reduction, self_feature)


@fusable
class FeatureReconstruction(nn.Module):
    r"""Reconstruct the expression feature from latents (equations 3, 4 and 7 to 12).

    See :func:`fdrl_layers.functional.feature_reconstruction` for the equations and the rows of
    table 2. The parameters are in `intra`, an :class:`IntraRelation`, and `inter`, an
    :class:`InterRelation`; either is None if it is omitted. Either may be wrapped, replaced by
    another module or given hooks. If both are unmodified, they are computed at once; otherwise both
    are called.

    Args:
        latent_dim: Width D of a latent; at least 1. Paper: 128.
        num_latents: Number M of latents; at least 1. Paper: 9.
        delta: Share of the intra-aware feature, in [0, 1]. Paper: 0.5.
        intra: Whether to weight latents by Intra-W. Without it, every Intra-W is 1, and the balance
            loss and the distribution loss are constant.
        inter: Whether to add the inter-aware features. Without them, `delta` has no effect.
        reduction: How D gate values become one Intra-W: "sum" (equation 4 as printed), "mean"
            or "share"; see :func:`fdrl_layers.functional.intra_relation`.
        gate_init: Initialization of the gates: "uniform", with Intra-W near 1 / M, or "linear",
            with gates near 1 / 2; see :class:`IntraRelation`.
        bias: Whether the layers have a bias. The printed equations have none.
        self_feature: What equation 11 mixes with the inter-aware feature: "intra", as printed, or
            "message"; see :func:`fdrl_layers.functional.feature_reconstruction`.
        device: As in :class:`torch.nn.Linear`.
        dtype: As in :class:`torch.nn.Linear`.

    Shape:
        - Input: latents (\*, M, D).
        - Output: embedding (\*, D), Intra-W (\*, M), Inter-W (\*, M, M) or None.

    Raises:
        TypeError: If a size is not an integer, or the latents are not floating point.
        ValueError: If a size is below 1, `delta` is outside [0, 1], `reduction`,
            `gate_init` or `self_feature` is unknown, `self_feature` is "message" without Inter-RM,
            or the latents do not fit.

    Reference:
        Ruan et al., CVPR 2021, section 3.2 and table 2.

    Example:
        >>> import torch
        >>> from fdrl_layers import FeatureReconstruction
        >>> reconstruction = FeatureReconstruction(delta=0.5)
        >>> embedding, intra_weights, inter_weights = reconstruction(torch.rand(4, 9, 128))
        >>> embedding.shape, intra_weights.shape, inter_weights.shape
        (torch.Size([4, 128]), torch.Size([4, 9]), torch.Size([4, 9, 9]))
    """

    intra: IntraRelation | None
    inter: InterRelation | None

    def __init__(
        self,
        latent_dim: int = 128,
        num_latents: int = 9,
        *,
        delta: float = 0.5,
        intra: bool = True,
        inter: bool = True,
        reduction: Reduction = "sum",
        gate_init: GateInit = "uniform",
        bias: bool = True,
        self_feature: SelfFeature = "intra",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_size("latent_dim", latent_dim)
        check_size("num_latents", num_latents)
        check_number("delta", delta, 0, 1)
        check_reduction(reduction)
        check_gate_init(gate_init)
        check_self_feature(self_feature, inter)
        super().__init__()
        self.latent_dim = latent_dim
        self.num_latents = num_latents
        self.delta = delta
        self.reduction: Reduction = reduction
        self.gate_init: GateInit = gate_init
        self.self_feature: SelfFeature = self_feature
        self.intra = self.inter = None
        if intra:
            self.intra = IntraRelation(
                latent_dim,
                num_latents,
                reduction=reduction,
                gate_init=gate_init,
                bias=bias,
                device=device,
                dtype=dtype,
            )
        if inter:
            self.inter = InterRelation(
                latent_dim, num_latents, bias=bias, device=device, dtype=dtype
            )

    def reset_parameters(self) -> None:
        """Reinitialize all parameters."""
        for relation in (self.intra, self.inter):
            if relation is not None:
                reset_parts(relation)

    def _reason_to_call_parts(self) -> str | None:
        """Return why the relations are called one after another; None if computed at once."""
        parts = self.__dict__["_modules"]
        return reason_to_call(
            (
                ("intra", parts.get("intra"), IntraRelation),
                ("inter", parts.get("inter"), InterRelation),
            )
        )

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the embedding (*, D), Intra-W (*, M) and Inter-W (*, M, M) or None."""
        check_floating("latents", latents)
        check_shape("latents", latents, "* M D", M=self.num_latents, D=self.latent_dim)
        if self._reason_to_call_parts() is not None:
            return self._call_parts(latents)
        return feature_reconstruction(
            latents,
            *((self.intra.weight, self.intra.bias) if self.intra is not None else (None, None)),
            *((self.inter.weight, self.inter.bias) if self.inter is not None else (None, None)),
            delta=self.delta,
            reduction=self.reduction,
            self_feature=self.self_feature,
        )

    def _call_parts(self, latents: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        features, intra_weights = latents, torch.ones_like(widen(latents[..., 0]))
        if self.intra is not None:
            features, intra_weights = self.intra(latents)
            check_floating("intra(latents)[0]", features)
            check_shape("intra(latents)[0]", features, "* M D", M=self.num_latents)
            check_shape("intra(latents)[1]", intra_weights, "* M", M=self.num_latents)
        if self.inter is None:
            return widen(features).sum(-2).to(latents.dtype), intra_weights, None
        aware, inter_weights = self.inter(features, need_weights=True)
        check_floating("inter(features)[0]", aware)
        own = features if self.self_feature == "intra" else self._messages(features)
        check_shape("inter(features)[0]", aware, "* M D", M=own.shape[-2], D=own.shape[-1])
        mixed = self.delta * widen(own) + (1 - self.delta) * widen(aware)
        return mixed.sum(-2).to(latents.dtype), intra_weights, inter_weights

    def _messages(self, features: Tensor) -> Tensor:
        """Return the messages of equation 8; a module that replaces `inter` may not define them."""
        inter = self.inter
        if not isinstance(inter, InterRelation):
            raise ValueError(
                '`self_feature` must be "intra" where `inter` is no InterRelation, whose messages '
                f'are known, got "message" with a {type(inter).__name__}'
            )
        return add_bias(stacked_product(features, inter.weight), inter.bias).relu()

    def extra_repr(self) -> str:
        """Return the sizes, delta, and which relations are present."""
        return (
            f"latent_dim={self.latent_dim}, num_latents={self.num_latents}, delta={self.delta}, "
            f"intra={self.intra is not None}, inter={self.inter is not None}"
            f"{'' if self.self_feature == 'intra' else f', self_feature={self.self_feature!r}'}"
        )
