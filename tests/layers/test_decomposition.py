import pytest
import torch
from hypothesis import example, given
from torch.autograd import gradcheck

import oracles
from comparing import assert_close
from fdrl_layers.functional import feature_decomposition
from gradients import leaves
from layer_cases import SMALL, pair
from strategies import PAPER, Sizes, normal, oracle_arguments, parameters_for, scales, seeds, sizes


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "bare"])
@given(of=sizes(), seed=seeds(), scale=scales())
@example(of=PAPER, seed=0, scale=1.0)
def test_matches_oracle_and_is_not_negative(of: Sizes, seed: int, scale: float, bias: bool) -> None:
    parameters = parameters_for(of, seed, bias=bias)
    x = normal(of.N, of.P, seed=seed + 1, scale=scale)
    arrays = oracle_arguments(parameters)
    expected = oracles.feature_decomposition(
        x.numpy(), arrays["decomposition_weight"], arrays.get("decomposition_bias")
    )
    latents = feature_decomposition(x, *pair(parameters, "decomposition"))
    assert_close("latents", latents, expected)
    assert (latents >= 0).all()


def test_a_dead_branch_has_no_gradient() -> None:
    weight, bias = pair(parameters_for(SMALL, 1), "decomposition")
    assert bias is not None
    bias[1] = -100.0
    inputs = leaves(normal(SMALL.N, SMALL.P, seed=1), weight, bias)
    assert gradcheck(feature_decomposition, inputs)
    assert torch.equal(feature_decomposition(*inputs)[:, 1], torch.zeros(SMALL.N, SMALL.D))
