"""The joint loss as a module that holds the centers, equation 13."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fdrl_layers._checks import check_size
from fdrl_layers._parts import reason_to_call, reset_parts
from fdrl_layers._precision import widen
from fdrl_layers._ranks import number_of_ranks
from fdrl_layers.head import FDRLOutput
from fdrl_layers.losses._cross_entropy import (
    check_weight,
    check_weight_fits,
    cross_entropy,
    register_weight,
)
from fdrl_layers.losses.balance import BalanceLoss
from fdrl_layers.losses.centers import Centers, CenterUpdate
from fdrl_layers.losses.compactness import CompactnessLoss
from fdrl_layers.losses.distribution import DistributionLoss
from fdrl_layers.losses.joint.checks import check_batch, check_classification, check_numbers
from fdrl_layers.losses.joint.output import FDRLLossOutput, join
from fdrl_layers.ops.backend import Backend, check_backend, choose
from fdrl_layers.ops.joint import Features, Options, by_hand, joint


def _centers_of(term: nn.Module) -> Centers | None:
    """Return the centers of a term; a user's own term may have none."""
    centers = term.__dict__["_modules"].get("centers")
    return centers if isinstance(centers, Centers) else None


class FDRLLoss(nn.Module):
    r"""The loss that FDRL minimizes (equation 13).

    **With** `center_update="gradient"` **the centers are parameters: pass** ``loss.parameters()``
    **to an optimizer.** With "alpha" and "ema" they are buffers that every training forward pass
    updates, and no optimizer is needed. In both cases they are state: move the loss with
    ``.to(device)``, switch it with ``.train()`` and ``.eval()``, and save its ``state_dict()`` with
    the model's.

    See :func:`fdrl_layers.functional.fdrl_loss` for the equations. Unmodified terms `compactness`,
    `balance` and `distribution` are computed at once. If one is replaced, is an instance of a
    subclass or has a hook, all are called one after another.

    Args:
        num_classes: Number K of classes; at least 1. Paper: 7, or 6.
        num_latents: Number M of latents; at least 1. Paper: 9.
        latent_dim: Width D of a latent; at least 1. Paper: 128.
        lambda_compactness: :math:`\lambda_1`, at least 0. Paper: 0.0001. It weights a sum over M D
            numbers: on FER+, 0.01 cost over four points, and with 0.1 the network learned nothing.
        lambda_balance: :math:`\lambda_2`, at least 0. Paper: 1.
        lambda_distribution: :math:`\lambda_3`, at least 0. Paper: 0.0001. The meaning of
            :math:`\lambda_2` and :math:`\lambda_3` depends on the head's `reduction`; set both to 0
            for a head without Intra-RM, whose Intra-W is constant.
        center_update: How centers are updated: "alpha" (Wen et al.), "ema" or "gradient"; see
            :class:`CompactnessLoss` and :class:`DistributionLoss`.
        center_rate: Wen et al.'s :math:`\alpha`, or the moving average's weight of the new batch,
            in [0, 1]; without effect under "gradient". Wen et al.: 0.5.
        weight: Class weights (K,) in the cross-entropy, at least 0, for rare classes: a buffer in
            the ``state_dict``, exactly as in :class:`torch.nn.CrossEntropyLoss`, except that a
            batch whose weights are all 0 has the loss 0. Paper: none.
        distribution_weight: The same for the distribution loss; see :class:`DistributionLoss`.
        classification: Replacement of the cross-entropy, such as a focal loss: any callable of
            logits (N, K), in at least float32, and the unchanged target, that returns a scalar. It
            must handle weights, smoothing and ignored samples itself. Over ranks, only its
            gradients are averaged. The terms are then computed one by one.
        label_smoothing: Smoothing in the cross-entropy only, in [0, 1]. Paper: 0.
        ignore_index: Class index of samples without a label.
        across_ranks: Whether, in training with a process group, every mean is that of the joined
            batch of all ranks, so that R ranks with n samples give the losses, gradients and
            centers of one process with R n samples. Every rank must then call the loss equally
            often, and gradients must be averaged over ranks, as DDP and FSDP do.
        backend: "torch", PyTorch's own kernels; "triton", fused kernels on CUDA; or "auto", Triton
            if it can run, unless :func:`use_backend` selects another. In training on class indices,
            one operator computes all terms, and exchanges one buffer if there are several ranks;
            otherwise the terms are computed one by one.
        device: Device of the centers.
        dtype: Type of the centers.

    Shape:
        - Input: an :class:`FDRLOutput` with logits (N, K), latents (N, M, D) and Intra-W (N, M);
          target (N,) of int64 or (N, K) of a floating-point type.
        - Output: scalars, see :class:`FDRLLossOutput`.

    Raises:
        TypeError: If the output is not an :class:`FDRLOutput`, or a type does not fit.
        ValueError: If a shape does not fit, the devices differ, an option is out of range or
            excludes another, or, on the CPU, a target is out of range.
        RuntimeError: If `backend` is "triton" and its kernels cannot run; the message says why.

    Reference:
        Ruan et al., CVPR 2021, section 3.3.

    Example:
        >>> import torch
        >>> from fdrl_layers import FDRLHead, FDRLLoss
        >>> head, criterion = FDRLHead(512, 7), FDRLLoss(num_classes=7)
        >>> output, target = head(torch.randn(4, 512)), torch.tensor([0, 6, 3, 3])
        >>> criterion(output, target).total.backward()

        Rare classes by weights, or by another loss:

        >>> weighted = FDRLLoss(num_classes=7, weight=torch.tensor([1.0, 2, 4, 1, 1, 1, 1]))
        >>> def focal(logits, target):
        ...     each = torch.nn.functional.cross_entropy(logits, target, reduction="none")
        ...     return ((1 - (-each).exp()) ** 2 * each).mean()
        >>> other = FDRLLoss(num_classes=7, classification=focal)
        >>> output = head(torch.randn(4, 512))
        >>> torch.equal(other(output, target).classification, focal(output.logits, target))
        True
    """

    weight: Tensor | None

    def __init__(
        self,
        num_classes: int,
        *,
        num_latents: int = 9,
        latent_dim: int = 128,
        lambda_compactness: float = 1e-4,
        lambda_balance: float = 1.0,
        lambda_distribution: float = 1e-4,
        center_update: CenterUpdate = "alpha",
        center_rate: float = 0.5,
        weight: Tensor | None = None,
        distribution_weight: Tensor | None = None,
        classification: Callable[[Tensor, Tensor], Tensor] | None = None,
        label_smoothing: float = 0.0,
        ignore_index: int = -100,
        across_ranks: bool = True,
        backend: Backend = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_size("num_classes", num_classes)
        check_backend(backend)
        check_numbers((lambda_compactness, lambda_balance, lambda_distribution), label_smoothing)
        check_classification(classification, weight, label_smoothing)
        super().__init__()
        self.classification = classification
        register_weight(self, "weight", weight, num_classes, device)
        if distribution_weight is not None:
            check_weight("distribution_weight", distribution_weight, num_classes)
        self.lambda_compactness = lambda_compactness
        self.lambda_balance = lambda_balance
        self.lambda_distribution = lambda_distribution
        self.num_classes = num_classes
        self.label_smoothing = label_smoothing
        self.ignore_index = ignore_index
        self.across_ranks = across_ranks
        self.backend: Backend = backend
        centers: dict[str, Any] = {
            "center_update": center_update,
            "center_rate": center_rate,
            "across_ranks": across_ranks,
            "device": device,
            "dtype": dtype,
        }
        self.compactness = CompactnessLoss(latent_dim, num_latents, **centers)
        self.balance = BalanceLoss(across_ranks=across_ranks)
        self.distribution = DistributionLoss(
            num_classes,
            num_latents,
            weight=distribution_weight,
            ignore_index=ignore_index,
            **centers,
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Load modules that were pickled before class weights existed."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._buffers.setdefault("weight", None)
        if "classification" not in self._modules:
            self.__dict__.setdefault("classification", None)

    def reset_parameters(self) -> None:
        """Reset the centers, so that the next training batch is the first."""
        reset_parts(self.compactness)
        reset_parts(self.distribution)

    @contextmanager
    def accumulate(self) -> Iterator[None]:
        r"""Treat all training batches inside as parts of one; update the centers once, at the end.

        A context for gradients that are accumulated over micro-batches of any sizes, like
        :meth:`~torch.nn.parallel.DistributedDataParallel.no_sync`. Each part is compared with the
        centers before the update, and its exact sums and counts are accumulated, so that the update
        is that of the joint batch, up to rounding. If a center has no data yet, each part is
        compared with its own mean, and the center is initialized to the mean of all. The centers
        are not updated after an exception, or if a part is not finite. The accumulated sums are not
        in a ``state_dict``, copy or pickle.

        The loss of a part is that of a separate batch: weight it by its share of the samples. The
        balance loss is the distance of a batch's mean. The mean of the parts' balance losses is not
        below that of the joint batch.

        With several ranks the sums are exchanged at the end too, so every rank must leave the
        context in the same way. A user's own term uses its own `accumulate`, if it has one.

        Raises:
            RuntimeError: If it is nested.

        Example:
            >>> import torch
            >>> from fdrl_layers import FDRLHead, FDRLLoss
            >>> head, criterion = FDRLHead(512, 7), FDRLLoss(num_classes=7)
            >>> features, target = torch.randn(10, 512), torch.arange(10) % 7
            >>> with criterion.accumulate():
            ...     for part, labels in zip(features.split(4), target.split(4)):
            ...         (criterion(head(part), labels).total * len(part) / 10).backward()
        """
        with ExitStack() as stack:
            for term in (self.compactness, self.distribution):
                if callable(enter := getattr(term, "accumulate", None)):
                    stack.enter_context(enter())
            yield

    def forward(self, output: FDRLOutput, target: Tensor) -> FDRLLossOutput:
        """Return the joint loss of a batch and its terms; in training, update the centers."""
        reason = self._reason_to_call_terms()
        terms = self.__dict__["_modules"]
        latents, classes = _centers_of(terms["compactness"]), _centers_of(terms["distribution"])
        latent_centers = None if latents is None else latents.movable()
        class_centers = None if classes is None else classes.movable()
        weight = self._buffers["weight"]
        all_counted = check_batch(
            output,
            target,
            self.num_classes,
            None if latent_centers is None else latent_centers.value,
            None if class_centers is None else class_centers.value,
            self.ignore_index,
        )
        if weight is not None:
            check_weight_fits("weight", weight, self.num_classes, "output.logits", output.logits)
        if reason is not None:
            choose("FDRLLoss", self.backend, reason)
        lambdas = (self.lambda_compactness, self.lambda_balance, self.lambda_distribution)
        features = Features(output.logits, output.latents, output.intra_weights)
        across_ranks = self.across_ranks and self.training
        ranks = across_ranks and number_of_ranks() > 1
        if (
            reason is not None
            or not self.training
            or latents is None
            or latent_centers is None
            or classes is None
            or class_centers is None
            or not (latents.training and classes.training)
            or latents.update == "gradient"
            or not by_hand(
                features,
                target,
                (latent_centers.value, class_centers.value),
                weight=weight,
                ranks=ranks,
            )
        ):
            return join(
                self._classify(output.logits, target, across_ranks),
                self.compactness(output.latents),
                self.balance(output.intra_weights),
                self.distribution(output.intra_weights, target),
                lambdas,
            )
        options = Options(
            latents.update,
            latents.rate,
            lambdas,
            self.label_smoothing,
            self.ignore_index,
            all_counted,
            complete=False,
            ranks=ranks,
        )
        found = joint(
            features,
            target,
            latent_centers,
            class_centers,
            options,
            weight=weight,
            complete=lambda: latents.complete() and classes.complete(),
            backend=self.backend,
        )
        if latents.accumulating:
            latents.gather(self.compactness._statistics(output.latents))
        if classes.accumulating:
            classes.gather(self.distribution._statistics(output.intra_weights, target))
        return FDRLLossOutput(*found)

    def _reason_to_call_terms(self) -> str | None:
        """Return why the terms are called one by one; None if they may be computed at once."""
        if self.classification is not None:
            return "`classification` takes the cross-entropy's place"
        terms = self.__dict__["_modules"]
        compactness, distribution = terms["compactness"], terms["distribution"]
        reason = reason_to_call(
            (
                ("compactness", compactness, CompactnessLoss),
                ("balance", terms["balance"], BalanceLoss),
                ("distribution", distribution, DistributionLoss),
                ("compactness.centers", _centers_of(compactness), Centers),
                ("distribution.centers", _centers_of(distribution), Centers),
            )
        )
        if reason is None and distribution.__dict__["_buffers"]["weight"] is not None:
            return "`distribution` weighs classes"
        return reason

    def _classify(self, logits: Tensor, target: Tensor, across_ranks: bool) -> Tensor:
        """Return the cross-entropy or its replacement."""
        if self.classification is None:
            smoothing, ignored = self.label_smoothing, self.ignore_index
            return cross_entropy(logits, target, self.weight, smoothing, ignored, across_ranks)
        found = self.classification(widen(logits), target)
        if not isinstance(found, Tensor) or not found.is_floating_point() or found.ndim:
            shape = f"{found.dtype} of {tuple(found.shape)}" if isinstance(found, Tensor) else found
            raise ValueError(f"`classification` must return a scalar tensor, got {shape}")
        return found

    def extra_repr(self) -> str:
        """Return the weights of the terms, and the backend if not the default."""
        return (
            f"lambda_compactness={self.lambda_compactness:g}, "
            f"lambda_balance={self.lambda_balance:g}, "
            f"lambda_distribution={self.lambda_distribution:g}"
            f"{'' if self.backend == 'auto' else f', backend={self.backend!r}'}"
        )
