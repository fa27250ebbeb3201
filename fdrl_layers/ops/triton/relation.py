"""Kernels on all latents of a few samples: relations, reconstruction, prediction; with backward.

One warp runs a program, or two (`plans.lanes`). Each lane holds `VECTOR` numbers along D, and the M
rows of a tile (MP, SUB, D) are registers of the same lane. Reading a row therefore takes no
instruction, and a sum over D takes a few shuffles. Loops over latents are unrolled. Distances are
computed from differences, once for each of the M (M - 1) / 2 pairs. The value of a pair is one
number of a tile (TURNS, SUB, MP), for latent j and its partner j + turn, modulo M.

Tiles have three dimensions even if one of them is 1, since Triton would otherwise choose another
layout and exchange them through shared memory.
"""

import triton
import triton.language as tl

from fdrl_layers.ops.backend import INTERPRETING

SUMS_WIDEN = tl.constexpr(
    INTERPRETING and tuple(map(int, triton.__version__.split(".")[:2])) < (3, 3)
)
"""Whether the interpreter widens sums of int32 to int64, as that of Triton 3.2 does."""


@triton.jit
def tanh(d):
    """Return tanh of a distance, by its series if the quotient of exponentials would cancel."""
    e = tl.exp(-2.0 * d)
    square = d * d
    series = d * (1.0 - square * (1 / 3 - square * (2 / 15 - square * (17 / 315))))
    return tl.where(d < 0.1, series, (1.0 - e) / (1.0 + e))


@triton.jit
def row_of(tile, j, m):
    """Return row m of a tile (MP, SUB, D), bit for bit.

    The sum is over integers, since adding 0 to a floating-point number is an instruction.
    """
    if SUMS_WIDEN:
        return tl.sum(tl.where((j == m)[:, None, None], tile, 0.0), 0)
    bits = tile.to(tl.int32, bitcast=True)
    return tl.sum(tl.where((j == m)[:, None, None], bits, 0), 0).to(tl.float32, bitcast=True)


@triton.jit
def squared_norm(rows):
    """Return the sums of squares (SUB,) of rows (SUB, D), first of four neighbors in one lane."""
    SUB: tl.constexpr = rows.shape[0]
    D: tl.constexpr = rows.shape[1]
    even, odd = tl.split(tl.reshape(rows, (SUB, D // 2, 2)))
    first, third = tl.split(tl.reshape(even, (SUB, D // 4, 2)))
    second, fourth = tl.split(tl.reshape(odd, (SUB, D // 4, 2)))
    return tl.sum(first * first + second * second + third * third + fourth * fourth, 1)


@triton.jit
def partners(M: tl.constexpr, MP: tl.constexpr, TURNS: tl.constexpr):
    """Return turns (TURNS, 1, 1), latents (1, 1, MP), their partners, and which pairs exist.

    If M is even, turn M / 2 meets each pair twice; its second half does not count.
    """
    turn, j = tl.arange(0, TURNS)[:, None, None] + 1, tl.arange(0, MP)[None, None, :]
    partner = j + turn
    partner = tl.where(partner >= M, partner - M, partner)
    return turn, j, partner, (j < M) & ((2 * turn < M) | ((2 * turn == M) & (2 * j < M)))


@triton.jit
def load_messages(
    product_ptr,
    bias_ptr,
    alpha,
    own,
    j,
    d,
    present,
    M: tl.constexpr,
    D: tl.constexpr,
    SUB: tl.constexpr,
    HAS_BIAS: tl.constexpr,
):
    """Return the messages g = relu(alpha q + b) (MP, SUB, D) in float32; 0 beyond M."""
    across = j[:, None, None] * (2 * D) + D + d[None, None, :]
    q = tl.load(product_ptr + own * (2 * M * D) + across, mask=present, other=0.0)
    g = alpha[:, :, None] * q.to(tl.float32)
    if HAS_BIAS:
        at = j[:, None, None] * D + d[None, None, :] + tl.zeros((1, SUB, 1), tl.int32)
        g += tl.load(bias_ptr + at, mask=present, other=0.0).to(tl.float32)
    return tl.where(present, tl.maximum(g, 0.0), 0.0)


@triton.jit
def load_classifier(
    classifier_ptr, start, d, K, D: tl.constexpr, SUB: tl.constexpr, KB: tl.constexpr
):
    """Return rows (KB, SUB, D) of the prediction layer, and their classes."""
    k = start + tl.arange(0, KB)
    at = k[:, None, None] * D + d[None, None, :] + tl.zeros((1, SUB, 1), tl.int32)
    return tl.load(classifier_ptr + at, mask=(k < K)[:, None, None], other=0.0).to(tl.float32), k


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
    TURNS: tl.constexpr,
    D: tl.constexpr,
    SUB: tl.constexpr,
    VECTOR: tl.constexpr,
    KB: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_CLASSIFIER: tl.constexpr,
    HAS_CLASSIFIER_BIAS: tl.constexpr,
    REDUCTION: tl.constexpr,
):
    """Compute equations 4 and 8 to 12, and the prediction, for a few samples."""
    rows = tl.program_id(0).to(tl.int64) * SUB + tl.arange(0, SUB)
    j, d = tl.arange(0, MP), tl.max_contiguous(tl.arange(0, D), VECTOR)
    in_rows, present = rows < N, (j < M)[:, None]
    # Beyond the batch, its last sample is computed again and not stored, so that no load of a row
    # needs a mask.
    near = tl.minimum(rows, N - 1)
    own, at = near[None, :, None], near[None, :] * M + j[:, None]
    if REDUCTION == "share":
        logs = tl.load(sums_ptr + at, mask=present, other=float("-inf"))
        shares = tl.where(present, tl.exp(logs - tl.max(logs, 0)[None, :]), 0.0)
        alpha = shares / tl.sum(shares, 0)[None, :]
    else:
        alpha = tl.load(sums_ptr + at, mask=present, other=0.0)
        if REDUCTION == "mean":
            alpha = alpha / D
    alpha = tl.where(present, alpha, 0.0)
    tl.store(intra_ptr + at, alpha, mask=present & in_rows[None, :])
    real = (j < M)[:, None, None]
    across = j[:, None, None] * D + d[None, None, :]
    latents = tl.load(latents_ptr + own * (M * D) + across, mask=real, other=0.0).to(tl.float32)
    y = delta * tl.sum(tl.where(real, alpha[:, :, None] * latents, 0.0), 0)
    g = load_messages(product_ptr, inter_bias_ptr, alpha, own, j, d, real, M, D, SUB, HAS_BIAS)
    turn, first, second, counts = partners(M, MP, TURNS)
    squares = tl.zeros((TURNS, SUB, MP), tl.float32)
    for t in tl.static_range(1, M // 2 + 1):
        for i in tl.static_range(0, M // 2 if 2 * t == M else M):
            square = squared_norm(row_of(g, j, i) - row_of(g, j, (i + t) % M))
            squares = tl.where((turn == t) & (first == i), square[None, :, None], squares)
    distance = tl.sqrt(squares)
    weight = tanh(distance)
    there = counts & in_rows[None, :, None]
    pair, turned = own * (M * M) + first * M + second, own * (M * M) + second * M + first
    tl.store(distances_ptr + pair, distance, mask=there)
    tl.store(distances_ptr + turned, distance, mask=there)
    tl.store(inter_ptr + pair, weight, mask=there)
    tl.store(inter_ptr + turned, weight, mask=there)
    diagonal = near[None, :] * (M * M) + j[:, None] * (M + 1)
    nothing = tl.zeros((MP, SUB), tl.float32)
    tl.store(distances_ptr + diagonal, nothing, mask=present & in_rows[None, :])
    tl.store(inter_ptr + diagonal, nothing, mask=present & in_rows[None, :])
    for m in tl.static_range(0, M):
        s = tl.sum(tl.sum(tl.where((first == m) | (second == m), weight, 0.0), 0), 1)
        y += (1.0 - delta) * s[:, None] * row_of(g, j, m)
    into = near[:, None] * D + d[None, :]
    tl.store(embedding_ptr + into, y.to(embedding_ptr.dtype.element_ty), mask=in_rows[:, None])
    if HAS_CLASSIFIER:
        for start in range(0, K, KB):
            weights, k = load_classifier(classifier_ptr, start, d, K, D, SUB, KB)
            logits = tl.sum(y[None, :, :] * weights, 2)
            if HAS_CLASSIFIER_BIAS:
                bias = tl.load(classifier_bias_ptr + k, mask=k < K, other=0.0)
                logits += bias.to(tl.float32)[:, None]
            tl.store(
                logits_ptr + near[None, :] * K + k[:, None],
                logits.to(logits_ptr.dtype.element_ty),
                mask=(k < K)[:, None] & in_rows[None, :],
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
    TURNS: tl.constexpr,
    D: tl.constexpr,
    SUB: tl.constexpr,
    VECTOR: tl.constexpr,
    KB: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_GRAD_LOGITS: tl.constexpr,
    HAS_GRAD_EMBEDDING: tl.constexpr,
    HAS_GRAD_INTRA: tl.constexpr,
    HAS_GRAD_INTER: tl.constexpr,
    REDUCTION: tl.constexpr,
):
    """Compute gradients of y and messages, and the gates' slope, from the outputs' gradients."""
    rows = tl.program_id(0).to(tl.int64) * SUB + tl.arange(0, SUB)
    j, d = tl.arange(0, MP), tl.max_contiguous(tl.arange(0, D), VECTOR)
    in_rows, present, real = rows < N, (j < M)[:, None], (j < M)[:, None, None]
    near = tl.minimum(rows, N - 1)
    own, at = near[None, :, None], near[None, :] * M + j[:, None]
    across = j[:, None, None] * D + d[None, None, :]
    # Pairs are loaded first: what combines two kinds of tiles gets the layout of the last load.
    turn, first, second, counts = partners(M, MP, TURNS)
    pair, turned = own * (M * M) + first * M + second, own * (M * M) + second * M + first
    distance = tl.load(distances_ptr + pair, mask=counts, other=0.0)
    weight = tanh(distance)
    pull = tl.zeros((TURNS, SUB, MP), tl.float32)
    if HAS_GRAD_INTER:
        pull += tl.load(grad_inter_ptr + pair, mask=counts, other=0.0).to(tl.float32)
        pull += tl.load(grad_inter_ptr + turned, mask=counts, other=0.0).to(tl.float32)
    dy = tl.zeros((SUB, D), tl.float32)
    if HAS_GRAD_LOGITS:
        for start in range(0, K, KB):
            weights, k = load_classifier(classifier_ptr, start, d, K, D, SUB, KB)
            grad = tl.load(
                grad_logits_ptr + near[None, :] * K + k[:, None],
                mask=(k < K)[:, None],
                other=0.0,
            )
            dy += tl.sum(grad.to(tl.float32)[:, :, None] * weights, 0)
    if HAS_GRAD_EMBEDDING:
        grad = tl.load(grad_embedding_ptr + own * D + d[None, None, :])
        dy += tl.sum(grad.to(tl.float32), 0)
    line = rows[:, None] * D + d[None, :]
    tl.store(dy_ptr + line, dy, mask=in_rows[:, None])
    mixed = (1.0 - delta) * dy
    alpha = tl.where(present, tl.load(intra_ptr + at, mask=present, other=0.0), 0.0)
    g = load_messages(product_ptr, inter_bias_ptr, alpha, own, j, d, real, M, D, SUB, HAS_BIAS)
    for m in tl.static_range(0, M):
        ds = tl.sum(mixed * row_of(g, j, m), 1)
        pull += tl.where((first == m) | (second == m), ds[None, :, None], 0.0)
    e = tl.exp(-2.0 * distance)
    # sech^2(d) / d, and 0 for messages that coincide.
    apart = tl.where(distance > 0, distance, 1.0)
    force = tl.where(distance > 0, pull * 4.0 * e / ((1.0 + e) * (1.0 + e) * apart), 0.0)
    # Every row is replaced; a tile of zeros would have another layout.
    dp = g
    y = tl.zeros((SUB, D), tl.float32)
    for m in tl.static_range(0, M):
        s = tl.sum(tl.sum(tl.where((first == m) | (second == m), weight, 0.0), 0), 1)
        dp = tl.where((j == m)[:, None, None], (s[:, None] * mixed)[None, :, :], dp)
        y += s[:, None] * row_of(g, j, m)
    for t in tl.static_range(1, M // 2 + 1):
        for i in tl.static_range(0, M // 2 if 2 * t == M else M):
            drawn = tl.sum(tl.sum(tl.where((turn == t) & (first == i), force, 0.0), 0), 1)
            step = drawn[:, None] * (row_of(g, j, i) - row_of(g, j, (i + t) % M))
            dp = tl.where((j == i)[:, None, None], dp + step[None, :, :], dp)
            dp = tl.where((j == (i + t) % M)[:, None, None], dp - step[None, :, :], dp)
    dp = tl.where(g > 0, dp, 0.0)
    stacked = own * (M * D) + across
    stored = dp.to(dp_ptr.dtype.element_ty)
    tl.store(dp_ptr + stacked, stored, mask=real & in_rows[None, :, None])
    latents = tl.load(latents_ptr + stacked, mask=real, other=0.0).to(tl.float32)
    features = tl.sum(tl.where(real, alpha[:, :, None] * latents, 0.0), 0)
    y = delta * features + (1.0 - delta) * y
    tl.store(y_ptr + line, y.to(y_ptr.dtype.element_ty), mask=in_rows[:, None])
    # Loaded again, as the registers that held it were needed.
    behind = j[:, None, None] * (2 * D) + D + d[None, None, :]
    q = tl.load(product_ptr + own * (2 * M * D) + behind, mask=real, other=0.0).to(tl.float32)
    slope = tl.sum(tl.where(real, (delta * dy)[None, :, :] * latents + dp * q, 0.0), 2)
    if HAS_GRAD_INTRA:
        slope += tl.load(grad_intra_ptr + at, mask=present, other=0.0).to(tl.float32)
    if REDUCTION == "share":
        slope = alpha * (slope - tl.sum(alpha * slope, 0)[None, :])
    elif REDUCTION == "mean":
        slope = slope / D
    tl.store(slope_ptr + at, slope, mask=present & in_rows[None, :])
