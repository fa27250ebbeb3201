from typing import Any, get_args

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

import oracles
from comparing import assert_close
from fdrl_layers import FeatureReconstruction
from fdrl_layers.functional import feature_reconstruction
from fdrl_layers.layers import Reduction, SelfFeature
from gradients import leaves
from layer_cases import SMALL, Regime, regimes
from strategies import (
    PAPER,
    SMALL_INTRA_W,
    Sizes,
    latents_NMD,
    normal,
    parameters_for,
    seeds,
    sizes,
)

BIAS = pytest.mark.parametrize("bias", [True, False], ids=["bias", "bare"])
REDUCTION = pytest.mark.parametrize("reduction", get_args(Reduction))
REGIME = pytest.mark.parametrize("regime", ["default", "small"])
TABLE_2 = pytest.mark.parametrize(
    ("intra", "inter"),
    [(False, False), (True, False), (False, True), (True, True)],
    ids=["FDN", "FDN+intra", "FDN+inter", "FDN+intra+inter"],
)
KEYS = [f"{relation}_{kind}" for relation in ("intra", "inter") for kind in ("weight", "bias")]
OUTPUTS = ("embedding", "Intra-W", "Inter-W")


def tensors_of(parameters: dict[str, Tensor]) -> dict[str, Any]:
    """The parameters of the relations as the function takes them."""
    return {key: parameters.get(f"reconstruction.{key.replace('_', '.')}") for key in KEYS}


def arguments(of: Sizes, seed: int, **options: Any) -> dict[str, Any]:
    return tensors_of(parameters_for(of, seed, **options))


def outputs(values: tuple[Any, ...]) -> dict[str, Any]:
    """The three outputs by name, without a missing Inter-W."""
    return {k: v for k, v in zip(OUTPUTS, values, strict=True) if v is not None}


def check_against_oracle(
    latents: Tensor, parameters: dict[str, Tensor], **options: Any
) -> dict[str, Any]:
    tensors = tensors_of(parameters)
    arrays: dict[str, Any] = {
        key: None if each is None else each.numpy() for key, each in tensors.items()
    }
    actual = outputs(feature_reconstruction(latents, **tensors, **options))
    expected = oracles.feature_reconstruction(latents.numpy(), **arrays, **options)
    assert_close("reconstruction", actual, outputs(expected))
    return actual


@TABLE_2
@BIAS
@given(data=st.data(), of=sizes(), seed=seeds(), delta=st.floats(0, 1))
def test_matches_oracle(
    data: st.DataObject, of: Sizes, seed: int, delta: float, bias: bool, intra: bool, inter: bool
) -> None:
    options = {
        "delta": delta,
        "reduction": data.draw(st.sampled_from(get_args(Reduction))),
        "self_feature": data.draw(st.sampled_from(get_args(SelfFeature) if inter else ("intra",))),
    }
    regime = data.draw(regimes(both=bias and intra))
    parameters = parameters_for(of, seed, bias=bias, intra=intra, inter=inter, regime=regime)
    check_against_oracle(data.draw(latents_NMD(of)), parameters, **options)


@REGIME
@REDUCTION
def test_matches_oracle_at_paper_sizes(reduction: Reduction, regime: Regime) -> None:
    latents = normal(PAPER.N, PAPER.M, PAPER.D, seed=1).relu()
    parameters = parameters_for(PAPER, 0, regime=regime)
    actual = check_against_oracle(latents, parameters, delta=0.5, reduction=reduction)
    others = actual["Inter-W"][:, ~torch.eye(PAPER.M, dtype=torch.bool)]
    if reduction == "sum":
        about = {"default": 64.0, "small": SMALL_INTRA_W}[regime]
        assert actual["Intra-W"].mean().item() == pytest.approx(about, rel=0.1)
        assert bool((others == 1).all()) == (regime == "default")


def test_the_paper_is_the_default() -> None:
    layer = FeatureReconstruction()
    assert (layer.delta, layer.reduction, layer.self_feature) == (0.5, "sum", "intra")
    assert layer.intra is not None
    assert layer.inter is not None
    latents = normal(2, SMALL.M, SMALL.D, seed=0)
    parameters = arguments(SMALL, 0)
    options: dict[str, Any] = {"delta": 0.5, "reduction": "sum", "self_feature": "intra"}
    expected, _, _ = feature_reconstruction(latents, **parameters, **options)
    assert torch.equal(feature_reconstruction(latents, **parameters)[0], expected)


def test_gradients_are_finite_where_every_latent_is_dead() -> None:
    parameters = arguments(SMALL, 1, bias=False)
    inputs = leaves(torch.zeros(2, SMALL.M, SMALL.D, dtype=torch.float64), *parameters.values())
    embedding, intra_weights, inter_weights = feature_reconstruction(*inputs)
    assert inter_weights is not None
    assert not inter_weights.any()
    assert not embedding.any()
    wanted = [tensor for tensor in inputs if tensor is not None]
    total = embedding.sum() + intra_weights.sum() + inter_weights.sum()
    found = torch.autograd.grad(total, wanted)
    assert all(gradient.isfinite().all() for gradient in found)
