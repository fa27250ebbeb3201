"""Kernels for the three layers of one latent on a block of samples, forward and backward.

Products are computed in the type of the features, whatever the type of the parameters, and summed
in float32. A stored row is read again after a barrier, so that no product needs a whole matrix on
the chip.
"""

import triton
import triton.language as tl

from fdrl_layers.ops.triton.tiles import add_product


@triton.jit
def multiply(
    rows_ptr,
    row_stride,
    weight_ptr,
    out_stride,
    in_stride,
    rows,
    in_rows,
    width,
    total,
    D: tl.constexpr,
    BK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Add rows (BN, width) times a matrix of D outputs to `total` (BN, D)."""
    out = tl.arange(0, D)
    for start in range(0, width, BK):
        k = start + tl.arange(0, BK)
        left = tl.load(
            rows_ptr + rows[:, None] * row_stride + k[None, :],
            mask=in_rows[:, None] & (k < width)[None, :],
            other=0.0,
        )
        right = tl.load(
            weight_ptr + k[:, None] * in_stride + out[None, :] * out_stride,
            mask=(k < width)[:, None],
            other=0.0,
        )
        total = add_product(left, right, total, PRECISION)
    return total


@triton.jit
def log_sigmoid(x):
    """Return the logarithm of the sigmoid, without overflow."""
    return tl.minimum(x, 0.0) - tl.log(1.0 + tl.exp(-tl.abs(x)))


@triton.jit
def log_sum(gates):
    """Return the logarithm of the sum of sigmoids (BN, D) over D; all of them may underflow."""
    logs = log_sigmoid(gates)
    top = tl.max(logs, 1)
    return top + tl.log(tl.sum(tl.exp(logs - top[:, None]), 1))


@triton.jit
def branch_forward(
    input_ptr,
    weight_ptr,
    bias_ptr,
    intra_weight_ptr,
    intra_bias_ptr,
    inter_weight_ptr,
    latents_ptr,
    product_ptr,
    sums_ptr,
    N,
    P,
    M: tl.constexpr,
    D: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    DECOMPOSE: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_INTRA_BIAS: tl.constexpr,
    SHARE: tl.constexpr,
    KEEP: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute equation 1 and the products of equations 3 and 8 for latent j of a block of samples.

    Without `DECOMPOSE` the latents are already stored. The sum of gates of each row is stored too.
    """
    j = tl.program_id(0)
    rows = tl.program_id(1).to(tl.int64) * BN + tl.arange(0, BN)
    in_rows = rows < N
    mask = in_rows[:, None]
    d = tl.arange(0, D)
    dtype = product_ptr.dtype.element_ty
    stacked = (rows * M + j)[:, None]
    zeros = tl.zeros((BN, D), tl.float32)
    if DECOMPOSE:
        own = weight_ptr + j.to(tl.int64) * D * P
        total = multiply(input_ptr, P, own, P, 1, rows, in_rows, P, zeros, D, BK, PRECISION)
        if HAS_BIAS:
            total += tl.load(bias_ptr + j * D + d).to(tl.float32)[None, :]
        latents = tl.maximum(total, 0.0).to(latents_ptr.dtype.element_ty)
        tl.store(latents_ptr + stacked * D + d[None, :], latents, mask=mask)
        tl.debug_barrier()
    l_ptr, w_offset = latents_ptr + j * D, j.to(tl.int64) * D * D
    a_ptr, q_ptr = intra_weight_ptr + w_offset, inter_weight_ptr + w_offset
    a = multiply(l_ptr, M * D, a_ptr, D, 1, rows, in_rows, D, zeros, D, BK, PRECISION).to(dtype)
    into = product_ptr + stacked * (2 * D) + d[None, :]
    if KEEP:
        tl.store(into, a, mask=mask)
    gates = a.to(tl.float32)
    if HAS_INTRA_BIAS:
        gates += tl.load(intra_bias_ptr + j * D + d).to(tl.float32)[None, :]
    if SHARE:
        sums = log_sum(gates)
    else:
        sums = tl.sum(tl.sigmoid(gates), 1)
    tl.store(sums_ptr + rows * M + j, sums, mask=in_rows)
    q = multiply(l_ptr, M * D, q_ptr, D, 1, rows, in_rows, D, zeros, D, BK, PRECISION)
    tl.store(into + D, q.to(dtype), mask=mask)


@triton.jit
def branch_backward(
    product_ptr,
    intra_bias_ptr,
    intra_weight_ptr,
    inter_weight_ptr,
    latents_ptr,
    intra_ptr,
    slope_ptr,
    dp_ptr,
    dy_ptr,
    grad_latents_ptr,
    entering_ptr,
    dz_ptr,
    N,
    delta,
    M: tl.constexpr,
    D: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_GRAD: tl.constexpr,
    SHARE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute the gradients of the three layers' products from those of Intra-W and messages."""
    j = tl.program_id(0)
    rows = tl.program_id(1).to(tl.int64) * BN + tl.arange(0, BN)
    in_rows = rows < N
    mask = in_rows[:, None]
    d = tl.arange(0, D)
    stacked = (rows * M + j)[:, None]
    gates = tl.load(product_ptr + stacked * (2 * D) + d[None, :], mask=mask, other=0.0)
    gates = gates.to(tl.float32)
    if HAS_BIAS:
        gates += tl.load(intra_bias_ptr + j * D + d).to(tl.float32)[None, :]
    slope = tl.load(slope_ptr + rows * M + j, mask=in_rows, other=0.0)
    alpha = tl.load(intra_ptr + rows * M + j, mask=in_rows, other=0.0)
    if SHARE:
        share = tl.exp(log_sigmoid(gates) - log_sum(gates)[:, None])
        da = slope[:, None] * share * tl.sigmoid(-gates)
    else:
        da = slope[:, None] * tl.sigmoid(gates) * tl.sigmoid(-gates)
    dp = tl.load(dp_ptr + stacked * D + d[None, :], mask=mask, other=0.0)
    into = entering_ptr + stacked * (2 * D) + d[None, :]
    dtype = entering_ptr.dtype.element_ty
    tl.store(into, da.to(dtype), mask=mask)
    tl.store(into + D, (alpha[:, None] * dp.to(tl.float32)).to(dtype), mask=mask)
    tl.debug_barrier()
    dy = tl.load(dy_ptr + rows[:, None] * D + d[None, :], mask=mask, other=0.0)
    total = delta * alpha[:, None] * dy
    if HAS_GRAD:
        grad = tl.load(grad_latents_ptr + stacked * D + d[None, :], mask=mask, other=0.0)
        total += grad.to(tl.float32)
    own, w_offset = entering_ptr + j * 2 * D, j.to(tl.int64) * D * D
    a_ptr, q_ptr = intra_weight_ptr + w_offset, inter_weight_ptr + w_offset
    width = 2 * M * D
    total = multiply(own, width, a_ptr, 1, D, rows, in_rows, D, total, D, BK, PRECISION)
    total = multiply(own + D, width, q_ptr, 1, D, rows, in_rows, D, total, D, BK, PRECISION)
    latents = tl.load(latents_ptr + stacked * D + d[None, :], mask=mask, other=0.0)
    dz = tl.where(latents > 0, total, 0.0)
    tl.store(dz_ptr + stacked * D + d[None, :], dz.to(dz_ptr.dtype.element_ty), mask=mask)
