"""The one referee of the tests: `assert_close`, and the one table of tolerances behind it.

`test_comparing.py` is its negative control: it shows that every row of the table can fail.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Tolerance:
    """What one dtype may be off by, relative to max(|expected element|, RMS of expected).

    `peak` bounds every single element, so that one wrong element among many fails. `rms` bounds the
    RMS of all errors, so that a small error everywhere fails too. `floor` is absolute and only
    stands in where the expected values are nearly 0.
    """

    peak: float
    rms: float
    floor: float


TOLERANCES: dict[torch.dtype, Tolerance] = {
    # The figure the project promises against the oracle. A whole head is measured to be within
    # 3e-15; the room above that is for gradients and for sums in which much cancels.
    torch.float64: Tolerance(peak=1e-10, rms=1e-10, floor=1e-15),
    # A rounding is 6e-8 and a whole head (512 features, 9 latents of 128) is measured within 7e-7;
    # a gradient passes as many sums again, and another order of summation is no error.
    torch.float32: Tolerance(peak=2e-5, rms=5e-6, floor=1e-9),
    # Features are rounded to a spacing of 2^-7 (0.5 at the 64 of an unreduced Intra-W) after each
    # of five operations: eight spacings for the worst element (2.7 measured), two for the mean.
    torch.bfloat16: Tolerance(peak=8 * 2**-7, rms=2 * 2**-7, floor=1e-9),
    # The same count of spacings, here 2^-10 (5 measured). Below 6e-5 float16 is subnormal, its
    # spacing is an absolute 6e-8 whatever the value, and the floor is four of these.
    torch.float16: Tolerance(peak=8 * 2**-10, rms=2 * 2**-10, floor=2.5e-7),
}


def assert_close(
    name: str, actual: Any, expected: Any, dtype: torch.dtype | None = None, *, scale: float = 0.0
) -> None:
    """Fail, naming the tensor and its worst element, unless `actual` is `expected`.

    Nothing is broadcast. `actual` must be finite wherever `expected` is, and the same inf or NaN
    where it is not. Two mappings are compared key by key, as `name.key`.

    Args:
        name: What the message calls the tensor.
        actual: Tensor, array or number to be judged.
        expected: Tensor, array or number it is held against.
        dtype: Row of `TOLERANCES`, where it is not the dtype of `actual`: an autocast result may
            arrive in float32 and still carry bfloat16 roundings.
        scale: Size of the terms that cancel, where the expected value is the small remainder of
            large terms (a cross-entropy near 0 from logits of 200: `scale=200`).
    """
    if isinstance(actual, Mapping) or isinstance(expected, Mapping):
        _assert_mappings_close(name, actual, expected, dtype, scale)
        return
    row = TOLERANCES[dtype or _dtype_of(name, actual)]
    got, want = _array(name, actual), _array(name, expected)
    if got.shape != want.shape:
        raise AssertionError(f"{name}: shape {got.shape}, expected {want.shape}")
    finite = np.isfinite(want)
    same = np.isclose(got, want, rtol=0, atol=0, equal_nan=True)
    _fail_at(name, got, want, ~finite & ~same, "differs where inf or NaN is expected")
    _fail_at(name, got, want, finite & ~np.isfinite(got), "not finite")
    if not finite.any():
        return
    size = max(_rms(want[finite]), abs(scale))
    error = np.abs(np.where(finite, got, 0.0) - np.where(finite, want, 0.0))
    limit = np.maximum(row.peak * np.maximum(np.where(finite, np.abs(want), 0.0), size), row.floor)
    _fail_at(name, got, want, error > limit, f"beyond {row}", by=error / limit)
    # The RMS of few errors may reach their peak; that of many may not.
    count = int(finite.sum())
    allowed = max((row.rms + (row.peak - row.rms) / count**0.5) * size, row.floor)
    if _rms(error[finite]) > allowed:
        everywhere = f"RMS error {_rms(error[finite]):.3e} > {allowed:.3e}, {row}"
        _fail_at(name, got, want, finite, everywhere, by=error)


def _assert_mappings_close(
    name: str, actual: object, expected: object, dtype: torch.dtype | None, scale: float
) -> None:
    if not isinstance(actual, Mapping) or not isinstance(expected, Mapping):
        raise AssertionError(
            f"{name}: a mapping against no mapping: {type(actual).__name__}, "
            f"expected {type(expected).__name__}"
        )
    if not expected:
        raise AssertionError(f"{name}: nothing to compare, the expected mapping is empty")
    if set(actual) != set(expected):
        raise AssertionError(f"{name}: keys {list(actual)}, expected {list(expected)}")
    for key in expected:
        assert_close(f"{name}.{key}", actual[key], expected[key], dtype, scale=scale)


def _dtype_of(name: str, value: object) -> torch.dtype:
    if isinstance(value, torch.Tensor):
        dtype = value.dtype
    elif isinstance(value, np.ndarray | np.generic):
        dtype = torch.from_numpy(np.empty(0, dtype=value.dtype)).dtype
    elif isinstance(value, float):
        dtype = torch.float64
    else:
        raise TypeError(f"{name}: expected a tensor, array or float, got {type(value).__name__}")
    if dtype not in TOLERANCES:
        raise TypeError(f"{name}: no tolerance for {dtype}; compare such values for equality")
    return dtype


def _array(name: str, value: object) -> Array:
    _dtype_of(name, value)
    if isinstance(value, torch.Tensor):
        return np.asarray(value.detach().cpu().double().numpy())
    return np.asarray(value, dtype=np.float64)


def _rms(values: Array) -> float:
    # Scaled by the largest, so that the squares neither overflow nor vanish.
    largest = float(np.max(np.abs(values)))
    return largest * float(np.sqrt(np.mean((values / largest) ** 2))) if largest > 0 else 0.0


def _fail_at(
    name: str, got: Array, want: Array, wrong: NDArray[Any], why: str, by: Array | None = None
) -> None:
    """Raise if anything is wrong, naming the first wrong element, or the worst one by `by`."""
    if not wrong.any():
        return
    rank = np.where(wrong, 1.0 if by is None else by, -1.0)
    index = tuple(int(axis) for axis in np.unravel_index(int(np.argmax(rank)), got.shape))
    a, b = float(got[index]), float(want[index])
    raise AssertionError(
        f"{name}: {why}; worst at {index}: {a:.9g}, expected {b:.9g}, off by {abs(a - b):.3e}; "
        f"{int(wrong.sum())} of {wrong.size} elements"
    )
