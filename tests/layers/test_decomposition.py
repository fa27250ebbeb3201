from typing import Any

import pytest
import torch
from hypothesis import given, strategies as st
from torch.autograd import gradcheck, gradgradcheck

import oracles
from comparing import assert_close
from fdrl_layers import FeatureDecomposition
from fdrl_layers.functional import feature_decomposition
from gradients import leaves
from layer_cases import SMALL, pair
from rejecting import SPOILS, spoil
from strategies import PAPER, Sizes, normal, oracle_arguments, parameters_for, scales, seeds, sizes

BIAS = pytest.mark.parametrize("bias", [True, False], ids=["bias", "bare"])

GOOD: dict[str, Any] = {
    "input": torch.ones(2, 5),
    "weight": torch.ones(4, 3, 5),
    "bias": torch.ones(4, 3),
}


def check_against_oracle(of: Sizes, seed: int, scale: float, bias: bool) -> None:
    parameters = parameters_for(of, seed, bias=bias)
    x = normal(of.N, of.P, seed=seed + 1, scale=scale)
    arrays = oracle_arguments(parameters)
    expected = oracles.feature_decomposition(
        x.numpy(), arrays["decomposition_weight"], arrays.get("decomposition_bias")
    )
    assert_close("latents", feature_decomposition(x, *pair(parameters, "decomposition")), expected)


@BIAS
@given(of=sizes(), seed=seeds(), scale=scales())
def test_matches_oracle(of: Sizes, seed: int, scale: float, bias: bool) -> None:
    check_against_oracle(of, seed, scale, bias)


@BIAS
def test_matches_oracle_at_paper_sizes(bias: bool) -> None:
    check_against_oracle(PAPER, seed=0, scale=1.0, bias=bias)


@BIAS
def test_module_equals_function(bias: bool) -> None:
    layer = FeatureDecomposition(5, 6, 3, bias=bias, dtype=torch.float64)
    x = normal(4, 5, seed=0)
    assert torch.equal(layer(x), feature_decomposition(x, layer.weight, layer.bias))


@BIAS
def test_gradcheck(bias: bool) -> None:
    parameters = pair(parameters_for(SMALL, 1, bias=bias), "decomposition")
    assert gradcheck(feature_decomposition, leaves(normal(SMALL.N, SMALL.P, seed=1), *parameters))


@BIAS
def test_gradgradcheck(bias: bool) -> None:
    of = Sizes(N=2, P=3, M=2, D=4, K=1)
    parameters = pair(parameters_for(of, 1, bias=bias), "decomposition")
    assert gradgradcheck(feature_decomposition, leaves(normal(of.N, of.P, seed=1), *parameters))


def test_a_dead_branch_has_no_gradient() -> None:
    weight, bias = pair(parameters_for(SMALL, 1), "decomposition")
    assert bias is not None
    bias[1] = -100.0
    inputs = leaves(normal(SMALL.N, SMALL.P, seed=1), weight, bias)
    assert gradcheck(feature_decomposition, inputs)
    latents = feature_decomposition(normal(SMALL.N, SMALL.P, seed=1), weight, bias)
    assert torch.equal(latents[:, 1], torch.zeros(SMALL.N, SMALL.D))


@pytest.mark.parametrize("how", SPOILS)
@pytest.mark.parametrize("name", GOOD)
def test_rejects_what_is_no_feature(name: str, how: str) -> None:
    bad = spoil(how, name, GOOD[name])
    with pytest.raises(bad.error, match=bad.match):
        feature_decomposition(**GOOD | {name: bad.value})


@pytest.mark.parametrize(
    ("name", "shape", "match"),
    [
        ("input", (2, 6), r"`input` must have shape \(\*, P\) with P = 5, got \(2, 6\)"),
        ("input", (), r"`input` must have shape \(\*, P\) with P = 5, got \(\)"),
        ("weight", (12, 5), r"`weight` must have shape \(M, D, P\), got \(12, 5\)"),
        ("weight", (1, 4, 3, 5), r"`weight` must have shape \(M, D, P\), got \(1, 4, 3, 5\)"),
        ("bias", (3,), r"`bias` must have shape \(M, D\) with M = 4 and D = 3, got \(3,\)"),
        ("bias", (1, 3), r"`bias` must have shape \(M, D\) with M = 4 and D = 3, got \(1, 3\)"),
    ],
)
def test_rejects_shapes(name: str, shape: tuple[int, ...], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        feature_decomposition(**GOOD | {name: torch.ones(shape)})


@given(of=sizes(), seed=seeds(), factor=st.floats(1e-3, 1e3))
def test_law_scaling_the_input_scales_the_latents(of: Sizes, seed: int, factor: float) -> None:
    weight, _ = pair(parameters_for(of, seed, bias=False), "decomposition")
    x = normal(of.N, of.P, seed=seed)
    scaled = feature_decomposition(factor * x, weight)
    assert_close("latents", scaled, factor * feature_decomposition(x, weight))


@given(of=sizes(), seed=seeds(), scale=scales())
def test_law_latents_are_not_negative(of: Sizes, seed: int, scale: float) -> None:
    x = normal(of.N, of.P, seed=seed, scale=scale)
    latents = feature_decomposition(x, *pair(parameters_for(of, seed), "decomposition"))
    assert (latents >= 0).all()
