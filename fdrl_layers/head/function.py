"""The head as a function of its parameters, equations 1 to 12."""

from torch import Tensor

from fdrl_layers._checks import check_number
from fdrl_layers.head.output import FDRLOutput
from fdrl_layers.layers import Reduction, SelfFeature
from fdrl_layers.layers._stacked_linear import check_pair, check_stacked
from fdrl_layers.layers.intra_relation import check_reduction
from fdrl_layers.layers.reconstruction import check_self_feature
from fdrl_layers.ops.backend import Backend, check_backend
from fdrl_layers.ops.head import head
from fdrl_layers.ops.reference.head import HeadParameters


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
    backend: Backend = "auto",
    recompute: bool = False,
    self_feature: SelfFeature = "intra",
) -> FDRLOutput:
    r"""Decompose basic features, reconstruct the expression feature, predict (equations 1 to 12).

    .. math::
        x \xrightarrow{\text{FDN}} l \xrightarrow{\text{Intra-RM}} f
        \xrightarrow{\text{Inter-RM}} \hat f \xrightarrow{\text{sum}} y
        \xrightarrow{\text{linear}} \text{logits}

    A part without parameters is omitted: Intra-RM and Inter-RM as in
    :func:`feature_reconstruction`; without a prediction layer there are no logits.

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
        backend: "torch", PyTorch's own kernels; "triton", fused kernels on CUDA; or "auto", Triton
            if it can run, unless :func:`fdrl_layers.use_backend` selects another.
        recompute: Whether training keeps only the basic features and the latents, and repeats their
            products in the backward pass: 5 KiB per sample instead of 14, in float32.
        self_feature: What equation 11 mixes with the inter-aware feature: "intra", as printed, or
            "message"; see :func:`feature_reconstruction`. "message" runs only on PyTorch's own
            kernels, and does not recompute.

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
        ValueError: If a shape does not fit, `delta` is outside [0, 1], `reduction` or
            `self_feature` is unknown, a bias is given without its weight, or `self_feature` is
            "message" and Inter-RM is omitted.
        RuntimeError: If `backend` is "triton" and its kernels cannot run; the message says why.

    Note:
        All backends compute the same numbers up to rounding. Sums over rows are rearranged, so that
        neither the intra-aware nor the inter-aware features are computed (:func:`intra_relation`
        and :func:`inter_relation` return them).

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
    check_number("delta", delta, 0, 1)
    check_reduction(reduction)
    check_self_feature(self_feature, inter_weight is not None)
    check_backend(backend)
    m, d, _ = decomposition_weight.shape
    stacked = {"M": m, "D": d}
    check_pair("intra", intra_weight, intra_bias, "M D D", "M D", input, stacked)
    check_pair("inter", inter_weight, inter_bias, "M D D", "M D", input, stacked)
    check_pair("classifier", classifier_weight, classifier_bias, "K D", "K", input, {"D": d})
    parameters = HeadParameters(
        decomposition_weight,
        decomposition_bias,
        intra_weight,
        intra_bias,
        inter_weight,
        inter_bias,
        classifier_weight,
        classifier_bias,
    )
    return FDRLOutput(
        *head(
            input, parameters, delta, reduction, self_feature, backend=backend, recompute=recompute
        )
    )
