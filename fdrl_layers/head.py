"""The whole head: basic features in, logits and everything on the way to them out."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fdrl_layers._checks import check_alike, check_floating, check_shape, check_size
from fdrl_layers.layers import (
    FeatureDecomposition,
    FeatureReconstruction,
    Reduction,
    feature_decomposition,
    feature_reconstruction,
)
from fdrl_layers.layers._stacked_linear import check_stacked


@dataclass(frozen=True, eq=False)
class FDRLOutput:
    r"""What a head makes of basic features (\*, P).

    Registered with ``torch.export``, so that it may be the output of an exported program.
    ``nn.DataParallel`` cannot gather it; use ``DistributedDataParallel``.

    Attributes:
        logits: Class scores (\*, K); (\*, 0) where the head has no prediction layer.
        embedding: The expression feature y (\*, D), equation 12.
        latents: The latents l (\*, M, D), equation 1.
        intra_weights: Intra-W (\*, M), equation 4; all 1 where Intra-RM is left out.
        inter_weights: Inter-W (\*, M, M), equation 9; None where Inter-RM is left out.
    """

    logits: Tensor
    embedding: Tensor
    latents: Tensor
    intra_weights: Tensor
    inter_weights: Tensor | None


torch.export.register_dataclass(FDRLOutput, serialized_type_name="fdrl_layers.FDRLOutput")


def fdrl_head(
    input: Tensor,
    decomposition_weight: Tensor,
    decomposition_bias: Tensor | None = None,
    intra_weight: Tensor | None = None,
    intra_bias: Tensor | None = None,
    inter_weight: Tensor | None = None,
    inter_bias: Tensor | None = None,
    classifier_weight: Tensor | None = None,
    classifier_bias: Tensor | None = None,
    *,
    delta: float = 0.5,
    reduction: Reduction = "sum",
) -> FDRLOutput:
    r"""Decompose basic features, rebuild the expression feature and predict (equations 1 to 12).

    .. math::
        x \xrightarrow{\text{FDN}} l \xrightarrow{\text{Intra-RM}} f
        \xrightarrow{\text{Inter-RM}} \hat f \xrightarrow{\text{sum}} y
        \xrightarrow{\text{linear}} \text{logits}

    A part without parameters is left out: Intra-RM and Inter-RM as in
    :func:`feature_reconstruction`, the prediction layer by giving no logits.

    Args:
        input: Basic features x.
        decomposition_weight: Stacked layers of :func:`feature_decomposition`.
        decomposition_bias: Their biases.
        intra_weight: Stacked layers of :func:`intra_relation`.
        intra_bias: Their biases.
        inter_weight: Stacked layers of :func:`inter_relation`.
        inter_bias: Their biases.
        classifier_weight: The prediction layer (EPN).
        classifier_bias: Its bias.
        delta: Share of the intra-aware feature, in [0, 1]. Paper: 0.5.
        reduction: How D gate values become one Intra-W; see :func:`intra_relation`.

    Shape:
        - input: (\*, P).
        - decomposition_weight: (M, D, P); intra_weight, inter_weight: (M, D, D);
          the biases: (M, D).
        - classifier_weight: (K, D); classifier_bias: (K,).
        - Output: see :class:`FDRLOutput`.

    Returns:
        An :class:`FDRLOutput`.

    Raises:
        TypeError: If an argument is not floating point, or the types differ outside autocast.
        ValueError: If a shape does not fit, `delta` is outside [0, 1], `reduction` is unknown,
            or a bias comes without its weight.

    Reference:
        Ruan et al., CVPR 2021, section 3 and figure 2.

    Example:
        >>> import torch
        >>> from fdrl_layers import FDRLHead
        >>> from fdrl_layers.functional import fdrl_head
        >>> head, features = FDRLHead(512, 7), torch.randn(4, 512)
        >>> output = fdrl_head(features, *head.parameters())
        >>> torch.equal(output.logits, head(features).logits)
        True
    """
    check_stacked(
        "input", input, "* P", decomposition_weight, decomposition_bias, "M D P", "decomposition_"
    )
    latents = feature_decomposition(input, decomposition_weight, decomposition_bias)
    embedding, intra_weights, inter_weights = feature_reconstruction(
        latents,
        intra_weight,
        intra_bias,
        inter_weight,
        inter_bias,
        delta=delta,
        reduction=reduction,
    )
    if classifier_weight is None:
        if classifier_bias is not None:
            raise ValueError("`classifier_bias` must be None where `classifier_weight` is")
        logits = embedding.new_empty((*embedding.shape[:-1], 0))
    else:
        check_floating("classifier_weight", classifier_weight)
        check_shape("classifier_weight", classifier_weight, "K D", D=embedding.shape[-1])
        check_alike("classifier_weight", classifier_weight, "input", input)
        if classifier_bias is not None:
            check_floating("classifier_bias", classifier_bias)
            check_shape("classifier_bias", classifier_bias, "K", K=classifier_weight.shape[0])
            check_alike("classifier_bias", classifier_bias, "input", input)
        logits = F.linear(embedding, classifier_weight, classifier_bias)
    return FDRLOutput(logits, embedding, latents, intra_weights, inter_weights)


class FDRLHead(nn.Module):
    r"""FDRL on top of any backbone: basic features in, an :class:`FDRLOutput` out.

    The maths is :func:`fdrl_layers.functional.fdrl_head`, equations 1 to 12; the parameters lie
    in `decomposition`, `reconstruction` and `classifier`, under names that are API.

    Args:
        in_features: Width P of the basic feature; at least 1. The paper's ResNet-18 has 512.
        num_classes: Number K of classes; 0 leaves the prediction layer out. Paper: 7, or 6.
        latent_dim: Width D of the latents and of the embedding; at least 1. Paper: 128.
        num_latents: Number M of latents; at least 1. Paper: 9.
        delta: Share of the intra-aware feature, in [0, 1]. Paper: 0.5.
        intra: Whether to weigh latents by Intra-W (table 2).
        inter: Whether to add the inter-aware features (table 2).
        reduction: How D gate values become one Intra-W: "sum" is equation 4 as printed, "mean"
            and "share" are normalized. From a backbone without pre-training the printed form
            hardly learns; :func:`fdrl_layers.functional.intra_relation` says why.
        bias: Whether the linear layers have a bias. The printed equations have none.
        device: As in :class:`torch.nn.Linear`.
        dtype: As in :class:`torch.nn.Linear`.

    Shape:
        - Input: (\*, P).
        - Output: logits (\*, K), embedding (\*, D), latents (\*, M, D), Intra-W (\*, M) and
          Inter-W (\*, M, M) or None.

    Raises:
        TypeError: If a size is not an integer, or the input is not floating point.
        ValueError: If a size is too small, `delta` is outside [0, 1], `reduction` is unknown, or
            the input's last axis is not P wide.

    Note:
        A sample's output depends on that sample alone. In float16 the printed sum overflows
        where Intra-W times a latent exceeds 65,504.

    Reference:
        Ruan et al., CVPR 2021, section 3 and figure 2.

    Example:
        >>> import torch
        >>> from fdrl_layers import FDRLHead
        >>> head = FDRLHead(in_features=512, num_classes=7)
        >>> output = head(torch.randn(4, 512))
        >>> output.logits.shape, output.embedding.shape, output.inter_weights.shape
        (torch.Size([4, 7]), torch.Size([4, 128]), torch.Size([4, 9, 9]))
    """

    classifier: nn.Linear | None

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        latent_dim: int = 128,
        num_latents: int = 9,
        delta: float = 0.5,
        intra: bool = True,
        inter: bool = True,
        reduction: Reduction = "sum",
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_size("num_classes", num_classes, minimum=0)
        super().__init__()
        self.decomposition = FeatureDecomposition(
            in_features, latent_dim, num_latents, bias=bias, device=device, dtype=dtype
        )
        self.reconstruction = FeatureReconstruction(
            latent_dim,
            num_latents,
            delta=delta,
            intra=intra,
            inter=inter,
            reduction=reduction,
            bias=bias,
            device=device,
            dtype=dtype,
        )
        self.classifier = None
        if num_classes:
            self.classifier = nn.Linear(
                latent_dim, num_classes, bias=bias, device=device, dtype=dtype
            )
        self.in_features = in_features
        self.num_classes = num_classes

    def reset_parameters(self) -> None:
        """Draw all parameters anew."""
        self.decomposition.reset_parameters()
        self.reconstruction.reset_parameters()
        if self.classifier is not None:
            self.classifier.reset_parameters()

    def forward(self, input: Tensor) -> FDRLOutput:
        """Return the :class:`FDRLOutput` of basic features (*, P)."""
        latents = self.decomposition(input)
        embedding, intra_weights, inter_weights = self.reconstruction(latents)
        if self.classifier is None:
            logits = embedding.new_empty((*embedding.shape[:-1], 0))
        else:
            logits = self.classifier(embedding)
        return FDRLOutput(logits, embedding, latents, intra_weights, inter_weights)

    def extra_repr(self) -> str:
        """Say the sizes of both ends."""
        return f"in_features={self.in_features}, num_classes={self.num_classes}"
