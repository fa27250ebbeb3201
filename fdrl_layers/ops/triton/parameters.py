"""One kernel for the gradients of all parameters: sums of outer products over the batch.

Every program computes a tile of one gradient and loops over the batch in order, so that the sums
are the same bit for bit, whatever else runs. The programs of the first column of tiles also store
sums of rows, which are the biases' gradients.
"""

import triton
import triton.language as tl

from fdrl_layers.ops.triton.tiles import add_product


@triton.jit
def outer(
    left_ptr,
    left_stride,
    height,
    right_ptr,
    right_stride,
    width,
    out_ptr,
    rows_ptr,
    rows_stride,
    bias_ptr,
    tile,
    N,
    BN: tl.constexpr,
    BI: tl.constexpr,
    BJ: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Sum over n of left[n, i] right[n, j] for one tile, and of rows[n, i] for the bias."""
    across = tl.cdiv(width, BJ)
    i = (tile // across) * BI + tl.arange(0, BI)
    j = (tile % across) * BJ + tl.arange(0, BJ)
    total = tl.zeros((BI, BJ), tl.float32)
    bias = tl.zeros((BI,), tl.float32)
    for start in range(0, N, BN):
        n = tl.arange(0, BN).to(tl.int64) + start
        left_mask = (n < N)[:, None] & (i < height)[None, :]
        left = tl.load(left_ptr + n[:, None] * left_stride + i[None, :], mask=left_mask, other=0.0)
        right = tl.load(
            right_ptr + n[:, None] * right_stride + j[None, :],
            mask=(n < N)[:, None] & (j < width)[None, :],
            other=0.0,
        )
        total = add_product(tl.trans(left), right, total, PRECISION)
        if HAS_BIAS:
            rows = tl.load(
                rows_ptr + n[:, None] * rows_stride + i[None, :], mask=left_mask, other=0.0
            )
            bias += tl.sum(rows.to(tl.float32), 0)
    into = out_ptr + i[:, None] * width + j[None, :]
    mask = (i < height)[:, None] & (j < width)[None, :]
    tl.store(into, total.to(out_ptr.dtype.element_ty), mask=mask)
    if HAS_BIAS:
        first = tl.where(tile % across == 0, i, height) < height
        tl.store(bias_ptr + i, bias.to(bias_ptr.dtype.element_ty), mask=first)


@triton.jit
def parameter_gradients(
    input_ptr,
    dz_ptr,
    latents_ptr,
    entering_ptr,
    dp_ptr,
    grad_logits_ptr,
    y_ptr,
    decomposition_weight_ptr,
    decomposition_bias_ptr,
    intra_weight_ptr,
    intra_bias_ptr,
    inter_weight_ptr,
    inter_bias_ptr,
    classifier_weight_ptr,
    classifier_bias_ptr,
    N,
    P,
    K,
    M: tl.constexpr,
    D: tl.constexpr,
    BN: tl.constexpr,
    BI: tl.constexpr,
    BJ: tl.constexpr,
    HAS_DECOMPOSITION_BIAS: tl.constexpr,
    HAS_INTRA_BIAS: tl.constexpr,
    HAS_INTER_BIAS: tl.constexpr,
    HAS_CLASSIFIER_BIAS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute all gradients: programs take tiles of the first layers, both relations, the last."""
    pid = tl.program_id(0)
    high: tl.constexpr = (D + BI - 1) // BI
    square: tl.constexpr = high * ((D + BJ - 1) // BJ)
    wide = high * tl.cdiv(P, BJ)
    row, rows = M * D, 2 * M * D
    if pid < M * wide:
        j = pid // wide
        w, b = decomposition_weight_ptr + j.to(tl.int64) * D * P, decomposition_bias_ptr + j * D
        left = dz_ptr + j * D
        outer(
            left, row, D, input_ptr, P, P, w, left, row, b, pid % wide, N,
            BN, BI, BJ, HAS_DECOMPOSITION_BIAS, PRECISION,
        )  # fmt: skip
    elif pid < M * (wide + square):
        tile = pid - M * wide
        j = tile // square
        w, b = intra_weight_ptr + j * D * D, intra_bias_ptr + j * D
        left = entering_ptr + j * 2 * D
        outer(
            left, rows, D, latents_ptr + j * D, row, D, w, left, rows, b, tile % square, N,
            BN, BI, BJ, HAS_INTRA_BIAS, PRECISION,
        )  # fmt: skip
    elif pid < M * (wide + 2 * square):
        tile = pid - M * (wide + square)
        j = tile // square
        w, b = inter_weight_ptr + j * D * D, inter_bias_ptr + j * D
        left = entering_ptr + j * 2 * D + D
        outer(
            left, rows, D, latents_ptr + j * D, row, D, w, dp_ptr + j * D, row, b, tile % square, N,
            BN, BI, BJ, HAS_INTER_BIAS, PRECISION,
        )  # fmt: skip
    else:
        tile = pid - M * (wide + 2 * square)
        outer(
            grad_logits_ptr, K, K, y_ptr, D, D, classifier_weight_ptr, grad_logits_ptr, K,
            classifier_bias_ptr, tile, N, BN, BI, BJ, HAS_CLASSIFIER_BIAS, PRECISION,
        )  # fmt: skip
