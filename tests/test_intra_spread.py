"""How much Intra-W varies: against loops, at its limits, and what it refuses."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from hypothesis import given

import oracles
from fdrl_layers import IntraSpread, intra_spread
from strategies import normal, seeds


@pytest.mark.parametrize("count", [2, 5, 40])
def test_matches_oracle(count: int) -> None:
    weights = normal(count, 4, seed=count)
    target = torch.arange(count) % 3 * 2  # class 1 has no face
    target[0] = -100
    want = (*oracles.intra_spread(weights.numpy(), target.numpy()), 4)
    assert dataclasses.astuple(intra_spread(weights, target)) == pytest.approx(want, abs=1e-10)


@given(seed=seeds())
def test_law_the_scale_and_the_order_of_faces_do_not_count(seed: int) -> None:
    weights, target = normal(12, 5, seed=seed), torch.arange(12) % 4
    order = torch.randperm(12, generator=torch.Generator().manual_seed(seed))
    one, other = intra_spread(weights, target), intra_spread(3 * weights[order], target[order])
    assert dataclasses.astuple(one) == pytest.approx(dataclasses.astuple(other), rel=1e-9)
    assert one.explained is not None
    assert 0 <= one.explained <= 1
    assert 1 <= one.effective_latents <= 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    "weights", [torch.full((7, 9), 1 / 9), torch.rand(1, 3), torch.zeros(4, 2)]
)
def test_what_does_not_vary_is_zero_and_dead(weights: torch.Tensor, dtype: torch.dtype) -> None:
    found = intra_spread(weights.to(dtype), torch.arange(len(weights)) % 2)
    assert found == IntraSpread(0.0, 0.0, 0.0, weights.shape[1])
    assert found.dead


def test_one_class_explains_nothing_and_no_class_is_not_asked() -> None:
    weights = normal(6, 3, seed=0)
    assert intra_spread(weights, torch.full((6,), 4)).explained == pytest.approx(0, abs=1e-12)
    assert intra_spread(weights, torch.full((6,), -100)).explained == 0
    assert intra_spread(weights).explained is None


def test_a_latent_that_alone_varies_alone_counts() -> None:
    weights = torch.full((8, 9), 0.1)
    for count, latent in enumerate((3, 5), start=1):
        weights[:, latent] += torch.arange(8) / 8
        assert intra_spread(weights).effective_latents == pytest.approx(count)


VARIES = (
    "Intra-W varies over faces by 30 % of its size, 100 % of the variance is between classes, and "
    "2.0 of 2 latents carry it."
)


@pytest.mark.parametrize(
    ("deviation", "said"),
    [
        (0.011, "Intra-W is the same for every face to 1 %: Intra-RM does nothing here."),
        (0.0, "Intra-W is the same for every face to 0 %: Intra-RM does nothing here."),
        (0.3, VARIES),
    ],
)
def test_it_is_said_in_a_sentence(deviation: float, said: str) -> None:
    weights = 1 + deviation * torch.tensor([[1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
    assert intra_spread(weights, torch.tensor([0, 1])).sentence == said


def test_half_types_are_added_up_in_float64() -> None:
    weights = (1 + torch.rand(5000, 3, generator=torch.Generator().manual_seed(0))).bfloat16()
    assert intra_spread(weights).spread == intra_spread(weights.double()).spread
    assert not math.isnan(intra_spread(weights).spread)


ONES, ZEROS = torch.ones(3, 2), torch.zeros(2, dtype=torch.int64)
NEGATIVE = torch.tensor([0, -1, -2])


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ((ONES.long(),), TypeError, "`intra_weights` must be floating point"),
        ((torch.ones(3),), ValueError, r"must have shape \(N, M\), got \(3,\)"),
        ((torch.ones(0, 2),), ValueError, r"at least one face and one latent, got \(0, 2\)"),
        ((torch.tensor([[1.0, math.nan]]),), ValueError, "must be finite"),
        ((ONES, torch.ones(3)), TypeError, "`target` must be int64"),
        ((ONES, [0, 1, 2]), TypeError, r"`target` must be a torch\.Tensor, got list"),
        ((ONES, ZEROS), ValueError, r"`target` must have shape \(N,\) with N = 3"),
        ((ONES, NEGATIVE), ValueError, "at least 0 or `ignore_index` = -1, got -2"),
    ],
)
def test_rejects(given: tuple[Any, ...], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        intra_spread(*given, ignore_index=-1)
