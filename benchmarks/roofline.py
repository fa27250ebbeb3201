"""Compute the minimum time of a step from its bytes, its operations and a machine's rates.

Each of its two passes takes as long as the slower of its memory traffic and its arithmetic. The
traffic is that of the fused form: every array that has to exist is written and read once.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import torch

from benchmarks.registry import Mode, Sizes


class Rates(NamedTuple):
    """Bytes and floating-point operations per second."""

    bandwidth: float
    arithmetic: float


class Work(NamedTuple):
    """Bytes and floating-point operations of a pass."""

    bytes: int
    operations: int

    def seconds(self, rates: Rates) -> float:
        """Return the time of the memory traffic or of the arithmetic, whichever is longer."""
        return max(self.bytes / rates.bandwidth, self.operations / rates.arithmetic)


def count_work(sizes: Sizes, mode: Mode, element: int) -> tuple[Work, ...]:
    """Return the work of the forward pass and, in training, of the backward pass.

    `element` is the size of an element in bytes. Relation weights and distances are float32.
    """
    n, p, m, d, k = sizes
    parameters = m * d * (p + 1) + 2 * m * d * (d + 1) + k * (d + 1)
    latents, product, small = n * m * d, 2 * n * m * d, 4 * n * m * (m + 1)
    products = 2 * n * m * d * (p + 2 * d) + 2 * n * d * k
    pairs = 3 * n * d * m * (m - 1) // 2
    if mode == "inference":
        return (Work(element * (n * p + parameters + n * k), products + pairs),)
    kept = element * (latents + product) + small
    forward = Work(element * (n * p + parameters + n * k) + kept, products + pairs)
    # In addition to the saved arrays, one kernel writes and the next reads the gradients of the
    # product and of the latents; those of input and parameters are separate matrix products.
    staged = 2 * element * (product + latents)
    moved = kept + staged + element * (2 * n * p + 2 * parameters)
    return forward, Work(moved, 2 * products + 2 * pairs)


def min_seconds(sizes: Sizes, mode: Mode, dtype: torch.dtype, rates: Rates) -> float:
    """Return the minimum time of a step."""
    return sum(work.seconds(rates) for work in count_work(sizes, mode, dtype.itemsize))


def measure_rates(device: str, dtype: torch.dtype, repeats: int = 5) -> Rates:
    """Measure how fast this machine copies memory and multiplies large square matrices."""
    on_gpu = device == "cuda"
    source = torch.ones(2**28 if on_gpu else 2**24, device=device)
    target = torch.empty_like(source)
    side = 8192 if on_gpu else 1024
    a = torch.ones(side, side, device=device, dtype=dtype)
    b, c = torch.ones_like(a), torch.empty_like(a)
    copy = _fastest(lambda: target.copy_(source), device, repeats)
    multiply = _fastest(lambda: torch.mm(a, b, out=c), device, repeats)
    return Rates(2 * source.nbytes / copy, 2 * side**3 / multiply)


def _fastest(run: Callable[[], object], device: str, repeats: int) -> float:
    run()
    best = float("inf")
    for _ in range(repeats):
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return best
