"""Negative control: the referee must be able to fail, in every row of its table."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from comparing import TOLERANCES, assert_close

DTYPES = pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
FINER = dict(pairwise((torch.bfloat16, torch.float16, torch.float32, torch.float64)))


def latents(scale: float = 1.0) -> torch.Tensor:
    """Expected values (5, 9, 32) in float64, none of them near 0."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(5, 9, 32, generator=generator, dtype=torch.float64)
    return scale * (values.sign() + values)


def moved(values: torch.Tensor, index: tuple[int, ...], by: float) -> torch.Tensor:
    """A copy in which one element is off."""
    found = values.clone()
    found[index] += by
    return found


def fails(expected: object, actual: object, dtype: Any = None, scale: float = 0) -> str:
    """The message of the failure that must come."""
    with pytest.raises(AssertionError) as caught:
        assert_close("latents", actual, expected, dtype, scale=scale)
    return str(caught.value)


def fails_beyond(limit: Callable[..., Any], expected: object, dtype: Any, scale: float = 0) -> str:
    """The message of what is a hundredth beyond its limit; a hundredth within it, nothing fails."""
    assert_close("latents", limit(0.99), expected, dtype, scale=scale)
    return fails(expected, limit(1.01), dtype, scale)


@DTYPES
@pytest.mark.parametrize("scale", [1e-4, 1.0, 64.0, 1e4])
def test_one_wrong_element_among_many(dtype: torch.dtype, scale: float) -> None:
    expected = latents(scale)
    worst = int(expected.abs().argmax())
    index = tuple(int(i) for i in np.unravel_index(worst, expected.shape))
    step = TOLERANCES[dtype].peak * float(expected[index])
    message = fails_beyond(lambda part: moved(expected, index, part * step), expected, dtype)
    wrong = float(expected[index] + 1.01 * step)
    assert message.startswith("latents: ")
    assert f"worst at {index}: {wrong:.9g}, expected {expected[index]:.9g}" in message
    assert "1 of 1440 elements" in message


@DTYPES
def test_a_small_element_has_the_limit_of_the_rms(dtype: torch.dtype) -> None:
    expected = latents()
    expected[1, 2, 3] = 0.0
    limit = -TOLERANCES[dtype].peak * float(expected.square().mean().sqrt())
    message = fails_beyond(lambda part: moved(expected, (1, 2, 3), part * limit), expected, dtype)
    assert "worst at (1, 2, 3)" in message


@DTYPES
def test_a_small_error_everywhere(dtype: torch.dtype) -> None:
    expected = latents()
    row = TOLERANCES[dtype]
    relative = row.rms + (row.peak - row.rms) / expected.numel() ** 0.5
    fails_beyond(lambda part: expected * (1 + part * relative), expected, dtype)
    fails_beyond(lambda part: expected * (1 - part * relative), expected, dtype)


@DTYPES
def test_two_spacings_are_no_error_but_where_a_finer_dtype_is_asked_for(dtype: torch.dtype) -> None:
    expected = latents(64.0)
    assert_close("rounded", expected.to(dtype), expected)
    noisy = expected * (1 + 2 * torch.finfo(dtype).eps)
    assert_close("two spacings", noisy, expected, dtype)
    if dtype in FINER:
        fails(expected, noisy, FINER[dtype])


@DTYPES
@pytest.mark.parametrize("scale", [1e-4, 1.0, 64.0])
def test_gross_errors(dtype: torch.dtype, scale: float) -> None:
    expected = latents(scale)
    wrong = {
        "sign": -expected,
        "one sign": moved(expected, (4, 8, 31), -2 * float(expected[4, 8, 31])),
        "swapped latents": expected[:, [1, 0, 2, 3, 4, 5, 6, 7, 8]],
        "swapped samples": expected.flip(0),
        "zeros": torch.zeros_like(expected),
        "twice": 2 * expected,
        "a tenth": 1.1 * expected,
    }
    for name, actual in wrong.items():
        assert "worst at" in fails(expected, actual, dtype), name


@DTYPES
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_not_finite(dtype: torch.dtype, value: float) -> None:
    expected = latents()
    actual = moved(expected, (2, 3, 4), value)
    assert "not finite; worst at (2, 3, 4)" in fails(expected, actual, dtype)
    assert "inf or NaN is expected" in fails(actual, expected, dtype)
    assert_close("the same", actual, actual.clone(), dtype)
    fails(actual, -actual.abs() - 1, dtype)
    fails(actual, moved(actual, (0, 0, 0), 1), dtype)


def test_one_infinity_is_not_another() -> None:
    inf = torch.tensor([float("inf"), 1.0])
    fails(inf, inf * torch.tensor([-1.0, 1.0]))
    fails(inf, torch.tensor([float("nan"), 1.0]))


@pytest.mark.parametrize(
    ("actual", "expected"),
    [((1, 9), (5, 9)), ((5, 1), (5, 9)), ((9,), (5, 9)), ((), (1,)), ((0,), ()), ((5, 9), (9, 5))],
)
def test_shapes_are_never_broadcast(actual: tuple[int, ...], expected: tuple[int, ...]) -> None:
    with pytest.raises(AssertionError, match=r"ones: shape \(.*\), expected \("):
        assert_close("ones", torch.ones(actual), np.ones(expected))


@DTYPES
def test_a_scalar_and_a_near_zero(dtype: torch.dtype) -> None:
    row, two = TOLERANCES[dtype], torch.tensor(2.0, dtype=torch.float64)
    fails_beyond(lambda part: two * (1 + part * row.peak), 2.0, dtype)
    fails_beyond(lambda part: 0 * two + part * row.floor, 0.0, dtype)
    fails_beyond(lambda part: part * 200 * row.peak, 0 * two, dtype, scale=200)


def test_the_row_is_that_of_the_actual_dtype() -> None:
    expected = latents()
    assert_close("half", expected.half(), expected)
    assert "latents: " in fails(expected, expected.half().double())
    single = expected.float().numpy()
    assert_close("array", single, expected)
    assert "latents: " in fails(expected, single.astype(np.float64))


def test_mappings() -> None:
    pair = {"weight": torch.ones(2), "bias": torch.zeros(2)}
    assert_close("gradient", pair, {key: value.numpy() for key, value in pair.items()})
    assert "latents.bias" in fails({**pair, "bias": torch.ones(2)}, pair)
    assert "keys" in fails({"weight": torch.ones(2)}, pair)
    assert "keys" in fails(pair, {})
    assert "empty" in fails({}, {})
    assert "mapping" in fails(pair, torch.ones(2))


@pytest.mark.parametrize("value", [None, 1, "1.0", [1.0], torch.ones(2, dtype=torch.int64)])
def test_what_cannot_be_compared_is_refused(value: object) -> None:
    for actual in (value, torch.ones(2)):
        with pytest.raises(TypeError, match="thing"):
            assert_close("thing", actual, value)


def test_empty_and_strided_tensors_have_a_shape_too() -> None:
    assert_close("latents", torch.zeros(0, 9, 128), np.zeros((0, 9, 128)))
    assert "shape" in fails(np.zeros((0, 9, 128)), torch.zeros(0, 9))
    assert_close("leaf", torch.ones(3, 2, requires_grad=True).t(), np.ones((2, 3)))
