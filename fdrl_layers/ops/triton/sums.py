"""Kernels that add up a batch for the joint loss, and move its centers.

Each program of `partial_sums` writes parts of a row of one buffer (programs, width). Where ranks
share a batch, `finish` is given the one row that the rows of all ranks add up to.
"""

import triton
import triton.language as tl


@triton.jit
def columns(row_ptr, M: tl.constexpr, D: tl.constexpr, MP: tl.constexpr, KP: tl.constexpr):
    """Where a row of parts has what, behind the sums of latents (M, D).

    Squared distances (32,), those to class centers at M; the sum of cross-entropies, the numbers of
    samples that count and of all, and the sum of class weights of those that count (4,); sums of
    Intra-W (MP,); numbers of samples (KP,) and sums of Intra-W (KP, MP) by class. `Sizes.width`
    adds them up.
    """
    squares_ptr = row_ptr + M * D
    scalars_ptr = squares_ptr + 32
    shares_ptr = scalars_ptr + 4
    counts_ptr = shares_ptr + MP
    return squares_ptr, scalars_ptr, shares_ptr, counts_ptr, counts_ptr + KP


@triton.jit
def state_columns(state_ptr, M: tl.constexpr, D: tl.constexpr):
    """Where a state has what, behind the centers (M, D) that latents were held against.

    Mean Intra-W (M,); the sum of class weights, infinite if it is 0, and the numbers of samples
    that count and of all, each at least 1; and the centers (K, M) of classes.
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
    """Add up `span` samples: program (b, j < M) latent j, program (b, M) all that has classes."""
    b, j = tl.program_id(0), tl.program_id(1)
    begin = b.to(tl.int64) * span
    row_ptr = parts_ptr + b * width
    columns_ptr = columns(row_ptr, M, D, MP, KP)
    squares_ptr, scalars_ptr, shares_ptr, counts_ptr, class_sums_ptr = columns_ptr
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
        tl.store(squares_ptr + j, tl.sum(square, 0))
    else:
        classes(
            logits_ptr,
            intra_ptr,
            target_ptr,
            class_centers_ptr,
            weight_ptr,
            squares_ptr,
            scalars_ptr,
            shares_ptr,
            counts_ptr,
            class_sums_ptr,
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
            HAS_WEIGHT,
        )


@triton.jit
def classes(
    logits_ptr,
    intra_ptr,
    target_ptr,
    class_centers_ptr,
    weight_ptr,
    squares_ptr,
    scalars_ptr,
    shares_ptr,
    counts_ptr,
    class_sums_ptr,
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
    HAS_WEIGHT: tl.constexpr,
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
        # A class that there is not must not pass for one.
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
    parts_ptr,
    latent_centers_ptr,
    latent_seen_ptr,
    class_centers_ptr,
    class_seen_ptr,
    terms_ptr,
    state_ptr,
    width,
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
    squares_ptr, scalars_ptr, shares_ptr, counts_ptr, class_sums_ptr = columns(
        parts_ptr, M, D, MP, KP
    )
    mean_ptr, numbers_ptr, class_held_ptr = state_columns(state_ptr, M, D)
    four = tl.arange(0, 4)
    scalars = add_up(scalars_ptr, width, four, four < 4, programs, 16)
    all_samples = tl.sum(tl.where(four == 2, scalars, 0.0), 0)
    counted = tl.sum(tl.where(four == 1, scalars, 0.0), 0)
    n, divisor = tl.maximum(all_samples, 1.0), tl.maximum(counted, 1.0)
    mass = tl.sum(tl.where(four == 3, scalars, 0.0), 0)
    mass = tl.where(mass > 0, mass, float("inf"))
    classification = tl.sum(tl.where(four == 0, scalars, 0.0), 0) / mass
    squared = add_up(squares_ptr, width, tl.arange(0, 32), tl.arange(0, 32) <= M, programs, 16)
    where = tl.arange(0, 32)
    compactness = tl.sum(tl.where(where < M, squared, 0.0), 0)
    distribution = tl.sum(tl.where(where == M, squared, 0.0), 0)
    # A batch whose squares are not finite moves no center.
    latents_move, classes_move = compactness - compactness == 0, distribution - distribution == 0
    for j in range(M):
        mean = add_up(parts_ptr + j * D, width, d, d < D, programs, 16) / n
        value = tl.load(latent_centers_ptr + j * D + d).to(tl.float64)
        seen = tl.load(latent_seen_ptr + j).to(tl.int1)
        held = tl.where(seen | (all_samples == 0), value, mean).to(tl.float32).to(tl.float64)
        compactness -= n * tl.sum((held - value) * (held - value), 0)
        tl.store(state_ptr + j * D + d, held.to(tl.float32))
        after = tl.where(latents_move, moved(held, mean, all_samples, rate, ALPHA), value)
        tl.store(latent_centers_ptr + j * D + d, after.to(tl.float32))
        tl.store(latent_seen_ptr + j, seen | ((all_samples > 0) & latents_move))
    compactness = tl.where(compactness < 0, 0.0, compactness) / n
    mean_share = add_up(shares_ptr, width, m, m < M, programs, 16) / n
    tl.store(mean_ptr + m, mean_share.to(tl.float32), mask=m < M)
    balance = tl.sum(tl.where(m < M, tl.abs(mean_share - 1.0 / M), 0.0), 0)
    balance = tl.where(all_samples > 0, balance, 0.0)
    counts = add_up(counts_ptr, width, k, k < K, programs, 1)
    class_seen = tl.load(class_seen_ptr + k, mask=k < K, other=0).to(tl.int1)
    for i in range(M):
        own = add_up(class_sums_ptr + i, width, k * MP, k < K, programs, 1)
        mean = own / tl.maximum(counts, 1.0)
        value = tl.load(class_centers_ptr + k * M + i, mask=k < K, other=0.0).to(tl.float64)
        starts = (counts > 0) & (class_seen == 0)
        held = tl.where(starts, mean, value).to(tl.float32).to(tl.float64)
        distribution -= tl.sum(counts * (held - value) * (held - value), 0)
        tl.store(class_held_ptr + k * M + i, held.to(tl.float32), mask=k < K)
        after = tl.where(classes_move, moved(held, mean, counts, rate, ALPHA), value)
        tl.store(class_centers_ptr + k * M + i, after.to(tl.float32), mask=k < K)
    met = tl.where(classes_move, counts, 0.0) > 0
    tl.store(class_seen_ptr + k, met | (class_seen != 0), mask=k < K)
    distribution = tl.where(distribution < 0, 0.0, distribution) / divisor
    total = classification + lambda_compactness * compactness + lambda_balance * balance
    total += lambda_distribution * distribution
    tl.store(terms_ptr + 0, total.to(tl.float32))
    tl.store(terms_ptr + 1, classification.to(tl.float32))
    tl.store(terms_ptr + 2, compactness.to(tl.float32))
    tl.store(terms_ptr + 3, balance.to(tl.float32))
    tl.store(terms_ptr + 4, distribution.to(tl.float32))
    tl.store(numbers_ptr, mass.to(tl.float32))
    tl.store(numbers_ptr + 1, divisor.to(tl.float32))
    tl.store(numbers_ptr + 2, n.to(tl.float32))
