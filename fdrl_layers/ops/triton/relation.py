"""Kernels of a few samples and all their latents: relations, reconstruction, prediction, and back.

Tiles are (SUB, MP, D) with M padded to a power of 2. Distances are taken from differences, one
latent against all others at a time, so that nothing of size (M, M, D) is ever formed.
"""

import triton
import triton.language as tl


@triton.jit
def tanh(d):
    """Tanh of a distance: by its series where the quotient of exponentials would cancel."""
    e = tl.exp(-2.0 * d)
    square = d * d
    series = d * (1.0 - square * (1 / 3 - square * (2 / 15 - square * (17 / 315))))
    return tl.where(d < 0.1, series, (1.0 - e) / (1.0 + e))


@triton.jit
def load_messages(
    product_ptr, bias_ptr, alpha, rows, j, d, mask, M: tl.constexpr, HAS_BIAS: tl.constexpr
):
    """Products q and messages g = relu(alpha q + b) of a tile, in float32; 0 beyond M."""
    D: tl.constexpr = d.shape[0]
    at = (rows[:, None] * M + j[None, :])[:, :, None] * (2 * D) + D + d[None, None, :]
    q = tl.load(product_ptr + at, mask=mask[:, :, None], other=0.0).to(tl.float32)
    g = alpha[:, :, None] * q
    if HAS_BIAS:
        bias = tl.load(bias_ptr + j[:, None] * D + d[None, :], mask=(j < M)[:, None], other=0.0)
        g += bias.to(tl.float32)[None, :, :]
    return q, tl.where(mask[:, :, None], tl.maximum(g, 0.0), 0.0)


@triton.jit
def pick(tile, j, m):
    """Row m of a tile (SUB, MP, D), bit for bit."""
    return tl.sum(tl.where((j == m)[None, :, None], tile, 0.0), 1)


@triton.jit
def pick_weight(tile, j, m):
    """Column m of a tile (SUB, MP)."""
    return tl.sum(tl.where((j == m)[None, :], tile, 0.0), 1)


@triton.jit
def relation_forward(
    latents_ptr,
    product_ptr,
    inter_bias_ptr,
    sums_ptr,
    classifier_ptr,
    classifier_bias_ptr,
    logits_ptr,
    embedding_ptr,
    intra_ptr,
    inter_ptr,
    distances_ptr,
    N,
    K,
    delta,
    M: tl.constexpr,
    MP: tl.constexpr,
    D: tl.constexpr,
    SUB: tl.constexpr,
    KB: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_CLASSIFIER: tl.constexpr,
    HAS_CLASSIFIER_BIAS: tl.constexpr,
    REDUCTION: tl.constexpr,
):
    """Equations 4 and 8 to 12, and the prediction, of a few samples."""
    rows = tl.program_id(0).to(tl.int64) * SUB + tl.arange(0, SUB)
    j, d = tl.arange(0, MP), tl.arange(0, D)
    mask = (rows < N)[:, None] & (j < M)[None, :]
    at = rows[:, None] * M + j[None, :]
    if REDUCTION == "share":
        logs = tl.load(sums_ptr + at, mask=mask, other=float("-inf"))
        logs = tl.where((rows < N)[:, None], logs, 0.0)
        shares = tl.exp(logs - tl.max(logs, 1)[:, None])
        alpha = shares / tl.sum(shares, 1)[:, None]
    else:
        alpha = tl.load(sums_ptr + at, mask=mask, other=0.0)
        if REDUCTION == "mean":
            alpha = alpha / D
    alpha = tl.where(mask, alpha, 0.0)
    tl.store(intra_ptr + at, alpha, mask=mask)
    latents = tl.load(
        latents_ptr + at[:, :, None] * D + d[None, None, :], mask=mask[:, :, None], other=0.0
    ).to(tl.float32)
    features = tl.sum(alpha[:, :, None] * latents, 1)
    _, g = load_messages(product_ptr, inter_bias_ptr, alpha, rows, j, d, mask, M, HAS_BIAS)
    s = tl.zeros((SUB, MP), tl.float32)
    for m in range(M):
        difference = g - pick(g, j, m)[:, None, :]
        distance = tl.sqrt(tl.sum(difference * difference, 2))
        distance = tl.where(mask & (j != m)[None, :], distance, 0.0)
        weight = tanh(distance)
        s += weight
        # Distances are symmetric, and along j they lie side by side.
        pair = (rows[:, None] * M + m) * M + j[None, :]
        tl.store(distances_ptr + pair, distance, mask=mask)
        tl.store(inter_ptr + pair, weight, mask=mask)
    y = delta * features + (1.0 - delta) * tl.sum(s[:, :, None] * g, 1)
    into = rows[:, None] * D + d[None, :]
    tl.store(embedding_ptr + into, y.to(embedding_ptr.dtype.element_ty), mask=(rows < N)[:, None])
    if HAS_CLASSIFIER:
        for start in range(0, K, KB):
            k = start + tl.arange(0, KB)
            weight = tl.load(
                classifier_ptr + k[:, None] * D + d[None, :], mask=(k < K)[:, None], other=0.0
            ).to(tl.float32)
            logits = tl.sum(y[:, None, :] * weight[None, :, :], 2)
            if HAS_CLASSIFIER_BIAS:
                bias = tl.load(classifier_bias_ptr + k, mask=k < K, other=0.0)
                logits += bias.to(tl.float32)[None, :]
            tl.store(
                logits_ptr + rows[:, None] * K + k[None, :],
                logits.to(logits_ptr.dtype.element_ty),
                mask=(rows < N)[:, None] & (k < K)[None, :],
            )


@triton.jit
def relation_backward(
    grad_logits_ptr,
    grad_embedding_ptr,
    grad_intra_ptr,
    grad_inter_ptr,
    latents_ptr,
    product_ptr,
    inter_bias_ptr,
    classifier_ptr,
    intra_ptr,
    distances_ptr,
    dp_ptr,
    slope_ptr,
    dy_ptr,
    y_ptr,
    N,
    K,
    delta,
    M: tl.constexpr,
    MP: tl.constexpr,
    D: tl.constexpr,
    SUB: tl.constexpr,
    KB: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_GRAD_LOGITS: tl.constexpr,
    HAS_GRAD_EMBEDDING: tl.constexpr,
    HAS_GRAD_INTRA: tl.constexpr,
    HAS_GRAD_INTER: tl.constexpr,
    REDUCTION: tl.constexpr,
):
    """From the outputs' gradients to those of y and the messages, and the slope of the gates."""
    rows = tl.program_id(0).to(tl.int64) * SUB + tl.arange(0, SUB)
    j, d = tl.arange(0, MP), tl.arange(0, D)
    mask = (rows < N)[:, None] & (j < M)[None, :]
    at = rows[:, None] * M + j[None, :]
    line, in_rows = rows[:, None] * D + d[None, :], (rows < N)[:, None]
    dy = tl.zeros((SUB, D), tl.float32)
    if HAS_GRAD_LOGITS:
        for start in range(0, K, KB):
            k = start + tl.arange(0, KB)
            grad = tl.load(
                grad_logits_ptr + rows[:, None] * K + k[None, :],
                mask=in_rows & (k < K)[None, :],
                other=0.0,
            ).to(tl.float32)
            weight = tl.load(
                classifier_ptr + k[:, None] * D + d[None, :], mask=(k < K)[:, None], other=0.0
            ).to(tl.float32)
            dy += tl.sum(grad[:, :, None] * weight[None, :, :], 1)
    if HAS_GRAD_EMBEDDING:
        dy += tl.load(grad_embedding_ptr + line, mask=in_rows, other=0.0).to(tl.float32)
    tl.store(dy_ptr + line, dy, mask=in_rows)
    alpha = tl.load(intra_ptr + at, mask=mask, other=0.0)
    q, g = load_messages(product_ptr, inter_bias_ptr, alpha, rows, j, d, mask, M, HAS_BIAS)
    beta = 1.0 - delta
    ds = beta * tl.sum(dy[:, None, :] * g, 2)
    s = tl.zeros((SUB, MP), tl.float32)
    mixed = tl.zeros((SUB, MP, D), tl.float32)
    for m in range(M):
        pair = (rows[:, None] * M + m) * M + j[None, :]
        distance = tl.load(distances_ptr + pair, mask=mask, other=0.0)
        s += tanh(distance)
        pull = ds + pick_weight(ds, j, m)[:, None]
        if HAS_GRAD_INTER:
            turned = (rows[:, None] * M + j[None, :]) * M + m
            pull += tl.load(grad_inter_ptr + pair, mask=mask, other=0.0).to(tl.float32)
            pull += tl.load(grad_inter_ptr + turned, mask=mask, other=0.0).to(tl.float32)
        # sech^2(d) / d, and 0 for messages that coincide.
        e = tl.exp(-2.0 * distance)
        apart = tl.where(distance > 0, distance, 1.0)
        k_m = tl.where(distance > 0, pull * 4.0 * e / ((1.0 + e) * (1.0 + e) * apart), 0.0)
        mixed += k_m[:, :, None] * (g - pick(g, j, m)[:, None, :])
    dp = tl.where(g > 0, beta * s[:, :, None] * dy[:, None, :] + mixed, 0.0)
    stacked = at[:, :, None] * D + d[None, None, :]
    tl.store(dp_ptr + stacked, dp.to(dp_ptr.dtype.element_ty), mask=mask[:, :, None])
    latents = tl.load(latents_ptr + stacked, mask=mask[:, :, None], other=0.0).to(tl.float32)
    dalpha = tl.sum(delta * dy[:, None, :] * latents + dp * q, 2)
    if HAS_GRAD_INTRA:
        dalpha += tl.load(grad_intra_ptr + at, mask=mask, other=0.0).to(tl.float32)
    if REDUCTION == "share":
        dalpha = alpha * (dalpha - tl.sum(alpha * dalpha, 1)[:, None])
    elif REDUCTION == "mean":
        dalpha = dalpha / D
    tl.store(slope_ptr + at, dalpha, mask=mask)
    y = delta * tl.sum(alpha[:, :, None] * latents, 1) + beta * tl.sum(s[:, :, None] * g, 1)
    tl.store(y_ptr + line, y.to(y_ptr.dtype.element_ty), mask=in_rows)
