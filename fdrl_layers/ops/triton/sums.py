"""Kernels that add up a batch for the joint loss, and move its centers."""

import triton
import triton.language as tl


@triton.jit
def partial_sums(
    logits_ptr,
    latents_ptr,
    intra_ptr,
    target_ptr,
    latent_centers_ptr,
    class_centers_ptr,
    sums_ptr,
    squares_ptr,
    scalars_ptr,
    shares_ptr,
    counts_ptr,
    class_sums_ptr,
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
):
    """Add up `span` samples: program (b, j < M) latent j, program (b, M) all that has classes."""
    b, j = tl.program_id(0), tl.program_id(1)
    begin = b.to(tl.int64) * span
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
        tl.store(sums_ptr + (b * M + j) * D + d, total)
        tl.store(squares_ptr + b * (M + 1) + j, tl.sum(square, 0))
    else:
        classes(
            logits_ptr,
            intra_ptr,
            target_ptr,
            class_centers_ptr,
            squares_ptr,
            scalars_ptr,
            shares_ptr,
            counts_ptr,
            class_sums_ptr,
            b,
            begin,
            N,
            K,
            span,
            smoothing,
            ignore_index,
            M,
            MP,
            KP,
            ROWS,
        )


@triton.jit
def classes(
    logits_ptr,
    intra_ptr,
    target_ptr,
    class_centers_ptr,
    squares_ptr,
    scalars_ptr,
    shares_ptr,
    counts_ptr,
    class_sums_ptr,
    b,
    begin,
    N,
    K,
    span,
    smoothing,
    ignore_index,
    M: tl.constexpr,
    MP: tl.constexpr,
    KP: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Add up cross-entropies, Intra-W by class, and squared distances to class centers."""
    k, m = tl.arange(0, KP), tl.arange(0, MP)
    centers = tl.load(
        class_centers_ptr + k[:, None] * M + m[None, :],
        mask=(k < K)[:, None] & (m < M)[None, :],
        other=0.0,
    )
    entropy, square = tl.zeros((ROWS,), tl.float32), tl.zeros((ROWS,), tl.float32)
    number, share = tl.zeros((ROWS,), tl.float32), tl.zeros((MP,), tl.float32)
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
        spread = tl.sum(tl.where((k < K)[None, :], shifted, 0.0), 1) / K
        each = lse - (1.0 - smoothing) * picked - smoothing * spread
        # A class that there is not must not pass for one.
        each = tl.where((target >= 0) & (target < K), each, float("nan"))
        entropy += tl.where(counted > 0, each, 0.0)
        number += counted
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
    tl.store(scalars_ptr + b * 2, tl.sum(entropy, 0))
    tl.store(scalars_ptr + b * 2 + 1, tl.sum(number, 0))
    tl.store(squares_ptr + b * (M + 1) + M, tl.sum(square, 0))
    tl.store(shares_ptr + b * MP + m, share)
    tl.store(counts_ptr + b * KP + k, count)
    tl.store(class_sums_ptr + (b * KP + k[:, None]) * MP + m[None, :], class_sum)


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


@triton.jit
def moved(held, mean, count, rate, ALPHA: tl.constexpr):
    """Centers after a batch; with `count` 0 they stay where they were.

    Wen et al.'s step, (n c - sum) / (1 + n), is that towards the mean by n / (1 + n).
    """
    if ALPHA:
        step = rate * count / (1.0 + count)
    else:
        step = tl.where(count > 0, rate + 0.0 * count, 0.0)
    return held + step * (mean - held)


@triton.jit
def finish(
    sums_ptr,
    squares_ptr,
    scalars_ptr,
    shares_ptr,
    counts_ptr,
    class_sums_ptr,
    latent_centers_ptr,
    latent_seen_ptr,
    class_centers_ptr,
    class_seen_ptr,
    total_ptr,
    classification_ptr,
    compactness_ptr,
    balance_ptr,
    distribution_ptr,
    held_ptr,
    class_held_ptr,
    mean_ptr,
    counted_ptr,
    N,
    K,
    programs,
    rate,
    lambda_compactness,
    lambda_balance,
    lambda_distribution,
    M: tl.constexpr,
    D: tl.constexpr,
    MP: tl.constexpr,
    KP: tl.constexpr,
    ALPHA: tl.constexpr,
):
    """Join the parts: the losses, the centers that the batch was held against, and the next ones.

    The parts are squared distances to the centers' values. A center that starts with this batch is
    held at its mean c instead of its value v, where they are less by n ||c - v||^2.
    """
    m, d, k = tl.arange(0, MP), tl.arange(0, D), tl.arange(0, KP)
    n = (N + 0.0 * rate).to(tl.float64)
    squared = add_up(squares_ptr, M + 1, tl.arange(0, 32), tl.arange(0, 32) <= M, programs, 16)
    where = tl.arange(0, 32)
    compactness = tl.sum(tl.where(where < M, squared, 0.0), 0)
    distribution = tl.sum(tl.where(where == M, squared, 0.0), 0)
    for j in range(M):
        mean = add_up(sums_ptr + j * D, M * D, d, d < D, programs, 16) / n
        value = tl.load(latent_centers_ptr + j * D + d).to(tl.float64)
        seen = tl.load(latent_seen_ptr + j).to(tl.int1)
        held = tl.where(seen, value, mean).to(tl.float32).to(tl.float64)
        compactness -= n * tl.sum((held - value) * (held - value), 0)
        tl.store(held_ptr + j * D + d, held.to(tl.float32))
        tl.store(latent_centers_ptr + j * D + d, moved(held, mean, n, rate, ALPHA).to(tl.float32))
        tl.store(latent_seen_ptr + j, True)
    compactness = tl.where(compactness < 0, 0.0, compactness) / n
    two = tl.arange(0, 2)
    scalars = add_up(scalars_ptr, 2, two, two < 2, programs, 16)
    counted = tl.sum(tl.where(two == 1, scalars, 0.0), 0)
    divisor = tl.maximum(counted, 1.0)
    classification = tl.sum(tl.where(two == 0, scalars, 0.0), 0) / divisor
    mean_share = add_up(shares_ptr, MP, m, m < M, programs, 16) / n
    tl.store(mean_ptr + m, mean_share.to(tl.float32), mask=m < M)
    balance = tl.sum(tl.where(m < M, tl.abs(mean_share - 1.0 / M), 0.0), 0)
    counts = add_up(counts_ptr, KP, k, k < K, programs, 1)
    class_seen = tl.load(class_seen_ptr + k, mask=k < K, other=0).to(tl.int1)
    for i in range(M):
        own = add_up(class_sums_ptr + i, KP * MP, k * MP, k < K, programs, 1)
        mean = own / tl.maximum(counts, 1.0)
        value = tl.load(class_centers_ptr + k * M + i, mask=k < K, other=0.0).to(tl.float64)
        starts = (counts > 0) & (class_seen == 0)
        held = tl.where(starts, mean, value).to(tl.float32).to(tl.float64)
        distribution -= tl.sum(counts * (held - value) * (held - value), 0)
        tl.store(class_held_ptr + k * M + i, held.to(tl.float32), mask=k < K)
        tl.store(
            class_centers_ptr + k * M + i,
            moved(held, mean, counts, rate, ALPHA).to(tl.float32),
            mask=k < K,
        )
    tl.store(class_seen_ptr + k, (counts > 0) | (class_seen != 0), mask=k < K)
    distribution = tl.where(distribution < 0, 0.0, distribution) / divisor
    total = classification + lambda_compactness * compactness + lambda_balance * balance
    total += lambda_distribution * distribution
    tl.store(total_ptr, total.to(tl.float32))
    tl.store(classification_ptr, classification.to(tl.float32))
    tl.store(compactness_ptr, compactness.to(tl.float32))
    tl.store(balance_ptr, balance.to(tl.float32))
    tl.store(distribution_ptr, distribution.to(tl.float32))
    tl.store(counted_ptr, counted.to(tl.float32))
