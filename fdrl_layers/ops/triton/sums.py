"""Kernels that add up a batch for the joint loss.

Each program of `partial_sums` writes parts of a row of one buffer (programs, width). If ranks share
a batch, the kernels of `centers.py` get one row, the sum of the rows of all ranks.
"""

import triton
import triton.language as tl


@triton.jit
def columns(row_ptr, M: tl.constexpr, D: tl.constexpr, MP: tl.constexpr, KP: tl.constexpr):
    """Return pointers to the parts of a row, which follow the sums of latents (M, D).

    The parts are squared distances (32,), those to class centers at M; the sum of cross-entropies,
    the numbers of samples that count and of all, and the sum of class weights of those that count
    (4,); sums of Intra-W (MP,); numbers of samples (KP,) and sums of Intra-W (KP, MP) by class.
    `Sizes.width` is their total size.
    """
    squares_ptr = row_ptr + M * D
    scalars_ptr = squares_ptr + 32
    shares_ptr = scalars_ptr + 4
    counts_ptr = shares_ptr + MP
    return squares_ptr, scalars_ptr, shares_ptr, counts_ptr, counts_ptr + KP


@triton.jit
def state_columns(state_ptr, M: tl.constexpr, D: tl.constexpr):
    """Return pointers to the parts of a state, which follow the centers (M, D) of the latents.

    The parts are mean Intra-W (M,); the sum of class weights, infinite if it is 0, and the numbers
    of samples that count and of all, each at least 1; and the centers (K, M) of classes. All
    centers are those that the batch was compared with.
    """
    mean_ptr = state_ptr + M * D
    return mean_ptr, mean_ptr + M, mean_ptr + M + 3


@triton.jit
def partial_sums(
    logits_ptr,
    latents_ptr,
    intra_ptr,
    target_ptr,
    latent_centers_ptr,
    class_centers_ptr,
    weight_ptr,
    parts_ptr,
    width,
    N,
    K,
    span,
    smoothing,
    ignore_index,
    M: tl.constexpr,
    D: tl.constexpr,
    MP: tl.constexpr,
    KP: tl.constexpr,
    ROWS: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
):
    """Sum over `span` samples: program (b, j < M) latent j, program (b, M) all other sums."""
    b, j = tl.program_id(0), tl.program_id(1)
    begin = b.to(tl.int64) * span
    row_ptr = parts_ptr + b * width
    if j < M:
        d = tl.arange(0, D)
        center = tl.load(latent_centers_ptr + j * D + d)
        total, square = tl.zeros((D,), tl.float32), tl.zeros((ROWS,), tl.float32)
        for start in range(0, span, ROWS):
            n = begin + start + tl.arange(0, ROWS)
            at = (n * M + j)[:, None] * D + d[None, :]
            inside = (n < N)[:, None]
            rows = tl.load(latents_ptr + at, mask=inside, other=0.0).to(tl.float32)
            total += tl.sum(rows, 0)
            offset = tl.where(inside, rows - center[None, :], 0.0)
            square += tl.sum(offset * offset, 1)
        tl.store(row_ptr + j * D + d, total)
        squares_ptr, _, _, _, _ = columns(row_ptr, M, D, MP, KP)
        tl.store(squares_ptr + j, tl.sum(square, 0))
    else:
        classes(
            logits_ptr, intra_ptr, target_ptr, class_centers_ptr, weight_ptr, row_ptr,
            begin, N, K, span, smoothing, ignore_index, M, D, MP, KP, ROWS, HAS_WEIGHT,
        )  # fmt: skip


@triton.jit
def classes(
    logits_ptr,
    intra_ptr,
    target_ptr,
    class_centers_ptr,
    weight_ptr,
    row_ptr,
    begin,
    N,
    K,
    span,
    smoothing,
    ignore_index,
    M: tl.constexpr,
    D: tl.constexpr,
    MP: tl.constexpr,
    KP: tl.constexpr,
    ROWS: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
):
    """Sum cross-entropies, Intra-W by class, and squared distances to class centers."""
    k, m = tl.arange(0, KP), tl.arange(0, MP)
    centers = tl.load(
        class_centers_ptr + k[:, None] * M + m[None, :],
        mask=(k < K)[:, None] & (m < M)[None, :],
        other=0.0,
    )
    entropy, square = tl.zeros((ROWS,), tl.float32), tl.zeros((ROWS,), tl.float32)
    number, share = tl.zeros((ROWS,), tl.float32), tl.zeros((MP,), tl.float32)
    all_samples, mass = tl.zeros((ROWS,), tl.float32), tl.zeros((ROWS,), tl.float32)
    weights = tl.full((1, KP), 1.0, tl.float32)
    if HAS_WEIGHT:
        weights = tl.load(weight_ptr + k, mask=k < K, other=0.0)[None, :]
    count, class_sum = tl.zeros((KP,), tl.float32), tl.zeros((KP, MP), tl.float32)
    for start in range(0, span, ROWS):
        n = begin + start + tl.arange(0, ROWS)
        inside = n < N
        target = tl.load(target_ptr + n, mask=inside, other=ignore_index)
        counted = (target != ignore_index).to(tl.float32)
        hot = (k[None, :] == target[:, None]).to(tl.float32) * counted[:, None]
        z = tl.load(
            logits_ptr + n[:, None] * K + k[None, :],
            mask=inside[:, None] & (k < K)[None, :],
            other=0.0,
        ).to(tl.float32)
        top = tl.max(tl.where((k < K)[None, :], z, float("-inf")), 1)
        shifted = z - top[:, None]
        lse = tl.log(tl.sum(tl.where((k < K)[None, :], tl.exp(shifted), 0.0), 1))
        picked = tl.sum(tl.where(hot > 0, shifted, 0.0), 1)
        if HAS_WEIGHT:
            own = tl.sum(hot * weights, 1)
            all_shifted = weights * (lse[:, None] - shifted)
            spread = tl.sum(tl.where((k < K)[None, :], all_shifted, 0.0), 1) / K
            each = (1.0 - smoothing) * own * (lse - picked) + smoothing * spread
            mass += own
        else:
            spread = tl.sum(tl.where((k < K)[None, :], shifted, 0.0), 1) / K
            each = lse - (1.0 - smoothing) * picked - smoothing * spread
            mass += counted
        # A class index out of range must not count as a class.
        each = tl.where((target >= 0) & (target < K), each, float("nan"))
        entropy += tl.where(counted > 0, each, 0.0)
        number += counted
        all_samples += inside.to(tl.float32)
        w = tl.load(
            intra_ptr + n[:, None] * M + m[None, :],
            mask=inside[:, None] & (m < M)[None, :],
            other=0.0,
        )
        share += tl.sum(w, 0)
        count += tl.sum(hot, 0)
        class_sum = tl.dot(tl.trans(hot), w, class_sum, input_precision="ieee")
        near = tl.dot(hot, centers, input_precision="ieee")
        offset = (w - near) * counted[:, None]
        square += tl.sum(offset * offset, 1)
    columns_ptr = columns(row_ptr, M, D, MP, KP)
    squares_ptr, scalars_ptr, shares_ptr, counts_ptr, class_sums_ptr = columns_ptr
    tl.store(scalars_ptr, tl.sum(entropy, 0))
    tl.store(scalars_ptr + 1, tl.sum(number, 0))
    tl.store(scalars_ptr + 2, tl.sum(all_samples, 0))
    tl.store(scalars_ptr + 3, tl.sum(mass, 0))
    tl.store(squares_ptr + M, tl.sum(square, 0))
    tl.store(shares_ptr + m, share)
    tl.store(counts_ptr + k, count)
    tl.store(class_sums_ptr + k[:, None] * MP + m[None, :], class_sum)


@triton.jit
def add_up(ptr, stride, at, mask, programs, BLOCK: tl.constexpr):
    """Sum the programs' parts of a vector, in their order and in float64."""
    total = tl.zeros(at.shape, tl.float64)
    for start in range(0, programs, BLOCK):
        b = start + tl.arange(0, BLOCK)
        part = tl.load(
            ptr + b[:, None] * stride + at[None, :],
            mask=(b < programs)[:, None] & mask[None, :],
            other=0.0,
        )
        total += tl.sum(part.to(tl.float64), 0)
    return total
