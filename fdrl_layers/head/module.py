"""The head as a module that holds its parameters."""

from typing import Any

import torch
from torch import Tensor, nn

from fdrl_layers._checks import check_alike, check_floating, check_shape, check_size
from fdrl_layers._parts import reason_to_call, reset_parts, weight_and_bias
from fdrl_layers.head.output import FDRLOutput
from fdrl_layers.hub import HubMixin
from fdrl_layers.layers import (
    FeatureDecomposition,
    FeatureReconstruction,
    GateInit,
    InterRelation,
    IntraRelation,
    Reduction,
    SelfFeature,
)
from fdrl_layers.ops.backend import Backend, BackendChoice, check_backend, choose
from fdrl_layers.ops.head import backend_choice, head
from fdrl_layers.ops.reference.head import HeadParameters


class FDRLHead(HubMixin, nn.Module):
    r"""The FDRL head for any backbone: maps basic features to an :class:`FDRLOutput`.

    See :func:`fdrl_layers.functional.fdrl_head` for equations 1 to 12. The parameters are in
    `decomposition`, `reconstruction` and `classifier`; their names are part of the API.

    Args:
        in_features: Width P of the basic feature; at least 1. The paper's ResNet-18 has 512.
        num_classes: Number K of classes; 0 omits the prediction layer. Paper: 7, or 6.
        latent_dim: Width D of the latents and of the embedding; at least 1. Paper: 128.
        num_latents: Number M of latents; at least 1. Paper: 9.
        delta: Share of the intra-aware feature, in [0, 1]. Paper: 0.5.
        intra: Whether to weight latents by Intra-W (table 2).
        inter: Whether to add the inter-aware features (table 2).
        reduction: How D gate values become one Intra-W: "sum" is equation 4 as printed, "mean"
            and "share" are normalized; :func:`fdrl_layers.functional.intra_relation` compares them.
        gate_init: Initialization of the gates: "uniform", with Intra-W near 1 / M, the balance
            loss's target; or "linear", near 1 / 2 as in :class:`torch.nn.Linear`, where a network
            with random weights hardly learns with "sum". See :class:`IntraRelation`.
        bias: Whether the linear layers have a bias. The printed equations have none.
        backend: "torch", PyTorch's own kernels; "triton", fused kernels on CUDA; or "auto", Triton
            if it can run, unless :func:`use_backend` selects another. :meth:`backend_choice`
            returns the result.
        recompute: Whether training keeps only the basic features and the latents, and repeats their
            products in the backward pass: 5 KiB per sample instead of 14, in float32.
        self_feature: What equation 11 mixes with the inter-aware feature: "intra", as printed, or
            "message", as in a public implementation; see
            :func:`fdrl_layers.functional.feature_reconstruction`. "message" runs only on PyTorch's
            own kernels, and does not recompute.
        device: As in :class:`torch.nn.Linear`.
        dtype: As in :class:`torch.nn.Linear`.

    Shape:
        - Input: (\*, P).
        - Output: logits (\*, K), embedding (\*, D), latents (\*, M, D), Intra-W (\*, M) and
          Inter-W (\*, M, M) or None.

    Raises:
        TypeError: If a size is not an integer, or the input is not floating point.
        ValueError: If a size is too small, `delta` is outside [0, 1], `reduction`,
            `gate_init` or `self_feature` is unknown, `self_feature` is "message" without Inter-RM,
            or the input's last axis is not P wide.
        RuntimeError: If `backend` is "triton" and its kernels cannot run; the message says why.

    Note:
        A sample's output depends on that sample only. In float16, "sum" overflows if Intra-W times
        a latent exceeds 65,504. The Intra-W of a new head is about 1 / M.

        Unmodified parts are computed at once. If `decomposition` or `reconstruction` is replaced,
        is an instance of a subclass, has a hook or overrides `forward`, all parts are called one
        after another, and :meth:`backend_choice` reports this. Any module that maps (\*, P) to
        (\*, M, D) can replace `decomposition`, and any that maps latents to embedding, Intra-W, and
        Inter-W or None can replace `reconstruction`. A `classifier` that is not a
        :class:`torch.nn.Linear`, such as a quantized one, is called after the rest.

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
        gate_init: GateInit = "uniform",
        bias: bool = True,
        backend: Backend = "auto",
        recompute: bool = False,
        self_feature: SelfFeature = "intra",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_size("num_classes", num_classes, minimum=0)
        check_backend(backend)
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
            gate_init=gate_init,
            bias=bias,
            self_feature=self_feature,
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
        self.backend: Backend = backend
        self.recompute = recompute

    def reset_parameters(self) -> None:
        """Reinitialize all parameters."""
        for part in (self.decomposition, self.reconstruction, self.classifier):
            if part is not None:
                reset_parts(part)

    def forward(self, input: Tensor) -> FDRLOutput:
        """Return the :class:`FDRLOutput` of basic features (*, P)."""
        reason = self._reason_to_call_parts()
        self._check(input, plain=reason is None)
        if reason is not None:
            choose("FDRLHead", self.backend, reason)
            return self._call_parts(input)
        called = self._calls_classifier()
        reconstruction = self.__dict__["_modules"]["reconstruction"]
        output = head(
            input,
            self._parameters_in_order(called),
            reconstruction.delta,
            reconstruction.reduction,
            reconstruction.self_feature,
            backend=self.backend,
            recompute=self.recompute,
        )
        if not called:
            return FDRLOutput(*output)
        assert self.classifier is not None
        return FDRLOutput(self.classifier(output.embedding), *output[1:])

    def backend_choice(self, input: Tensor) -> BackendChoice:
        """Return the backend for basic features (*, P), and why no faster one would run."""
        reason = self._reason_to_call_parts()
        self._check(input, plain=reason is None)
        if reason is not None:
            return choose("FDRLHead", self.backend, reason)
        return backend_choice(
            input,
            self._parameters_in_order(self._calls_classifier()),
            self.backend,
            self.reconstruction.self_feature,
        )

    def _reason_to_call_parts(self) -> str | None:
        """Return why the parts are called one after another; None if they are computed at once."""
        parts = self.__dict__["_modules"]
        reconstruction = parts["reconstruction"]
        reason = reason_to_call(
            (
                ("decomposition", parts["decomposition"], FeatureDecomposition),
                ("reconstruction", reconstruction, FeatureReconstruction),
            )
        )
        if reason is not None:
            return reason
        inner: str | None = reconstruction._reason_to_call_parts()
        return inner and inner.replace("`", "`reconstruction.", 1)

    def _calls_classifier(self) -> bool:
        """Return whether the prediction layer is called instead of computed with the rest."""
        classifier = self.__dict__["_modules"].get("classifier")
        return reason_to_call((("classifier", classifier, nn.Linear),)) is not None

    def _call_parts(self, input: Tensor) -> FDRLOutput:
        latents = self.decomposition(input)
        check_floating("decomposition(input)", latents)
        check_shape("decomposition(input)", latents, "* M D")
        found = self.reconstruction(latents)
        if not isinstance(found, tuple) or len(found) != 3:
            raise TypeError(
                "`reconstruction(latents)` must be a tuple of the embedding, Intra-W and Inter-W "
                f"or None, got {type(found).__name__}"
            )
        embedding, intra_weights, inter_weights = found
        check_floating("reconstruction(latents)[0]", embedding)
        m = latents.shape[-2]
        check_shape("reconstruction(latents)[1]", intra_weights, "* M", M=m)
        if inter_weights is not None:
            check_shape("reconstruction(latents)[2]", inter_weights, "* M M", M=m)
        if self.classifier is None:
            logits = embedding.new_empty((*embedding.shape[:-1], 0))
        else:
            logits = self.classifier(embedding)
        return FDRLOutput(logits, embedding, latents, intra_weights, inter_weights)

    def _hub_options(self) -> dict[str, Any]:
        """Return the options that rebuild the head, except for device and type."""
        reconstruction = self.reconstruction
        for name, part, kind in (
            ("decomposition", self.decomposition, FeatureDecomposition),
            ("reconstruction", reconstruction, FeatureReconstruction),
            ("reconstruction.intra", getattr(reconstruction, "intra", None), IntraRelation),
            ("reconstruction.inter", getattr(reconstruction, "inter", None), InterRelation),
        ):
            if part is not None and type(part) is not kind:
                raise ValueError(
                    f"`{name}` must be a {kind.__name__} to be built again from options, got a "
                    f"{type(part).__name__}: keep the head's `state_dict()` in its place"
                )
        return {
            "in_features": self.in_features,
            "num_classes": self.num_classes,
            "latent_dim": self.decomposition.latent_dim,
            "num_latents": self.decomposition.num_latents,
            "delta": reconstruction.delta,
            "intra": reconstruction.intra is not None,
            "inter": reconstruction.inter is not None,
            "reduction": reconstruction.reduction,
            "gate_init": reconstruction.gate_init,
            "self_feature": reconstruction.self_feature,
            "bias": self.decomposition.bias is not None,
            "backend": self.backend,
            "recompute": self.recompute,
        }

    def _check(self, input: Tensor, *, plain: bool) -> None:
        if plain and isinstance(input, Tensor) and input.ndim:
            weight, _ = weight_and_bias(self.__dict__["_modules"]["decomposition"])
            if (
                input.dtype == weight.dtype
                and input.device == weight.device
                and input.shape[-1] == self.in_features
                and input.is_floating_point()
            ):
                return
        check_floating("input", input)
        check_shape("input", input, "* P", P=self.in_features)
        if plain:
            check_alike("input", input, "decomposition.weight", self.decomposition.weight)

    def _parameters_in_order(self, without_classifier: bool = False) -> HeadParameters:
        parts = self.__dict__["_modules"]
        relations = parts["reconstruction"].__dict__["_modules"]
        classifier = None if without_classifier else parts.get("classifier")
        return HeadParameters(
            *weight_and_bias(parts["decomposition"]),
            *weight_and_bias(relations.get("intra")),
            *weight_and_bias(relations.get("inter")),
            *weight_and_bias(classifier),
        )

    def extra_repr(self) -> str:
        """Return the input and output sizes, and the backend and `recompute` if not the default."""
        shown = f"in_features={self.in_features}, num_classes={self.num_classes}"
        if self.backend != "auto":
            shown += f", backend={self.backend!r}"
        return shown + (", recompute=True" if self.recompute else "")
