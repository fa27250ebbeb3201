"""Kernels that update the joint loss's centers and join its terms, from sums over the batch."""

import triton
import triton.language as tl

from fdrl_layers.ops.triton.sums import add_up, columns, state_columns


@triton.jit
def moved(held, mean, count, rate, ALPHA: tl.constexpr):
    """Return the centers after a batch; with `count` 0 they do not change.

    Wen et al.'s step, (n c - sum) / (1 + n), is a step towards the mean by n / (1 + n).
    """
    if ALPHA:
        step = rate * count / (1.0 + count)
    else:
        step = tl.where(count > 0, rate + 0.0 * count, 0.0)
    return held + step * (mean - held)


@triton.jit
def move_centers(
    parts_ptr,
    latent_centers_ptr,
    latent_seen_ptr,
    class_centers_ptr,
    class_seen_ptr,
    corrections_ptr,
    state_ptr,
    width,
    K,
    programs,
    rate,
    M: tl.constexpr,
    D: tl.constexpr,
    MP: tl.constexpr,
    KP: tl.constexpr,
    ALPHA: tl.constexpr,
):
    """Compare the batch with centers, and update these: program j < M the center of latent j.

    Program M + i updates column i of the class centers (K, M). The squared distances are to the
    centers' values. If this batch initializes a center, its mean c replaces the value v, which
    reduces the squared distances by the correction n ||c - v||^2. M programs read which classes
    have been seen, so `join_terms` updates that.
    """
    pid = tl.program_id(0)
    if pid < M:
        move_latent(
            parts_ptr, latent_centers_ptr + pid * D, latent_seen_ptr + pid,
            corrections_ptr + pid, state_ptr + pid * D, width, programs, rate, pid,
            M, D, MP, KP, ALPHA,
        )  # fmt: skip
    else:
        move_classes(
            parts_ptr, class_centers_ptr, class_seen_ptr, corrections_ptr + pid, state_ptr,
            width, K, programs, rate, pid - M, M, D, MP, KP, ALPHA,
        )  # fmt: skip


@triton.jit
def add_squares(parts_ptr, width, programs, M: tl.constexpr, D: tl.constexpr):
    """Return sums (32,) of squared distances to latent centers and, at M, to class centers."""
    at = tl.arange(0, 32)
    return add_up(parts_ptr + M * D, width, at, at <= M, programs, 16)


@triton.jit
def move_latent(
    parts_ptr,
    center_ptr,
    seen_ptr,
    correction_ptr,
    held_ptr,
    width,
    programs,
    rate,
    j,
    M: tl.constexpr,
    D: tl.constexpr,
    MP: tl.constexpr,
    KP: tl.constexpr,
    ALPHA: tl.constexpr,
):
    """Compare latent j with its center, and update the center."""
    _, scalars_ptr, _, _, _ = columns(parts_ptr, M, D, MP, KP)
    d, one, at = tl.arange(0, D), tl.arange(0, 4), tl.arange(0, 32)
    all_samples = tl.sum(add_up(scalars_ptr, width, one, one == 2, programs, 16), 0)
    n = tl.maximum(all_samples, 1.0)
    squared = add_squares(parts_ptr, width, programs, M, D)
    total = tl.sum(tl.where(at < M, squared, 0.0), 0)
    # A batch whose squares are not finite updates no center.
    finite = total - total == 0
    mean = add_up(parts_ptr + j * D, width, d, d < D, programs, 16) / n
    value = tl.load(center_ptr + d).to(tl.float64)
    seen = tl.load(seen_ptr).to(tl.int1)
    held = tl.where(seen | (all_samples == 0), value, mean).to(tl.float32).to(tl.float64)
    tl.store(correction_ptr, n * tl.sum((held - value) * (held - value), 0))
    tl.store(held_ptr + d, held.to(tl.float32))
    after = tl.where(finite, moved(held, mean, all_samples, rate, ALPHA), value)
    tl.store(center_ptr + d, after.to(tl.float32))
    tl.store(seen_ptr, seen | ((all_samples > 0) & finite))


@triton.jit
def move_classes(
    parts_ptr,
    centers_ptr,
    seen_ptr,
    correction_ptr,
    state_ptr,
    width,
    K,
    programs,
    rate,
    i,
    M: tl.constexpr,
    D: tl.constexpr,
    MP: tl.constexpr,
    KP: tl.constexpr,
    ALPHA: tl.constexpr,
):
    """Compare Intra-W of latent i with the class centers, and update their column i."""
    k, at = tl.arange(0, KP), tl.arange(0, 32)
    _, _, _, counts_ptr, class_sums_ptr = columns(parts_ptr, M, D, MP, KP)
    _, _, held_ptr = state_columns(state_ptr, M, D)
    squared = add_squares(parts_ptr, width, programs, M, D)
    total = tl.sum(tl.where(at == M, squared, 0.0), 0)
    finite = total - total == 0
    counts = add_up(counts_ptr, width, k, k < K, programs, 1)
    seen = tl.load(seen_ptr + k, mask=k < K, other=0).to(tl.int1)
    mean = add_up(class_sums_ptr + i, width, k * MP, k < K, programs, 1) / tl.maximum(counts, 1.0)
    value = tl.load(centers_ptr + k * M + i, mask=k < K, other=0.0).to(tl.float64)
    starts = (counts > 0) & (seen == 0)
    held = tl.where(starts, mean, value).to(tl.float32).to(tl.float64)
    tl.store(correction_ptr, tl.sum(counts * (held - value) * (held - value), 0))
    tl.store(held_ptr + k * M + i, held.to(tl.float32), mask=k < K)
    after = tl.where(finite, moved(held, mean, counts, rate, ALPHA), value)
    tl.store(centers_ptr + k * M + i, after.to(tl.float32), mask=k < K)


@triton.jit
def join_terms(
    parts_ptr,
    class_seen_ptr,
    corrections_ptr,
    terms_ptr,
    state_ptr,
    width,
    K,
    programs,
    lambda_compactness,
    lambda_balance,
    lambda_distribution,
    M: tl.constexpr,
    D: tl.constexpr,
    MP: tl.constexpr,
    KP: tl.constexpr,
):
    """Compute the losses from the sums of the parts, in one program."""
    m, k, four, where = (
        tl.arange(0, MP),
        tl.arange(0, KP),
        tl.arange(0, 4),
        tl.arange(0, 32),
    )
    _, scalars_ptr, shares_ptr, counts_ptr, _ = columns(parts_ptr, M, D, MP, KP)
    mean_ptr, numbers_ptr, _ = state_columns(state_ptr, M, D)
    scalars = add_up(scalars_ptr, width, four, four < 4, programs, 16)
    all_samples = tl.sum(tl.where(four == 2, scalars, 0.0), 0)
    counted = tl.sum(tl.where(four == 1, scalars, 0.0), 0)
    n, divisor = tl.maximum(all_samples, 1.0), tl.maximum(counted, 1.0)
    mass = tl.sum(tl.where(four == 3, scalars, 0.0), 0)
    mass = tl.where(mass > 0, mass, float("inf"))
    classification = tl.sum(tl.where(four == 0, scalars, 0.0), 0) / mass
    squared = add_squares(parts_ptr, width, programs, M, D)
    distribution = tl.sum(tl.where(where == M, squared, 0.0), 0)
    finite = distribution - distribution == 0
    corrections = tl.load(corrections_ptr + where, mask=where < 2 * M, other=0.0)
    compactness = tl.sum(tl.where(where < M, squared - corrections, 0.0), 0)
    distribution -= tl.sum(tl.where(where >= M, corrections, 0.0), 0)
    compactness = tl.where(compactness < 0, 0.0, compactness) / n
    distribution = tl.where(distribution < 0, 0.0, distribution) / divisor
    mean_share = add_up(shares_ptr, width, m, m < M, programs, 16) / n
    tl.store(mean_ptr + m, mean_share.to(tl.float32), mask=m < M)
    balance = tl.sum(tl.where(m < M, tl.abs(mean_share - 1.0 / M), 0.0), 0)
    balance = tl.where(all_samples > 0, balance, 0.0)
    counts = add_up(counts_ptr, width, k, k < K, programs, 1)
    seen = tl.load(class_seen_ptr + k, mask=k < K, other=0).to(tl.int1)
    met = tl.where(finite, counts, 0.0) > 0
    tl.store(class_seen_ptr + k, met | (seen != 0), mask=k < K)
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
