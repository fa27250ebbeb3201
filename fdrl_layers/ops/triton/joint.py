"""Kernels of the joint loss: three launches forward, which update the centers, one backward.

The equations are in `ops/eager/joint.py`. Partial sums are in float32, over up to N / 128 samples
each; they are added up in float64, always in the same order.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from fdrl_layers._ranks import sum_over_ranks
from fdrl_layers.ops.triton.centers import join_terms, move_centers
from fdrl_layers.ops.triton.sums import partial_sums
from fdrl_layers.ops.triton.terms import term_gradients
from fdrl_layers.ops.triton.tiles import ceil_div, next_power_of_2

ROWS = 16
"""Samples that a program processes at a time: the minimum for a product of tiles."""

MOST_PROGRAMS = 128
"""About the number of multiprocessors; each program sums a range of samples."""


class Sizes(NamedTuple):
    """The sizes that kernels are compiled for: M, D, and both M and K padded to powers of 2."""

    M: int
    D: int
    MP: int
    KP: int

    @property
    def width(self) -> int:
        """The size of the row that programs of `partial_sums` write."""
        return self.M * self.D + 32 + 4 + self.MP + self.KP + self.KP * self.MP


def _sizes(latents: Tensor, logits: Tensor) -> Sizes:
    m, d = latents.shape[1:]
    return Sizes(m, d, 16, max(16, next_power_of_2(logits.shape[1])))


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
    ranks: bool = False,
    weight: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Return the joint loss, its four terms and what backward needs; update the centers in place.

    Backward needs one tensor, whose parts :func:`parts_of_state` returns. With `ranks` the batch is
    that of all ranks, whose sums are exchanged once.
    """
    n, k = logits.shape
    sizes = _sizes(latents, logits)
    new = intra_weights.new_empty
    programs = min(ceil_div(n, ROWS), MOST_PROGRAMS)
    parts = new(programs, sizes.width)
    if n:
        partial_sums[(programs, sizes.M + 1)](
            logits.contiguous(),
            latents.contiguous(),
            intra_weights.contiguous(),
            target.contiguous(),
            latent_centers,
            class_centers,
            class_centers if weight is None else weight,
            parts,
            sizes.width,
            n,
            k,
            ceil_div(ceil_div(n, programs), ROWS) * ROWS,
            label_smoothing,
            ignore_index,
            *sizes,
            ROWS=ROWS,
            HAS_WEIGHT=weight is not None,
            num_warps=4,
        )
    if ranks:
        parts, programs = sum_over_ranks(parts.sum(0, dtype=torch.float64)), 1
    terms, state = new(5), new(sizes.M * sizes.D + sizes.M + 3 + k * sizes.M)
    corrections = torch.empty(2 * sizes.M, device=latents.device, dtype=torch.float64)
    move_centers[(2 * sizes.M,)](
        parts,
        latent_centers,
        latent_seen,
        class_centers,
        class_seen,
        corrections,
        state,
        sizes.width,
        k,
        programs,
        rate,
        *sizes,
        ALPHA=rule == "alpha",
        num_warps=4,
    )
    join_terms[(1,)](
        parts,
        class_seen,
        corrections,
        terms,
        state,
        sizes.width,
        k,
        programs,
        *lambdas,
        *sizes,
        num_warps=4,
    )
    return (*terms.unbind(), state)


def parts_of_state(state: Tensor, num_latents: int, width: int) -> tuple[Tensor, ...]:
    """Return the centers of latents (M, D) and of classes (K, M), mean Intra-W, and three numbers.

    The centers are those that the batch was compared with. The numbers are the sum of class
    weights, the number of samples that count and that of all samples.
    """
    m = num_latents
    held, mean, numbers, class_held = state.split(
        [m * width, m, 3, state.numel() - m * width - m - 3]
    )
    return held.view(m, width), class_held.view(-1, m), mean, *numbers.unbind()


def backward(
    gradients: tuple[Tensor | None, ...],
    logits: Tensor,
    latents: Tensor,
    intra_weights: Tensor,
    target: Tensor,
    state: Tensor,
    lambdas: tuple[float, float, float],
    label_smoothing: float,
    ignore_index: int,
    weight: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of logits, latents and Intra-W from those of the five scalars."""
    n, k = logits.shape
    logits, latents = logits.contiguous(), latents.contiguous()
    intra_weights = intra_weights.contiguous()
    sizes = _sizes(latents, logits)
    found = tuple(each.new_empty(each.shape) for each in (logits, latents, intra_weights))
    names = ("HAS_TOTAL", "HAS_CE", "HAS_COMPACTNESS", "HAS_BALANCE", "HAS_DISTRIBUTION")
    given = {name: each is not None for name, each in zip(names, gradients, strict=True)}
    if n == 0:
        return found[0], found[1], found[2]
    term_gradients[(ceil_div(n, ROWS), sizes.M + 1)](
        *(intra_weights if each is None else each for each in gradients),
        logits,
        latents,
        intra_weights,
        target.contiguous(),
        intra_weights if weight is None else weight,
        state,
        *found,
        n,
        k,
        *lambdas,
        label_smoothing,
        ignore_index,
        *sizes,
        ROWS=ROWS,
        **given,
        HAS_WEIGHT=weight is not None,
        num_warps=4,
    )
    return found[0], found[1], found[2]
