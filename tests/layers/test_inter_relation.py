from collections.abc import Callable
from functools import partial

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
from layer_cases import pair
from strategies import PAPER, Sizes, latents_NMD, normal, parameters_for, seeds, sizes

BIAS = pytest.mark.parametrize("bias", [True, False], ids=["bias", "bare"])
DTYPE = pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str
)

# Messages of three latents: the first two coincide, dead as ReLU often leaves them or alive.
COINCIDENT = {
    "dead": [[-1.0, -2.0], [-3.0, -1.0], [0.5, 0.25]],
    "alive": [[0.5, 1.0], [0.5, 1.0], [1.5, 0.25]],
}


def identity(of: Tensor) -> Tensor:
    """Message layers that give the positive part of the features `of` as their messages."""
    return torch.eye(of.shape[-1], dtype=of.dtype).repeat(of.shape[-2], 1, 1)


def without_the_first_pair(features: Tensor) -> dict[str, Tensor]:
    """Equations 9 and 10 with messages relu(features), the first two of three at no distance."""
    g = features.relu().double()
    zero, (one, other) = g.new_zeros(()), (torch.dist(g[j], g[2]).tanh() for j in range(2))
    omega = torch.stack([zero, zero, one, zero, zero, other, one, other, zero]).view(3, 3)
    return {"features": omega @ g, "Inter-W": omega}


def check_against_oracle(features: Tensor, parameters: dict[str, Tensor]) -> Tensor:
    edges = pair(parameters, "reconstruction.inter")
    bias = None if edges[1] is None else edges[1].numpy()
    expected = oracles.inter_relation(features.numpy(), edges[0].numpy(), bias)
    aware, weights = inter_relation(features, *edges, need_weights=True)
    actual = {"features": aware, "Inter-W": weights}
    assert_close("relation", actual, dict(zip(actual, expected, strict=True)))
    return weights


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


def test_features_are_the_same_without_the_weights() -> None:
    layer, features = InterRelation(6, 3, dtype=torch.float64), normal(4, 3, 6, seed=0)
    wanted, _ = layer(features, need_weights=True)
    assert torch.equal(inter_relation(features, layer.weight, layer.bias), wanted)
    assert torch.equal(layer(features), wanted)


@pytest.mark.parametrize("check", [gradcheck, gradgradcheck])
def test_derivatives_with_dead_messages(check: Callable[..., bool]) -> None:
    # Two messages stay 0 in a neighborhood, so that everything is smooth there.
    of = Sizes(N=1, P=1, M=4, D=2, K=1)
    weight, bias = pair(parameters_for(of, 1), "reconstruction.inter")
    assert bias is not None
    bias[:2] = -100.0
    bias[2:] += 1.0
    inputs = leaves(normal(of.N, of.M, of.D, seed=1), weight, bias)
    relation = partial(inter_relation, need_weights=True)
    _, inter_w = relation(*inputs)
    assert inter_w[0, 0, 1] == 0
    assert (inter_w[0, 0, 2:] > 0).all()
    assert check(relation, inputs)


@DTYPE
@pytest.mark.parametrize("kind", COINCIDENT)
def test_gradients_of_coincident_messages(kind: str, dtype: torch.dtype) -> None:
    features = torch.tensor(COINCIDENT[kind], dtype=dtype, requires_grad=True)
    aware, weights = inter_relation(features, identity(features), need_weights=True)
    assert weights[0, 1] == weights[1, 0] == 0
    (through_pair,) = torch.autograd.grad(weights[0, 1], features, retain_graph=True)
    assert torch.equal(through_pair, torch.zeros_like(features))
    total = weights.sum() + aware.square().sum()
    (first,) = torch.autograd.grad(total, features, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), features, retain_graph=True)
    assert second.isfinite().all()
    assert second.any()

    reference = features.detach().double().requires_grad_()
    expected = without_the_first_pair(reference)
    actual = {"features": aware, "Inter-W": weights}
    assert_close("output", actual, expected, dtype)
    found = gradients(actual, {"features": features}, seed=3)
    assert_close("gradient", found, gradients(expected, {"features": reference}, seed=3), dtype)


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


@given(data=st.data(), of=sizes(), seed=seeds())
def test_law_inter_w_is_symmetric_with_a_zero_diagonal(
    data: st.DataObject, of: Sizes, seed: int
) -> None:
    features = data.draw(latents_NMD(of)) / 10
    edges = pair(parameters_for(of, seed), "reconstruction.inter")
    _, weights = inter_relation(features, *edges, need_weights=True)
    assert torch.equal(weights, weights.mT)
    assert torch.equal(weights.diagonal(dim1=-2, dim2=-1), torch.zeros(of.N, of.M))
    assert ((weights >= 0) & (weights <= 1)).all()
