"""The joint loss as a function of given centers, equation 13."""

from torch import Tensor

from fdrl_layers.head import FDRLOutput
from fdrl_layers.losses._cross_entropy import check_weight, check_weight_fits, cross_entropy
from fdrl_layers.losses.balance import balance_loss
from fdrl_layers.losses.compactness import compactness_loss
from fdrl_layers.losses.distribution import distribution_loss
from fdrl_layers.losses.joint.checks import check_batch, check_numbers
from fdrl_layers.losses.joint.output import FDRLLossOutput, join


def fdrl_loss(
    output: FDRLOutput,
    target: Tensor,
    latent_centers: Tensor,
    class_centers: Tensor,
    *,
    lambda_compactness: float = 1e-4,
    lambda_balance: float = 1.0,
    lambda_distribution: float = 1e-4,
    weight: Tensor | None = None,
    distribution_weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int = -100,
) -> FDRLLossOutput:
    r"""Compute the loss that FDRL minimizes, with given centers (equation 13).

    .. math:: \mathcal L = \mathcal L_{cls} + \lambda_1 \mathcal L_C + \lambda_2 \mathcal L_B
        + \lambda_3 \mathcal L_D

    with the cross-entropy, :func:`compactness_loss`, :func:`balance_loss` and
    :func:`distribution_loss`.

    With class weights :math:`\omega`, not in the paper, the cross-entropy of class indices is
    :math:`-\sum_i \omega_{t_i} \log p_{i,t_i} / \sum_i \omega_{t_i}`, and that of shares is
    :math:`-\frac1N \sum_{i,k} \omega_k t_{i,k} \log p_{i,k}`, as in PyTorch.

    Args:
        output: Output of a head for a batch.
        target: Class indices in [0, K), or class shares, each row of which sums to 1.
        latent_centers: Centers of the compactness loss.
        class_centers: Centers of the distribution loss.
        lambda_compactness: :math:`\lambda_1`, at least 0. Paper: 0.0001.
        lambda_balance: :math:`\lambda_2`, at least 0. Paper: 1.
        lambda_distribution: :math:`\lambda_3`, at least 0. Paper: 0.0001.
        weight: Class weights in the cross-entropy, at least 0, as in
            :class:`torch.nn.CrossEntropyLoss`. Paper: none.
        distribution_weight: Class weights in the distribution loss; see :func:`distribution_loss`.
        label_smoothing: Smoothing in the cross-entropy only, in [0, 1]. Paper: 0.
        ignore_index: Class index of samples without a label: they enter only the compactness and
            the balance loss, which need no label.

    Shape:
        - output: logits (N, K), latents (N, M, D), Intra-W (N, M).
        - target: (N,) of int64, or (N, K) of a floating-point type.
        - latent_centers: (M, D).
        - class_centers: (K, M).
        - weight, distribution_weight: (K,).
        - Output: scalars.

    Returns:
        An :class:`FDRLLossOutput`, in at least float32; a term without samples is 0.

    Raises:
        TypeError: If `output` is not an :class:`FDRLOutput`, or a type does not fit.
        ValueError: If a shape does not fit, the devices differ, a loss weight is out of range, or,
            on the CPU, a target or a class weight is.

    Reference:
        Ruan et al., CVPR 2021, section 3.3.

    Example:
        >>> import torch
        >>> from fdrl_layers import FDRLHead
        >>> from fdrl_layers.functional import fdrl_loss
        >>> output = FDRLHead(512, 7)(torch.randn(4, 512))
        >>> target = torch.tensor([0, 6, 3, 3])
        >>> losses = fdrl_loss(output, target, torch.zeros(9, 128), torch.zeros(7, 9))
        >>> losses.total.shape
        torch.Size([])
    """
    weights = (lambda_compactness, lambda_balance, lambda_distribution)
    check_numbers(weights, label_smoothing)
    check_batch(output, target, None, latent_centers, class_centers, ignore_index)
    logits = output.logits
    for name, each in (("weight", weight), ("distribution_weight", distribution_weight)):
        if each is not None:
            check_weight(name, each, logits.shape[1])
            check_weight_fits(name, each, logits.shape[1], "output.logits", logits)
    return join(
        cross_entropy(logits, target, weight, label_smoothing, ignore_index, False),
        compactness_loss(output.latents, latent_centers),
        balance_loss(output.intra_weights),
        distribution_loss(
            output.intra_weights,
            target,
            class_centers,
            weight=distribution_weight,
            ignore_index=ignore_index,
        ),
        weights,
    )
