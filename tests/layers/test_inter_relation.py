import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import oracles
from comparing import assert_close
from fdrl_layers import InterRelation
from fdrl_layers.functional import inter_relation
from gradients import gradients, leaves
from layer_cases import SMALL, pair
from rejecting import SPOILS, spoil
from strategies import (
    PAPER,
    Sizes,
    latents_NMD,
    normal,
    oracle_arguments,
    parameters_for,
    seeds,
    sizes,
)

BIAS = pytest.mark.parametrize("bias", [True, False], ids=["bias", "bare"])
DTYPE = pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str
)

GOOD: dict[str, Any] = {
    "features": torch.ones(2, 4, 3),
    "weight": torch.ones(4, 3, 3),
    "bias": torch.ones(4, 3),
}

# Messages of three latents: the first two coincide, dead as ReLU often leaves them or alive.
COINCIDENT = {
    "dead": [[-1.0, -2.0], [-3.0, -1.0], [0.5, 0.25]],
    "alive": [[0.5, 1.0], [0.5, 1.0], [1.5, 0.25]],
}


def identity(of: Tensor) -> Tensor:
    """Message layers that give the positive part of the features `of` as their messages."""
    return torch.eye(of.shape[-1], dtype=of.dtype).repeat(of.shape[-2], 1, 1)


def without_pair(features: Tensor, left_out: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Equations 9 and 10 with messages relu(features), one pair of them having Inter-W 0."""
    g = features.relu().double()
    zero = g.new_zeros(())
    rows = [
        torch.stack(
            [
                zero if j == m or {j, m} == set(left_out) else torch.dist(g[j], g[m]).tanh()
                for m in range(len(g))
            ]
        )
        for j in range(len(g))
    ]
    omega = torch.stack(rows)
    return omega @ g, omega


def check_against_oracle(features: Tensor, parameters: dict[str, Tensor]) -> Tensor:
    arrays = oracle_arguments(parameters)
    aware, inter_w = oracles.inter_relation(
        features.numpy(), arrays["inter_weight"], arrays.get("inter_bias")
    )
    edges = pair(parameters, "reconstruction.inter")
    actual_aware, actual_weights = inter_relation(features, *edges, need_weights=True)
    assert_close("features", actual_aware, aware)
    assert_close("Inter-W", actual_weights, inter_w)
    return actual_weights


@BIAS
@given(data=st.data(), of=sizes(), seed=seeds())
def test_matches_oracle(data: st.DataObject, of: Sizes, seed: int, bias: bool) -> None:
    features = data.draw(latents_NMD(of))
    check_against_oracle(features, parameters_for(of, seed, bias=bias))


@pytest.mark.parametrize(
    ("intra_w", "saturated"), [(64.0, True), (0.12, False)], ids=["default", "small"]
)
def test_matches_oracle_at_paper_sizes(intra_w: float, saturated: bool) -> None:
    features = intra_w * normal(PAPER.N, PAPER.M, PAPER.D, seed=1).relu()
    weights = check_against_oracle(features, parameters_for(PAPER, 0, bias=saturated))
    others = weights[:, ~torch.eye(PAPER.M, dtype=torch.bool)]
    assert (others == 1).all() if saturated else ((others > 0.1) & (others < 0.99)).all()


@BIAS
def test_module_equals_function(bias: bool) -> None:
    layer = InterRelation(6, 3, bias=bias, dtype=torch.float64)
    features = normal(4, 3, 6, seed=0)
    aware, weights = inter_relation(features, layer.weight, layer.bias, need_weights=True)
    assert torch.equal(inter_relation(features, layer.weight, layer.bias), aware)
    assert torch.equal(layer(features), aware)
    for actual, expected in zip(layer(features, need_weights=True), (aware, weights), strict=True):
        assert torch.equal(actual, expected)


def relation(*inputs: Tensor) -> tuple[Tensor, Tensor]:
    return inter_relation(*inputs, need_weights=True)


@BIAS
def test_gradcheck(bias: bool) -> None:
    edges = pair(parameters_for(SMALL, 1, bias=bias), "reconstruction.inter")
    assert gradcheck(relation, leaves(normal(2, SMALL.M, SMALL.D, seed=1), *edges))


@BIAS
def test_gradgradcheck(bias: bool) -> None:
    of = Sizes(N=2, P=1, M=3, D=2, K=1)
    edges = pair(parameters_for(of, 1, bias=bias), "reconstruction.inter")
    assert gradgradcheck(relation, leaves(normal(of.N, of.M, of.D, seed=1), *edges))


@pytest.mark.parametrize("check", [gradcheck, gradgradcheck])
def test_gradcheck_and_gradgradcheck_with_dead_messages(check: object) -> None:
    # Two messages stay 0 in a neighborhood, so that everything is smooth there.
    assert callable(check)
    of = Sizes(N=1, P=1, M=4, D=2, K=1)
    weight, bias = pair(parameters_for(of, 1), "reconstruction.inter")
    assert bias is not None
    bias[:2] = -100.0
    bias[2:] += 1.0
    features = normal(of.N, of.M, of.D, seed=1)
    _, inter_w = relation(features, weight, bias)
    assert inter_w[0, 0, 1] == 0
    assert (inter_w[0, 0, 2:] > 0).all()
    assert check(relation, leaves(features, weight, bias))


@DTYPE
@pytest.mark.parametrize("kind", COINCIDENT)
def test_no_gradient_through_coincident_messages(kind: str, dtype: torch.dtype) -> None:
    features = torch.tensor(COINCIDENT[kind], dtype=dtype, requires_grad=True)
    aware, weights = inter_relation(features, identity(features), need_weights=True)
    assert weights[0, 1] == weights[1, 0] == 0
    (through_pair,) = torch.autograd.grad(weights[0, 1], features, retain_graph=True)
    assert torch.equal(through_pair, torch.zeros_like(features))
    reference = features.detach().double().requires_grad_()
    expected = dict(zip(("features", "Inter-W"), without_pair(reference, (0, 1)), strict=True))
    actual = {"features": aware, "Inter-W": weights}
    assert_close("output", actual, expected, dtype)
    found = gradients(actual, {"features": features}, seed=3)
    assert_close("gradient", found, gradients(expected, {"features": reference}, seed=3), dtype)


@DTYPE
@pytest.mark.parametrize("kind", COINCIDENT)
def test_second_gradient_is_finite_at_coincident_messages(kind: str, dtype: torch.dtype) -> None:
    features = torch.tensor(COINCIDENT[kind], dtype=dtype, requires_grad=True)
    aware, weights = inter_relation(features, identity(features), need_weights=True)
    (first,) = torch.autograd.grad(
        weights.sum() + aware.square().sum(), features, create_graph=True
    )
    (second,) = torch.autograd.grad(first.square().sum(), features)
    assert second.isfinite().all()
    assert second.any()


@DTYPE
def test_the_diagonal_is_zero_even_of_an_infinite_message(dtype: torch.dtype) -> None:
    features = torch.tensor([[torch.inf], [1.0], [2.0]], dtype=dtype)
    _, weights = inter_relation(features, identity(features), need_weights=True)
    assert torch.equal(weights.diagonal(), torch.zeros(3, dtype=weights.dtype))
    assert torch.equal(weights[0, 1:], torch.ones(2, dtype=weights.dtype))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("scale", [2**-9, 1.0, 300.0])
def test_distances_are_taken_in_float32(dtype: torch.dtype, scale: float) -> None:
    # Messages are the features, rounded alike for both; from them on the row of float32 holds.
    # Of 2**-9 the square is subnormal in float16, of 300 it is infinite.
    features = normal(2, 5, 16, seed=1, scale=scale).relu().to(dtype)
    features[:, 0] = features[:, 1] * 1.015625
    _, weights = inter_relation(features, identity(features), need_weights=True)
    _, expected = oracles.inter_relation(
        features.double().numpy(), identity(features).double().numpy(), None
    )
    assert weights.dtype == torch.float32
    assert_close("Inter-W", weights, expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_near_messages_keep_their_distance(dtype: torch.dtype) -> None:
    # Of squared norms less their product nothing would be left here, and `torch.cdist` takes that
    # way from 26 rows on. A step is exact in either type, and so are the squares of a few of them.
    step = 2.0**-16
    features = torch.ones(30, 4, dtype=dtype)
    features[:, 0] += step * torch.arange(30)
    _, weights = inter_relation(features, identity(features), need_weights=True)
    places = torch.arange(30, dtype=torch.float64)
    assert_close("Inter-W", weights, (step * (places[:, None] - places).abs()).tanh())


@pytest.mark.parametrize("how", SPOILS)
@pytest.mark.parametrize("name", GOOD)
def test_rejects_what_is_no_feature(name: str, how: str) -> None:
    bad = spoil(how, name, GOOD[name])
    with pytest.raises(bad.error, match=bad.match):
        inter_relation(**GOOD | {name: bad.value})


@pytest.mark.parametrize(
    ("name", "shape", "match"),
    [
        ("features", (2, 4, 5), r"`features` .* with M = 4 and D = 3, got \(2, 4, 5\)"),
        ("features", (2, 1, 3), r"`features` .* with M = 4 and D = 3, got \(2, 1, 3\)"),
        ("features", (3,), r"`features` .* \(\*, M, D\) with M = 4 and D = 3, got \(3,\)"),
        ("weight", (3, 3), r"`weight` must have shape \(M, D, D\), got \(3, 3\)"),
        ("weight", (4, 3, 2), r"`weight` must have shape \(M, D, D\), got \(4, 3, 2\)"),
        ("bias", (4, 1), r"`bias` must have shape \(M, D\) with M = 4 and D = 3, got \(4, 1\)"),
    ],
)
def test_rejects_shapes(name: str, shape: tuple[int, ...], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        inter_relation(**GOOD | {name: torch.ones(shape)})


@given(data=st.data(), of=sizes(), seed=seeds())
def test_law_inter_w_is_symmetric_with_a_zero_diagonal(
    data: st.DataObject, of: Sizes, seed: int
) -> None:
    features = data.draw(latents_NMD(of))
    edges = pair(parameters_for(of, seed), "reconstruction.inter")
    _, weights = inter_relation(features, *edges, need_weights=True)
    assert torch.equal(weights, weights.mT)
    assert torch.equal(weights.diagonal(dim1=-2, dim2=-1), torch.zeros(of.N, of.M))
    assert ((weights >= 0) & (weights <= 1)).all()


@given(of=sizes(), seed=seeds(), factor=st.floats(1e-2, 1.0))
def test_law_scaling_the_features_scales_the_distances(of: Sizes, seed: int, factor: float) -> None:
    # Small features, where tanh can be undone.
    features = normal(of.N, of.M, of.D, seed=seed, scale=0.1)
    weight, _ = pair(parameters_for(of, seed, bias=False), "reconstruction.inter")
    _, near = inter_relation(factor * features, weight, need_weights=True)
    _, far = inter_relation(features, weight, need_weights=True)
    assert_close("distance", near.atanh(), factor * far.atanh())


@given(data=st.data(), of=sizes(), seed=seeds())
def test_law_distances_obey_the_triangle_inequality(
    data: st.DataObject, of: Sizes, seed: int
) -> None:
    features = data.draw(latents_NMD(of)) / 10
    edges = pair(parameters_for(of, seed), "reconstruction.inter")
    _, weights = inter_relation(features, *edges, need_weights=True)
    for a, b, c in itertools.permutations(range(of.M), 3):
        assert (weights[:, a, c] <= weights[:, a, b] + weights[:, b, c] + 1e-12).all()
