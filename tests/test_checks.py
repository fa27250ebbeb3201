import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import ones

from fdrl_layers import _checks
from fdrl_layers._precision import widen, widest

LATENTS = partial(_checks.check_size, "num_latents")
DELTA = partial(_checks.check_number, "delta", minimum=0, maximum=1)
WEIGHT = partial(_checks.check_number, "weight", minimum=0)
REDUCTION = partial(_checks.check_choice, "reduction", choices=("sum", "mean"))
INPUT = partial(_checks.check_floating, "input")
SHAPE = partial(_checks.check_shape, "input")
TYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@pytest.mark.parametrize(
    ("check", "values"),
    [
        (LATENTS, (1, 9, np.int64(3))),
        (partial(LATENTS, minimum=0), (0,)),
        (DELTA, (0, 0.5, 1, np.float32(0.5))),
        (WEIGHT, (0, 1e300)),
        (REDUCTION, ("sum", "mean")),
        (INPUT, [ones(2, dtype=dtype) for dtype in TYPES]),
        (partial(SHAPE, axes="* P", P=5), (ones(5), ones(2, 3, 5), ones(0, 5))),
        (partial(SHAPE, axes="* M D"), (ones(4, 3),)),
        (partial(SHAPE, axes="M D D"), (ones(4, 3, 3),)),
        (partial(SHAPE, axes="N", N=7), (ones(7),)),
        (partial(SHAPE, axes=""), (ones(()),)),
    ],
)
def test_accepts(check: Callable[[Any], None], values: Any) -> None:
    for value in values:
        check(value)


@pytest.mark.parametrize(
    ("check", "value", "error", "match"),
    [
        (LATENTS, 0, ValueError, "`num_latents` must be at least 1, got 0"),
        (LATENTS, -1, ValueError, "`num_latents` must be at least 1, got -1"),
        (LATENTS, 1.0, TypeError, "`num_latents` must be an integer, got float: 1.0"),
        (LATENTS, True, TypeError, "`num_latents` must be an integer, got bool: True"),
        (LATENTS, "9", TypeError, "`num_latents` must be an integer, got str: '9'"),
        (LATENTS, None, TypeError, "`num_latents` must be an integer, got NoneType: None"),
        (partial(LATENTS, minimum=2), 1, ValueError, "`num_latents` must be at least 2, got 1"),
        (DELTA, -1e-9, ValueError, "`delta` must be a finite number in [0, 1], got -1e-09"),
        (DELTA, 1.5, ValueError, "`delta` must be a finite number in [0, 1], got 1.5"),
        (DELTA, np.nan, ValueError, "`delta` must be a finite number in [0, 1], got nan"),
        (DELTA, False, TypeError, "`delta` must be a number, got bool: False"),
        (DELTA, "1", TypeError, "`delta` must be a number, got str: '1'"),
        (DELTA, 1j, TypeError, "`delta` must be a number, got complex: 1j"),
        (WEIGHT, np.inf, ValueError, "`weight` must be a finite number >= 0, got inf"),
        (WEIGHT, np.nan, ValueError, "`weight` must be a finite number >= 0, got nan"),
        (WEIGHT, -1.0, ValueError, "`weight` must be a finite number >= 0, got -1.0"),
        (REDUCTION, "max", ValueError, "`reduction` must be one of 'sum', 'mean', got 'max'"),
        (REDUCTION, "", ValueError, "`reduction` must be one of 'sum', 'mean', got ''"),
        (REDUCTION, None, ValueError, "`reduction` must be one of 'sum', 'mean', got None"),
        (REDUCTION, 1, ValueError, "`reduction` must be one of 'sum', 'mean', got 1"),
        (INPUT, np.ones(2), TypeError, "`input` must be a torch.Tensor, got ndarray"),
        (INPUT, ones(2).long(), TypeError, "`input` must be floating point, got torch.int64"),
        (INPUT, ones(2).bool(), TypeError, "`input` must be floating point, got torch.bool"),
        (INPUT, ones(2) * 1j, TypeError, "`input` must be floating point, got torch.complex64"),
    ],
)
def test_rejects(check: Callable[[Any], None], value: Any, error: Any, match: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(match)}$"):
        check(value)


@pytest.mark.parametrize(
    ("shape", "axes", "sizes", "wanted"),
    [
        ((2, 6), "* P", {"P": 5}, "(*, P) with P = 5, got (2, 6)"),
        ((), "* P", {"P": 5}, "(*, P) with P = 5, got ()"),
        ((3,), "* M D", {}, "(*, M, D), got (3,)"),
        ((4, 3, 2), "M D D", {}, "(M, D, D), got (4, 3, 2)"),
        ((1, 4, 3), "M D", {}, "(M, D), got (1, 4, 3)"),
        ((1,), "N", {"N": 7}, "(N,) with N = 7, got (1,)"),
        ((4, 2), "M D", {"M": 4, "D": 3}, "(M, D) with M = 4 and D = 3, got (4, 2)"),
    ],
)
def test_rejects_shapes(shape: Any, axes: str, sizes: dict[str, int], wanted: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(f'`input` must have shape {wanted}')}$"):
        SHAPE(ones(shape), axes, **sizes)


def test_check_device() -> None:
    here, there = ones(2), ones(2, device="meta")
    for check in (_checks.check_device, _checks.check_alike):
        check("input", here, "weight", here)
        match = "`input` must be on cpu, the device of `weight`, got meta"
        with pytest.raises(ValueError, match=match):
            check("input", there, "weight", here)


def test_check_alike_leaves_types_to_autocast() -> None:
    single, half = ones(2), ones(2, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        _checks.check_alike("input", half, "weight", single)
    match = r"`input` must be torch\.float32, the type of `weight`, got torch\.bfloat16"
    with pytest.raises(TypeError, match=match):
        _checks.check_alike("input", half, "weight", single)


def test_widen_and_widest() -> None:
    for dtype in TYPES:
        tensor = ones(2, dtype=dtype)
        assert widen(tensor).dtype == torch.promote_types(dtype, torch.float32)
        assert widest(tensor).dtype == torch.float64
