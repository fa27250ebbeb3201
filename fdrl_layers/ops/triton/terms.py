"""The kernel of the joint loss's gradients."""

import triton
import triton.language as tl

from fdrl_layers.ops.triton.sums import state_columns


@triton.jit
def weigh(total_ptr, weight, term_ptr, HAS_TOTAL: tl.constexpr, HAS_TERM: tl.constexpr):
    """Return the gradient of a term, from that of the joint loss and its own."""
    gradient = 0.0
    if HAS_TOTAL:
        gradient += weight * tl.load(total_ptr)
    if HAS_TERM:
        gradient += tl.load(term_ptr)
    return gradient


@triton.jit
def term_gradients(
    total_ptr,
    classification_ptr,
    compactness_ptr,
    balance_ptr,
    distribution_ptr,
    logits_ptr,
    latents_ptr,
    intra_ptr,
    target_ptr,
    weight_ptr,
    state_ptr,
    grad_logits_ptr,
    grad_latents_ptr,
    grad_intra_ptr,
    N,
    K,
    lambda_compactness,
    lambda_balance,
    lambda_distribution,
    smoothing,
    ignore_index,
    M: tl.constexpr,
    D: tl.constexpr,
    MP: tl.constexpr,
    KP: tl.constexpr,
    ROWS: tl.constexpr,
    HAS_TOTAL: tl.constexpr,
    HAS_CE: tl.constexpr,
    HAS_COMPACTNESS: tl.constexpr,
    HAS_BALANCE: tl.constexpr,
    HAS_DISTRIBUTION: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
):
    """Compute gradients: programs (b, j < M) of latent j, programs (b, M) of logits and Intra-W."""
    n = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    j = tl.program_id(1)
    inside = n < N
    mean_ptr, numbers_ptr, class_held_ptr = state_columns(state_ptr, M, D)
    mass, divisor = tl.load(numbers_ptr), tl.load(numbers_ptr + 1)
    samples = tl.load(numbers_ptr + 2)
    if j < M:
        d = tl.arange(0, D)
        pull = weigh(total_ptr, lambda_compactness, compactness_ptr, HAS_TOTAL, HAS_COMPACTNESS)
        spot = (n * M + j)[:, None] * D + d[None, :]
        rows = tl.load(latents_ptr + spot, mask=inside[:, None], other=0.0).to(tl.float32)
        pulled = 2.0 * pull / samples * (rows - tl.load(state_ptr + j * D + d)[None, :])
        into = grad_latents_ptr + spot
        tl.store(into, pulled.to(grad_latents_ptr.dtype.element_ty), mask=inside[:, None])
    else:
        k, m = tl.arange(0, KP), tl.arange(0, MP)
        target = tl.load(target_ptr + n, mask=inside, other=ignore_index)
        counted = (target != ignore_index)[:, None]
        hot = (k[None, :] == target[:, None]) & counted
        classes = (k < K)[None, :]
        at = n[:, None] * K + k[None, :]
        z = tl.load(logits_ptr + at, mask=inside[:, None] & classes, other=float("-inf"))
        z = tl.where(inside[:, None], z.to(tl.float32), 0.0)
        exponential = tl.exp(z - tl.max(z, 1)[:, None])
        softmax = exponential / tl.sum(exponential, 1)[:, None]
        share = (1.0 - smoothing) * hot.to(tl.float32) + smoothing / K
        if HAS_WEIGHT:
            share *= tl.load(weight_ptr + k, mask=k < K, other=0.0)[None, :]
            softmax *= tl.sum(share, 1)[:, None]
        g = weigh(total_ptr, 1.0, classification_ptr, HAS_TOTAL, HAS_CE)
        gradient = tl.where(counted, g / mass * (softmax - share), 0.0)
        tl.store(
            grad_logits_ptr + at,
            gradient.to(grad_logits_ptr.dtype.element_ty),
            mask=inside[:, None] & classes,
        )
        own = n[:, None] * M + m[None, :]
        mask = inside[:, None] & (m < M)[None, :]
        w = tl.load(intra_ptr + own, mask=mask, other=0.0)
        known = inside & (target != ignore_index) & (target >= 0) & (target < K)
        near = tl.load(
            class_held_ptr + tl.where(known, target, 0)[:, None] * M + m[None, :],
            mask=known[:, None] & (m < M)[None, :],
            other=0.0,
        )
        g = weigh(total_ptr, lambda_distribution, distribution_ptr, HAS_TOTAL, HAS_DISTRIBUTION)
        drawn = tl.where(counted, 2.0 * g / divisor * (w - near), 0.0)
        g = weigh(total_ptr, lambda_balance, balance_ptr, HAS_TOTAL, HAS_BALANCE)
        mean = tl.load(mean_ptr + m, mask=m < M, other=0.0) - 1.0 / M
        sign = (mean > 0).to(tl.float32) - (mean < 0).to(tl.float32)
        tl.store(grad_intra_ptr + own, drawn + (g / samples * sign)[None, :], mask=mask)
