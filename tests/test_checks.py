import re
from typing import Any

import numpy as np
import pytest
import torch

from fdrl_layers import _checks
from fdrl_layers._precision import widen, widest


@pytest.mark.parametrize("value", [1, 9, np.int64(3)])
def test_check_size_accepts_integers(value: int) -> None:
    _checks.check_size("num_latents", value)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (0, ValueError, "`num_latents` must be at least 1, got 0"),
        (-1, ValueError, "`num_latents` must be at least 1, got -1"),
        (1.0, TypeError, "`num_latents` must be an integer, got float: 1.0"),
        (True, TypeError, "`num_latents` must be an integer, got bool: True"),
        ("9", TypeError, "`num_latents` must be an integer, got str: '9'"),
        (None, TypeError, "`num_latents` must be an integer, got NoneType: None"),
    ],
)
def test_check_size_rejects(value: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        _checks.check_size("num_latents", value)


def test_check_size_has_another_minimum() -> None:
    _checks.check_size("num_classes", 0, minimum=0)
    with pytest.raises(ValueError, match="`num_classes` must be at least 2, got 1"):
        _checks.check_size("num_classes", 1, minimum=2)


@pytest.mark.parametrize("value", [0, 0.5, 1, np.float32(0.5)])
def test_check_number_accepts_both_ends(value: float) -> None:
    _checks.check_number("delta", value, 0, 1)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (-1e-9, ValueError, "`delta` must be a finite number in [0, 1], got -1e-09"),
        (1.5, ValueError, "`delta` must be a finite number in [0, 1], got 1.5"),
        (float("nan"), ValueError, "`delta` must be a finite number in [0, 1], got nan"),
        (False, TypeError, "`delta` must be a number, got bool: False"),
        ("1", TypeError, "`delta` must be a number, got str: '1'"),
        (1j, TypeError, "`delta` must be a number, got complex: 1j"),
    ],
)
def test_check_number_rejects(value: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        _checks.check_number("delta", value, 0, 1)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), -1.0])
def test_check_number_without_a_maximum_wants_a_finite_number(value: float) -> None:
    _checks.check_number("weight", 1e300, 0)
    with pytest.raises(ValueError, match=f"`weight` must be a finite number >= 0, got {value}"):
        _checks.check_number("weight", value, 0)


@pytest.mark.parametrize("value", ["max", "", None, 1])
def test_check_choice(value: Any) -> None:
    _checks.check_choice("reduction", "sum", ("sum", "mean"))
    message = f"`reduction` must be one of 'sum', 'mean', got {value!r}"
    with pytest.raises(ValueError, match=re.escape(message)):
        _checks.check_choice("reduction", value, ("sum", "mean"))


def test_check_floating() -> None:
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        _checks.check_floating("input", torch.ones(2, dtype=dtype))
    not_tensor: Any = np.ones(2)
    with pytest.raises(TypeError, match=r"`input` must be a torch\.Tensor, got ndarray"):
        _checks.check_floating("input", not_tensor)
    for dtype in (torch.int64, torch.bool, torch.complex64):
        with pytest.raises(TypeError, match=f"`input` must be floating point, got {dtype}"):
            _checks.check_floating("input", torch.ones(2, dtype=dtype))


@pytest.mark.parametrize(
    ("shape", "axes", "sizes"),
    [
        ((5,), "* P", {"P": 5}),
        ((2, 3, 5), "* P", {"P": 5}),
        ((0, 5), "* P", {"P": 5}),
        ((4, 3), "* M D", {}),
        ((4, 3, 3), "M D D", {}),
        ((7,), "N", {"N": 7}),
        ((), "", {}),
    ],
)
def test_check_shape_accepts(shape: tuple[int, ...], axes: str, sizes: dict[str, int]) -> None:
    _checks.check_shape("input", torch.ones(shape), axes, **sizes)


@pytest.mark.parametrize(
    ("shape", "axes", "sizes", "message"),
    [
        ((2, 6), "* P", {"P": 5}, "`input` must have shape (*, P) with P = 5, got (2, 6)"),
        ((), "* P", {"P": 5}, "`input` must have shape (*, P) with P = 5, got ()"),
        ((3,), "* M D", {}, "`input` must have shape (*, M, D), got (3,)"),
        ((4, 3, 2), "M D D", {}, "`input` must have shape (M, D, D), got (4, 3, 2)"),
        ((1, 4, 3), "M D", {}, "`input` must have shape (M, D), got (1, 4, 3)"),
        ((1,), "N", {"N": 7}, "`input` must have shape (N,) with N = 7, got (1,)"),
        (
            (4, 2),
            "M D",
            {"M": 4, "D": 3},
            "`input` must have shape (M, D) with M = 4 and D = 3, got (4, 2)",
        ),
    ],
)
def test_check_shape_rejects(
    shape: tuple[int, ...], axes: str, sizes: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        _checks.check_shape("input", torch.ones(shape), axes, **sizes)


def test_check_device() -> None:
    here, there = torch.ones(2), torch.ones(2, device="meta")
    _checks.check_device("input", here, "weight", here)
    match = "`input` must be on cpu, the device of `weight`, got meta"
    with pytest.raises(ValueError, match=match):
        _checks.check_device("input", there, "weight", here)
    with pytest.raises(ValueError, match=match):
        _checks.check_alike("input", there, "weight", here)


def test_check_alike_leaves_types_to_autocast() -> None:
    single, half = torch.ones(2), torch.ones(2, dtype=torch.bfloat16)
    _checks.check_alike("input", single, "weight", single)
    with torch.autocast("cpu", torch.bfloat16):
        _checks.check_alike("input", half, "weight", single)
    match = r"`input` must be torch\.float32, the type of `weight`, got torch\.bfloat16"
    with pytest.raises(TypeError, match=match):
        _checks.check_alike("input", half, "weight", single)


def test_widen_and_widest() -> None:
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        tensor = torch.ones(2, dtype=dtype)
        assert widen(tensor).dtype == torch.promote_types(dtype, torch.float32)
        assert widest(tensor).dtype == torch.float64
