"""The joint loss by kernels: two launches forward, which move the centers too, and one backward.

The equations stand in `ops/eager/joint.py`. Partial sums are in float32, over up to N / 128 samples
each; they are added up in float64, always in the same order.
"""

from typing import NamedTuple

import triton
from torch import Tensor

from fdrl_layers.ops.triton.sums import finish, partial_sums
from fdrl_layers.ops.triton.terms import term_gradients

ROWS = 16
"""Samples that a program takes at a time: the least that a product of tiles takes."""

MOST_PROGRAMS = 128
"""About the number of multiprocessors; each adds up a range of samples."""


class Sizes(NamedTuple):
    """The sizes that kernels are compiled for: M, D, and both M and K padded to powers of 2."""

    M: int
    D: int
    MP: int
    KP: int


def _sizes(latents: Tensor, logits: Tensor) -> Sizes:
    m, d = latents.shape[1:]
    return Sizes(m, d, 16, max(16, triton.next_power_of_2(logits.shape[1])))


def forward(
    logits: Tensor,
    latents: Tensor,
    intra_weights: Tensor,
    target: Tensor,
    latent_centers: Tensor,
    latent_seen: Tensor,
    class_centers: Tensor,
    class_seen: Tensor,
    rule: str,
    rate: float,
    lambdas: tuple[float, float, float],
    label_smoothing: float,
    ignore_index: int,
) -> tuple[Tensor, ...]:
    """Return the joint loss, its four terms and what backward wants; move the centers in place.

    What backward wants are the centers of the latents (M, D) and of the classes (K, M) that the
    batch was held against, the mean Intra-W (M,) and the number of samples that count (1,).
    """
    n, k = logits.shape
    sizes = _sizes(latents, logits)
    m, d, padded_m, padded_k = sizes
    new = intra_weights.new_empty
    programs = min(triton.cdiv(n, ROWS), MOST_PROGRAMS)
    sums, squares = new(programs, m, d), new(programs, m + 1)
    scalars, shares = new(programs, 2), new(programs, padded_m)
    counts, class_sums = new(programs, padded_k), new(programs, padded_k, padded_m)
    partial_sums[(programs, m + 1)](
        logits.contiguous(),
        latents.contiguous(),
        intra_weights.contiguous(),
        target.contiguous(),
        latent_centers,
        class_centers,
        sums,
        squares,
        scalars,
        shares,
        counts,
        class_sums,
        n,
        k,
        triton.cdiv(triton.cdiv(n, programs), ROWS) * ROWS,
        label_smoothing,
        ignore_index,
        *sizes,
        ROWS=ROWS,
        num_warps=4,
    )
    terms = tuple(new(()) for _ in range(5))
    held, class_held, mean, counted = new(m, d), new(k, m), new(m), new(1)
    finish[(1,)](
        sums,
        squares,
        scalars,
        shares,
        counts,
        class_sums,
        latent_centers,
        latent_seen,
        class_centers,
        class_seen,
        *terms,
        held,
        class_held,
        mean,
        counted,
        n,
        k,
        programs,
        rate,
        *lambdas,
        *sizes,
        ALPHA=rule == "alpha",
        num_warps=8,
    )
    return (*terms, held, class_held, mean, counted)


def backward(
    gradients: tuple[Tensor | None, ...],
    logits: Tensor,
    latents: Tensor,
    intra_weights: Tensor,
    target: Tensor,
    saved: tuple[Tensor, ...],
    lambdas: tuple[float, float, float],
    label_smoothing: float,
    ignore_index: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of logits, latents and Intra-W from those of the five scalars."""
    n, k = logits.shape
    logits, latents = logits.contiguous(), latents.contiguous()
    intra_weights = intra_weights.contiguous()
    sizes = _sizes(latents, logits)
    found = tuple(each.new_empty(each.shape) for each in (logits, latents, intra_weights))
    names = ("HAS_TOTAL", "HAS_CE", "HAS_COMPACTNESS", "HAS_BALANCE", "HAS_DISTRIBUTION")
    given = {name: each is not None for name, each in zip(names, gradients, strict=True)}
    term_gradients[(triton.cdiv(n, ROWS), sizes.M + 1)](
        *(intra_weights if each is None else each for each in gradients),
        logits,
        latents,
        intra_weights,
        target.contiguous(),
        *saved,
        *found,
        n,
        k,
        *lambdas,
        label_smoothing,
        ignore_index,
        *sizes,
        ROWS=ROWS,
        **given,
        num_warps=4,
    )
    return found[0], found[1], found[2]
