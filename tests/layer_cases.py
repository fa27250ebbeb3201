"""Every layer and the head, with their options: what the tests common to all of them run over."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from fdrl_layers import (
    FDRLHead,
    FeatureDecomposition,
    FeatureReconstruction,
    InterRelation,
    IntraRelation,
)
from strategies import Sizes, normal, parameters_for

SMALL = Sizes(N=4, P=5, M=3, D=6, K=2)
"""No two sizes alike, so that no two axes can be mistaken for each other."""

LATENT_AXES: dict[str, tuple[int, ...]] = {
    "latents": (-2,),
    "features": (-2,),
    "intra_weights": (-1,),
    "inter_weights": (-2, -1),
    "embedding": (),
    "logits": (),
}
"""The axes over the latents in each output."""

RELATION_WEIGHTS = ("intra_weights", "inter_weights")
"""The outputs that are in float32 at least, whatever the features are in."""


Regime = Literal["default", "small"]


def regimes(*, both: bool) -> st.SearchStrategy[Regime]:
    """The regimes of `parameters_for`: "small" wants an Intra-RM with a bias."""
    return st.sampled_from(("default", "small") if both else ("default",))


def pair(parameters: Mapping[str, Tensor], layer: str) -> tuple[Tensor, Tensor | None]:
    """Weight and bias, if any, of one layer among the parameters of a head."""
    return parameters[f"{layer}.weight"], parameters.get(f"{layer}.bias")


@dataclass(frozen=True)
class LayerCase:
    """A layer with options: how to build it, to feed it, and to name what it gives.

    `prefix` is where a head keeps its parameters, `takes` the argument of its `forward`,
    `arguments` what else that is given, and `device` where all of it is.
    """

    name: str
    layer: type[nn.Module]
    prefix: str
    takes: Literal["input", "latents", "features"]
    outputs: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    arguments: tuple[Any, ...] = ()
    device: str = "cpu"

    def sizes(self, of: Sizes) -> dict[str, int]:
        sizes = {"in_features": of.P} if self.takes == "input" else {}
        sizes |= {"num_classes": of.K} if self.layer is FDRLHead else {}
        return sizes | {"latent_dim": of.D, "num_latents": of.M}

    def new(self, of: Sizes = SMALL, **factory: Any) -> nn.Module:
        """A layer as a user builds it, drawn from the global generator."""
        given = {"device": self.device} | self.sizes(of) | dict(self.options) | factory
        return self.layer(**given)

    def loaded(self, of: Sizes = SMALL, seed: int = 0, regime: Regime = "default") -> nn.Module:
        """A layer in float64 with the parameters of `seed`, loaded by their public keys."""
        has = {name: self.options.get(name, True) for name in ("bias", "intra", "inter")}
        drawn = parameters_for(of, seed, regime=regime, **has)
        if self.options.get("num_classes") == 0:
            drawn = {k: v for k, v in drawn.items() if not k.startswith("classifier")}
        layer = self.new(of, dtype=torch.float64)
        cut = len(self.prefix)
        layer.load_state_dict({k[cut:]: v for k, v in drawn.items() if k.startswith(self.prefix)})
        return layer

    def shape(self, of: Sizes = SMALL) -> tuple[int, ...]:
        return (of.P,) if self.takes == "input" else (of.M, of.D)

    def input(
        self, of: Sizes = SMALL, seed: int = 0, *, lead: tuple[int, ...] | None = None
    ) -> Tensor:
        """Features of either sign in float64, with leading axes `lead` or (N,)."""
        lead = (of.N,) if lead is None else lead
        return normal(*lead, *self.shape(of), seed=seed, device=self.device)

    def named(self, output: Any) -> dict[str, Tensor]:
        """What the layer gave, by name, without what it left out."""
        pairs = zip(self.outputs, (output,) if isinstance(output, Tensor) else output, strict=True)
        return {name: value for name, value in pairs if value is not None}

    def run(self, layer: nn.Module, input: Tensor) -> dict[str, Tensor]:
        return self.named(layer(input, *self.arguments))

    def inputs(self, layer: nn.Module, input: Tensor) -> dict[str, Tensor]:
        """All that a gradient may flow to: the input and the parameters."""
        return {self.takes: input, **dict(layer.named_parameters())}


_INTRA = ("features", "intra_weights")
_FRN = ("embedding", "intra_weights", "inter_weights")
_HEAD = ("logits", "embedding", "latents", "intra_weights", "inter_weights")
_BARE = {"bias": False}


def _intra(name: str, **options: Any) -> LayerCase:
    return LayerCase(name, IntraRelation, "reconstruction.intra.", "latents", _INTRA, options)


def _inter(name: str, *outputs: str, **more: Any) -> LayerCase:
    return LayerCase(name, InterRelation, "reconstruction.inter.", "features", outputs, **more)


def _reconstruction(name: str, **options: Any) -> LayerCase:
    return LayerCase(name, FeatureReconstruction, "reconstruction.", "latents", _FRN, options)


def _head(name: str, **options: Any) -> LayerCase:
    return LayerCase(name, FDRLHead, "", "input", _HEAD, options)


CASES = (
    LayerCase("FDN", FeatureDecomposition, "decomposition.", "input", ("latents",)),
    LayerCase("FDN-bare", FeatureDecomposition, "decomposition.", "input", ("latents",), _BARE),
    _intra("intra-sum"),
    _intra("intra-mean-bare", reduction="mean", bias=False),
    _intra("intra-share", reduction="share"),
    _inter("inter", "features"),
    _inter("inter-weights-bare", "features", "inter_weights", options=_BARE, arguments=(True,)),
    _reconstruction("FRN", delta=0.25),
    _reconstruction("FRN-no-intra", intra=False),
    _reconstruction("FRN-no-inter", inter=False, reduction="share"),
    _reconstruction("FRN-neither", intra=False, inter=False),
    _reconstruction("FRN-message", self_feature="message"),
    _head("head"),
    _head("head-mean-bare", reduction="mean", bias=False, delta=0.75),
    _head("head-message", self_feature="message", delta=0.25),
    _head("head-no-classifier", num_classes=0, reduction="share"),
)

_ALIKE = ("FDN-bare", "intra-sum", "FRN-neither", "FRN-message", "head-mean-bare")
TRACED = tuple(case for case in CASES if case.name not in _ALIKE)
"""The cases for compilers, which take seconds: without those whose parts others have too."""
