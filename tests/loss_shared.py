"""What many tests of losses share: what they run over, small models, a comparison of states."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from comparing import assert_close
from fdrl_layers import FDRLHead
from loss_cases import RULES, SMALL
from strategies import IGNORE_INDEX, Sizes, normal, parameters_for

TargetOf = Callable[..., Tensor]

RULE = pytest.mark.parametrize("rule", RULES)
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
DTYPE = pytest.mark.parametrize("dtype", DTYPES, ids=str)
HALF = pytest.mark.parametrize("dtype", DTYPES[2:], ids=str)

HARD = torch.tensor([IGNORE_INDEX, 1, 0, 0, 2, 4])
"""The first is ignored, class 3 is absent and 4 comes last."""

TARGETS = {"hard": HARD, "all counted": HARD.clamp_min(0), "soft": normal(6, 5, seed=9).softmax(1)}
TARGET = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)


def assert_close_state(
    actual: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    dtype: torch.dtype = torch.float64,
    name: str = "state",
) -> None:
    """Fail unless both states are close; a loss without centers has none."""
    assert list(actual) == list(expected)
    if expected:
        one, other = ({k: v.double() for k, v in state.items()} for state in (actual, expected))
        assert_close(name, one, other, dtype)


def head_of(of: Sizes = SMALL, seed: int = 0, **options: Any) -> FDRLHead:
    """A head in float64 with the parameters of `seed`."""
    given: dict[str, Any] = {
        "latent_dim": of.D,
        "num_latents": of.M,
        "dtype": torch.float64,
    } | options
    head = FDRLHead(of.P, of.K, **given)
    has = {name: options.get(name, True) for name in ("intra", "inter")}
    head.load_state_dict(parameters_for(of, seed, **has))
    return head


def model_of(of: Sizes, width: int = 3, **options: Any) -> nn.Sequential:
    """A backbone of one layer and a head, the same everywhere."""
    backbone = nn.Linear(width, of.P, dtype=torch.float64)
    backbone.load_state_dict({"weight": normal(of.P, width, seed=1), "bias": normal(of.P, seed=2)})
    return nn.Sequential(backbone, nn.ReLU(), head_of(of, **options))
