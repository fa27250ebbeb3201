"""Functions that the kernels share."""

import torch
import triton
import triton.language as tl

from fdrl_layers.ops.backend import INTERPRETING


def precision(dtype: torch.dtype) -> str:
    """Return the precision of products: in float32 that of PyTorch, TF32 if the user allows it.

    Sums are in float32 in any case. Triton's interpreter multiplies the bits of bfloat16 numbers,
    so they are widened there, which is exact.
    """
    if dtype == torch.bfloat16 and INTERPRETING:
        return "widened"
    return "tf32" if dtype == torch.float32 and torch.backends.cuda.matmul.allow_tf32 else "ieee"


def ceil_div(count: int, size: int) -> int:
    """Return `count` / `size` rounded up; Triton's own is an object that is slow to call."""
    return -(-count // size)


def next_power_of_2(count: int) -> int:
    """Return the least power of 2 that is at least `count`, which is at least 1."""
    return 1 << (count - 1).bit_length()


@triton.jit
def add_product(left, right, total, PRECISION: tl.constexpr):
    """Add the product of two tiles to `total`, in the type of the left one."""
    right = right.to(left.dtype)
    if PRECISION == "widened":
        return tl.dot(left.to(tl.float32), right.to(tl.float32), total, input_precision="ieee")
    else:
        return tl.dot(left, right, total, input_precision=PRECISION)
