"""Negative control: the referee must be able to fail, in every row of its table."""

import numpy as np
import pytest
import torch

from comparing import TOLERANCES, assert_close

DTYPES = pytest.mark.parametrize("dtype", TOLERANCES, ids=str)


def latents(scale: float = 1.0) -> torch.Tensor:
    """Expected values (5, 9, 32) in float64, none of them near 0."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(5, 9, 32, generator=generator, dtype=torch.float64)
    return scale * (values.sign() + values)


def fails(expected: torch.Tensor, actual: torch.Tensor, dtype: torch.dtype) -> str:
    """The message of the failure that must come."""
    with pytest.raises(AssertionError) as caught:
        assert_close("latents", actual, expected, dtype)
    return str(caught.value)


@DTYPES
@pytest.mark.parametrize("scale", [1e-4, 1.0, 64.0, 1e4])
def test_one_wrong_element_among_many(dtype: torch.dtype, scale: float) -> None:
    expected = latents(scale)
    worst = int(expected.abs().argmax())
    index = tuple(int(i) for i in np.unravel_index(worst, expected.shape))
    step = TOLERANCES[dtype].peak * expected[index]
    actual = expected.clone()
    actual[index] = expected[index] + 0.99 * step
    assert_close("latents", actual, expected, dtype)
    actual[index] = expected[index] + 1.01 * step
    message = fails(expected, actual, dtype)
    assert message.startswith("latents: ")
    assert (
        f"worst at {index}: {float(actual[index]):.9g}, expected {expected[index]:.9g}" in message
    )
    assert "1 of 1440 elements" in message


@DTYPES
def test_a_small_element_has_the_limit_of_the_rms(dtype: torch.dtype) -> None:
    expected = latents()
    expected[1, 2, 3] = 0.0
    limit = TOLERANCES[dtype].peak * float(expected.square().mean().sqrt())
    actual = expected.clone()
    actual[1, 2, 3] = -0.99 * limit
    assert_close("latents", actual, expected, dtype)
    actual[1, 2, 3] = -1.01 * limit
    assert "worst at (1, 2, 3)" in fails(expected, actual, dtype)


@DTYPES
def test_a_small_error_everywhere(dtype: torch.dtype) -> None:
    expected = latents()
    row = TOLERANCES[dtype]
    relative = row.rms + (row.peak - row.rms) / expected.numel() ** 0.5
    assert_close("latents", expected * (1 + 0.99 * relative), expected, dtype)
    fails(expected, expected * (1 + 1.01 * relative), dtype)
    fails(expected, expected * (1 - 1.01 * relative), dtype)


@DTYPES
def test_two_spacings_of_the_dtype_are_no_error(dtype: torch.dtype) -> None:
    expected = latents(64.0)
    spacing = torch.finfo(dtype).eps
    assert_close("rounded", expected.to(dtype), expected)
    assert_close("two spacings", expected * (1 + 2 * spacing), expected, dtype)


@DTYPES
def test_each_row_is_tighter_than_the_next_coarser_dtype(dtype: torch.dtype) -> None:
    coarser = {
        torch.float64: torch.float32,
        torch.float32: torch.float16,
        torch.float16: torch.bfloat16,
    }
    if dtype in coarser:
        noisy = latents() * (1 + 2 * torch.finfo(coarser[dtype]).eps)
        assert_close("latents", noisy, latents(), coarser[dtype])
        fails(latents(), noisy, dtype)
    else:
        fails(latents(), latents() * 1.1, dtype)


@DTYPES
@pytest.mark.parametrize("scale", [1e-4, 1.0, 64.0])
def test_gross_errors(dtype: torch.dtype, scale: float) -> None:
    expected = latents(scale)
    swapped = expected[:, [1, 0, 2, 3, 4, 5, 6, 7, 8]]
    one_sign = expected.clone()
    one_sign[4, 8, 31] *= -1
    wrong = {
        "sign": -expected,
        "one sign": one_sign,
        "swapped latents": swapped,
        "swapped samples": expected.flip(0),
        "zeros": torch.zeros_like(expected),
        "twice": 2 * expected,
    }
    for name, actual in wrong.items():
        message = fails(expected, actual, dtype)
        assert "worst at" in message, name


@DTYPES
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_not_finite(dtype: torch.dtype, value: float) -> None:
    expected = latents()
    actual = expected.clone()
    actual[2, 3, 4] = value
    assert "not finite; worst at (2, 3, 4)" in fails(expected, actual, dtype)
    assert "inf or NaN is expected" in fails(actual, expected, dtype)
    assert_close("the same", actual, actual.clone(), dtype)
    fails(actual, -actual.abs() - 1, dtype)
    other = actual.clone()
    other[0, 0, 0] += 1
    fails(actual, other, dtype)


def test_one_infinity_is_not_another() -> None:
    inf = torch.tensor([float("inf"), 1.0])
    fails(inf, inf * torch.tensor([-1.0, 1.0]), torch.float32)
    fails(inf, torch.tensor([float("nan"), 1.0]), torch.float32)


@pytest.mark.parametrize(
    ("actual", "expected"),
    [((1, 9), (5, 9)), ((5, 1), (5, 9)), ((9,), (5, 9)), ((), (1,)), ((0,), ()), ((5, 9), (9, 5))],
)
def test_shapes_are_never_broadcast(actual: tuple[int, ...], expected: tuple[int, ...]) -> None:
    with pytest.raises(AssertionError, match=r"ones: shape \(.*\), expected \("):
        assert_close("ones", torch.ones(actual), np.ones(expected))


@DTYPES
def test_a_scalar_and_a_near_zero(dtype: torch.dtype) -> None:
    row = TOLERANCES[dtype]
    assert_close("loss", torch.tensor(2.0, dtype=torch.float64), 2.0 * (1 + 0.99 * row.peak), dtype)
    fails(torch.tensor(2.0), torch.tensor(2.0, dtype=torch.float64) * (1 + 1.01 * row.peak), dtype)
    zero = torch.zeros((), dtype=torch.float64)
    assert_close("zero", zero + 0.99 * row.floor, 0.0, dtype)
    fails(zero, zero + 1.01 * row.floor, dtype)
    assert_close("remainder", zero + 0.99 * 200 * row.peak, 0.0, dtype, scale=200)
    with pytest.raises(AssertionError):
        assert_close("remainder", zero + 1.01 * 200 * row.peak, 0.0, dtype, scale=200)


def test_the_row_is_that_of_the_actual_dtype() -> None:
    expected = latents()
    assert_close("half", expected.half(), expected)
    with pytest.raises(AssertionError, match="half"):
        assert_close("half", expected.half().double(), expected)
    assert_close("array", expected.float().numpy(), expected)
    with pytest.raises(AssertionError, match="array"):
        assert_close("array", expected.float().numpy().astype(np.float64), expected)


def test_mappings() -> None:
    pair = {"weight": torch.ones(2), "bias": torch.zeros(2)}
    assert_close("gradient", pair, {key: value.numpy() for key, value in pair.items()})
    with pytest.raises(AssertionError, match=r"gradient\.bias"):
        assert_close("gradient", pair, {**pair, "bias": torch.ones(2)})
    with pytest.raises(AssertionError, match="keys"):
        assert_close("gradient", pair, {"weight": torch.ones(2)})
    with pytest.raises(AssertionError, match="keys"):
        assert_close("gradient", {}, pair)
    with pytest.raises(AssertionError, match="empty"):
        assert_close("gradient", {}, {})
    with pytest.raises(AssertionError, match="mapping"):
        assert_close("gradient", torch.ones(2), pair)


@pytest.mark.parametrize("value", [None, 1, "1.0", [1.0], torch.ones(2, dtype=torch.int64)])
def test_what_cannot_be_compared_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="thing"):
        assert_close("thing", value, value)
    with pytest.raises(TypeError, match="thing"):
        assert_close("thing", torch.ones(2), value)


def test_empty_tensors_still_have_a_shape() -> None:
    assert_close("latents", torch.zeros(0, 9, 128), np.zeros((0, 9, 128)))
    with pytest.raises(AssertionError, match="shape"):
        assert_close("latents", torch.zeros(0, 9), np.zeros((0, 9, 128)))


def test_a_gradient_tracking_tensor_and_a_strided_one() -> None:
    leaf = torch.ones(3, 2, requires_grad=True)
    assert_close("leaf", leaf.t(), np.ones((2, 3)))
