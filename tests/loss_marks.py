"""What many tests of losses run over: rules, types, and the targets of a small batch."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from loss_cases import RULES
from strategies import IGNORE_INDEX, normal

TargetOf = Callable[..., Tensor]

RULE = pytest.mark.parametrize("rule", RULES)
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
DTYPE = pytest.mark.parametrize("dtype", DTYPES, ids=str)
HALF = pytest.mark.parametrize("dtype", DTYPES[2:], ids=str)

HARD = torch.tensor([IGNORE_INDEX, 1, 0, 0, 2, 4])
"""The first is ignored, class 3 is absent and 4 comes last."""

TARGETS = {"hard": HARD, "all counted": HARD.clamp_min(0), "soft": normal(6, 5, seed=9).softmax(1)}
TARGET = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
