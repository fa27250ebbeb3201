from typing import Any, get_args

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import oracles
from comparing import assert_close
from fdrl_layers import IntraRelation
from fdrl_layers.functional import intra_relation
from fdrl_layers.layers import GateInit, Reduction
from gradients import leaves
from layer_cases import SMALL, Regime, pair, regimes
from rejecting import SPOILS, spoil
from strategies import (
    PAPER,
    SMALL_INTRA_W,
    Sizes,
    latents_NMD,
    normal,
    oracle_arguments,
    parameters_for,
    seeds,
    sizes,
)

REDUCTIONS = get_args(Reduction)
REDUCTION = pytest.mark.parametrize("reduction", REDUCTIONS)
BIAS = pytest.mark.parametrize("bias", [True, False], ids=["bias", "bare"])

GOOD: dict[str, Any] = {
    "latents": torch.ones(2, 4, 3),
    "weight": torch.ones(4, 3, 3),
    "bias": torch.ones(4, 3),
}


def check_against_oracle(
    latents: Tensor, parameters: dict[str, Tensor], reduction: Reduction
) -> Tensor:
    arrays = oracle_arguments(parameters)
    features, intra_w = oracles.intra_relation(
        latents.numpy(), arrays["intra_weight"], arrays.get("intra_bias"), reduction
    )
    gates = pair(parameters, "reconstruction.intra")
    actual_features, actual_weights = intra_relation(latents, *gates, reduction=reduction)
    assert_close("features", actual_features, features)
    assert_close("Intra-W", actual_weights, intra_w)
    return actual_weights


@BIAS
@REDUCTION
@given(data=st.data(), of=sizes(), seed=seeds())
def test_matches_oracle(
    data: st.DataObject, of: Sizes, seed: int, reduction: Reduction, bias: bool
) -> None:
    regime = data.draw(regimes(both=bias))
    parameters = parameters_for(of, seed, bias=bias, regime=regime)
    check_against_oracle(data.draw(latents_NMD(of)), parameters, reduction)


@REDUCTION
@pytest.mark.parametrize(("regime", "about"), [("default", 64.0), ("small", SMALL_INTRA_W)])
def test_matches_oracle_at_paper_sizes(reduction: Reduction, regime: Regime, about: float) -> None:
    latents = normal(PAPER.N, PAPER.M, PAPER.D, seed=1).relu()
    weights = check_against_oracle(latents, parameters_for(PAPER, 0, regime=regime), reduction)
    means = {"sum": about, "mean": about / PAPER.D, "share": 1 / PAPER.M}
    assert weights.mean().item() == pytest.approx(means[reduction], rel=0.1)


@BIAS
@REDUCTION
def test_module_equals_function(reduction: Reduction, bias: bool) -> None:
    layer = IntraRelation(6, 3, reduction=reduction, bias=bias, dtype=torch.float64)
    latents = normal(4, 3, 6, seed=0)
    expected = intra_relation(latents, layer.weight, layer.bias, reduction=reduction)
    for actual, wanted in zip(layer(latents), expected, strict=True):
        assert torch.equal(actual, wanted)


def test_the_printed_sum_is_the_default() -> None:
    layer = IntraRelation(6, 3, dtype=torch.float64)
    latents = normal(4, 3, 6, seed=0)
    _, expected = intra_relation(latents, layer.weight, layer.bias, reduction="sum")
    assert torch.equal(intra_relation(latents, layer.weight, layer.bias)[1], expected)
    assert torch.equal(layer(latents)[1], expected)


@BIAS
@REDUCTION
def test_gradcheck(reduction: Reduction, bias: bool) -> None:
    inputs = leaves(
        normal(2, SMALL.M, SMALL.D, seed=1),
        *pair(parameters_for(SMALL, 1, bias=bias), "reconstruction.intra"),
    )
    assert gradcheck(lambda *x: intra_relation(*x, reduction=reduction), inputs)


@BIAS
@REDUCTION
def test_gradgradcheck(reduction: Reduction, bias: bool) -> None:
    of = Sizes(N=2, P=1, M=3, D=2, K=1)
    inputs = leaves(
        normal(of.N, of.M, of.D, seed=1),
        *pair(parameters_for(of, 1, bias=bias), "reconstruction.intra"),
    )
    assert gradgradcheck(lambda *x: intra_relation(*x, reduction=reduction), inputs)


@REDUCTION
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_intra_w_is_summed_in_float32(reduction: Reduction, dtype: torch.dtype) -> None:
    # No weight, so that the gates are the biases, rounded alike for both; from them on the row of
    # float32 holds. A sum of 16 gates in bfloat16 has steps of 1 / 16.
    bias = normal(3, 16, seed=1).to(dtype)
    latents, weight = torch.ones(2, 3, 16, dtype=dtype), torch.zeros(3, 16, 16, dtype=dtype)
    _, weights = intra_relation(latents, weight, bias, reduction=reduction)
    _, expected = oracles.intra_relation(
        latents.double().numpy(), weight.double().numpy(), bias.double().numpy(), reduction
    )
    assert weights.dtype == torch.float32
    assert_close("Intra-W", weights, expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_share_survives_gates_that_all_underflow(dtype: torch.dtype) -> None:
    # sigmoid(-1e4) is 0 in every type, and 0 / 0 is no share.
    bias = torch.full((3, 4), -1e4, dtype=dtype)
    bias[1] = -2e4
    gates = leaves(torch.ones(2, 3, 4, dtype=dtype), torch.zeros(3, 4, 4, dtype=dtype), bias)
    _, weights = intra_relation(*gates, reduction="share")
    assert torch.equal(weights, torch.tensor([0.5, 0.0, 0.5], dtype=weights.dtype).expand(2, 3))
    found = torch.autograd.grad(
        (weights * torch.arange(3)).sum(), [g for g in gates if g is not None]
    )
    assert all(gradient.isfinite().all() for gradient in found)


@pytest.mark.parametrize("how", SPOILS)
@pytest.mark.parametrize("name", GOOD)
def test_rejects_what_is_no_feature(name: str, how: str) -> None:
    bad = spoil(how, name, GOOD[name])
    with pytest.raises(bad.error, match=bad.match):
        intra_relation(**GOOD | {name: bad.value})


@pytest.mark.parametrize(
    ("name", "shape", "match"),
    [
        ("latents", (2, 4, 5), r"`latents` .* \(\*, M, D\) with M = 4 and D = 3, got \(2, 4, 5\)"),
        ("latents", (2, 1, 3), r"`latents` .* \(\*, M, D\) with M = 4 and D = 3, got \(2, 1, 3\)"),
        ("latents", (3,), r"`latents` .* \(\*, M, D\) with M = 4 and D = 3, got \(3,\)"),
        ("weight", (3, 3), r"`weight` must have shape \(M, D, D\), got \(3, 3\)"),
        ("weight", (4, 3, 2), r"`weight` must have shape \(M, D, D\), got \(4, 3, 2\)"),
        ("bias", (4, 1), r"`bias` must have shape \(M, D\) with M = 4 and D = 3, got \(4, 1\)"),
    ],
)
def test_rejects_shapes(name: str, shape: tuple[int, ...], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        intra_relation(**GOOD | {name: torch.ones(shape)})


def test_rejects_an_unknown_reduction() -> None:
    match = r"`reduction` must be one of 'sum', 'mean', 'share', got 'max'"
    reduction: Any = "max"
    with pytest.raises(ValueError, match=match):
        intra_relation(**GOOD, reduction=reduction)
    with pytest.raises(ValueError, match=match):
        IntraRelation(6, 3, reduction=reduction)


@given(data=st.data(), of=sizes(), seed=seeds())
def test_law_the_mean_is_the_sum_divided_by_the_width(
    data: st.DataObject, of: Sizes, seed: int
) -> None:
    latents = data.draw(latents_NMD(of))
    gates = pair(parameters_for(of, seed), "reconstruction.intra")
    summed = intra_relation(latents, *gates, reduction="sum")
    mean = intra_relation(latents, *gates, reduction="mean")
    for name, one, other in zip(("features", "Intra-W"), mean, summed, strict=True):
        assert_close(name, one, other / of.D)


@given(data=st.data(), of=sizes(), seed=seeds(), shift=st.floats(-1e4, 1e4))
def test_law_shares_sum_to_one(data: st.DataObject, of: Sizes, seed: int, shift: float) -> None:
    latents = data.draw(latents_NMD(of))
    weight, bias = pair(parameters_for(of, seed), "reconstruction.intra")
    assert bias is not None
    _, shares = intra_relation(latents, weight, bias + shift, reduction="share")
    assert (shares >= 0).all()
    assert_close("sums", shares.sum(-1), torch.ones(of.N))


@given(data=st.data(), of=sizes(), seed=seeds())
def test_law_features_are_latents_by_their_weight(
    data: st.DataObject, of: Sizes, seed: int
) -> None:
    latents = data.draw(latents_NMD(of))
    gates = pair(parameters_for(of, seed), "reconstruction.intra")
    for reduction in REDUCTIONS:
        features, weights = intra_relation(latents, *gates, reduction=reduction)
        assert_close("features", features, weights[..., None] * latents)
        most = of.D if reduction == "sum" else 1
        assert ((weights >= 0) & (weights <= most)).all()


@REDUCTION
@pytest.mark.parametrize(("m", "d"), [(9, 128), (1, 128), (2, 1), (1, 2)])
def test_intra_w_is_uniform_where_nothing_but_the_bias_speaks(
    reduction: Reduction, m: int, d: int
) -> None:
    layer = IntraRelation(d, m, reduction=reduction, dtype=torch.float64)
    _, weights = layer(torch.zeros(2, m, d, dtype=torch.float64))
    # A single gate cannot be 1.
    expected = 0.99 if (m, reduction) == (1, "mean") else 1 / m
    assert_close("Intra-W", weights, torch.full((2, m), expected, dtype=torch.float64))


def test_a_single_gate_is_finite() -> None:
    for reduction in REDUCTIONS:
        bias = IntraRelation(1, 1, reduction=reduction).bias
        assert bias is not None
        assert bias.isfinite().all()


@REDUCTION
@BIAS
def test_the_start_of_gates_changes_their_bias_alone(reduction: Reduction, bias: bool) -> None:
    made = {}
    starts: tuple[GateInit, ...] = ("uniform", "linear")
    with torch.random.fork_rng(devices=[]):
        for start in starts:
            torch.manual_seed(3)
            layer = IntraRelation(6, 3, reduction=reduction, gate_init=start, bias=bias)
            made[start] = layer, torch.rand(())
    (uniform, after), (linear, then) = made["uniform"], made["linear"]
    assert torch.equal(uniform.weight, linear.weight)
    assert torch.equal(after, then)  # as many random numbers have been drawn
    if not bias:
        return
    assert uniform.bias is not None
    assert linear.bias is not None
    assert uniform.bias.unique().numel() == 1
    assert linear.bias.unique().numel() == linear.bias.numel()
    assert linear.bias.abs().max() <= 6**-0.5


@REDUCTION
def test_gates_can_be_started_again(reduction: Reduction) -> None:
    layer = IntraRelation(6, 3, reduction=reduction)
    assert layer.bias is not None
    wanted = layer.bias.clone()
    with torch.no_grad():
        layer.bias.fill_(torch.nan)
    layer.reset_parameters()
    assert torch.equal(layer.bias, wanted)
    on_meta = IntraRelation(6, 3, reduction=reduction, device="meta").to_empty(device="cpu")
    on_meta.reset_parameters()
    assert on_meta.bias is not None
    assert torch.equal(on_meta.bias, wanted)


def test_rejects_an_unknown_start() -> None:
    start: Any = "zeros"
    with pytest.raises(ValueError, match=r"`gate_init` must be one of 'uniform', 'linear', got"):
        IntraRelation(6, 3, gate_init=start)
