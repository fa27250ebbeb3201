from typing import Any, get_args

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

import oracles
from comparing import assert_close
from fdrl_layers import IntraRelation
from fdrl_layers.functional import intra_relation
from fdrl_layers.layers import GateInit, Reduction
from gradients import leaves
from layer_cases import Regime, pair, regimes
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

REDUCTION = pytest.mark.parametrize("reduction", get_args(Reduction))
BIAS = pytest.mark.parametrize("bias", [True, False], ids=["bias", "bare"])


def check_against_oracle(
    latents: Tensor, parameters: dict[str, Tensor], reduction: Reduction
) -> Tensor:
    gates = pair(parameters, "reconstruction.intra")
    bias = None if gates[1] is None else gates[1].numpy()
    expected = oracles.intra_relation(latents.numpy(), gates[0].numpy(), bias, reduction)
    features, weights = intra_relation(latents, *gates, reduction=reduction)
    actual = {"features": features, "Intra-W": weights}
    assert_close("relation", actual, dict(zip(actual, expected, strict=True)))
    return weights


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


def test_the_printed_sum_is_the_default() -> None:
    layer = IntraRelation(6, 3, dtype=torch.float64)
    latents = normal(4, 3, 6, seed=0)
    _, expected = intra_relation(latents, layer.weight, layer.bias, reduction="sum")
    assert torch.equal(intra_relation(latents, layer.weight, layer.bias)[1], expected)
    assert torch.equal(layer(latents)[1], expected)


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
    found = torch.autograd.grad((weights * torch.arange(3)).sum(), gates)
    assert all(gradient.isfinite().all() for gradient in found)


@given(data=st.data(), of=sizes(), seed=seeds(), shift=st.floats(-1e4, 1e4))
def test_law_shares_sum_to_one(data: st.DataObject, of: Sizes, seed: int, shift: float) -> None:
    latents = data.draw(latents_NMD(of))
    weight, bias = pair(parameters_for(of, seed), "reconstruction.intra")
    assert bias is not None
    _, shares = intra_relation(latents, weight, bias + shift, reduction="share")
    assert (shares >= 0).all()
    assert_close("sums", shares.sum(-1), torch.ones(of.N))


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


@REDUCTION
def test_a_single_gate_is_finite(reduction: Reduction) -> None:
    assert bias_of(IntraRelation(1, 1, reduction=reduction)).isfinite().all()


def bias_of(layer: IntraRelation) -> Tensor:
    assert layer.bias is not None
    return layer.bias


@REDUCTION
@BIAS
def test_the_start_of_gates_changes_their_bias_alone(reduction: Reduction, bias: bool) -> None:
    made = []
    for start in get_args(GateInit):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            layer = IntraRelation(6, 3, reduction=reduction, gate_init=start, bias=bias)
            made.append((layer, torch.rand(())))
    (uniform, after), (linear, then) = made
    assert torch.equal(uniform.weight, linear.weight)
    assert torch.equal(after, then)  # as many random numbers have been drawn
    if bias:
        assert bias_of(uniform).unique().numel() == 1
        assert bias_of(linear).unique().numel() == 3 * 6
        assert bias_of(linear).abs().max() <= 6**-0.5


@REDUCTION
def test_gates_can_be_started_again(reduction: Reduction) -> None:
    layer = IntraRelation(6, 3, reduction=reduction)
    wanted = bias_of(layer).clone()
    torch.nn.init.constant_(bias_of(layer), torch.nan)
    on_meta = IntraRelation(6, 3, reduction=reduction, device="meta").to_empty(device="cpu")
    for each in (layer, on_meta):
        each.reset_parameters()
        assert torch.equal(bias_of(each), wanted)


def test_rejects_an_unknown_start() -> None:
    start: Any = "zeros"
    with pytest.raises(ValueError, match=r"`gate_init` must be one of 'uniform', 'linear', got"):
        IntraRelation(6, 3, gate_init=start)
