"""Launch parameters of the head that depend only on sizes, types and options, computed once."""

import functools
from typing import Any, NamedTuple

import torch

from fdrl_layers.ops.triton.tiles import ceil_div, next_power_of_2


class Blocks(NamedTuple):
    """How many samples, and terms of a sum, a program of a branch processes at a time."""

    samples: int
    terms: int
    warps: int


def blocks(batch: int, width: int, dtype: torch.dtype) -> Blocks:
    """Return few samples per program for small batches, so that all multiprocessors have work.

    A program holds (samples, D) sums in registers, which spill from 128 samples on (in float32 from
    64, with 32 terms at a time). It holds three stages of (terms, D) weights in shared memory, of
    which compute capability 8.0 has 163 KiB.
    """
    samples = 16 if batch <= 128 or width == 256 else 32 if batch <= 512 else 64
    if dtype == torch.float32:
        terms = 16 if samples == 64 else 32
    else:
        terms = 32 if width == 256 else 64
    return Blocks(samples, min(terms, width), 4 if samples <= 32 else 8)


def _classes(num_classes: int) -> int:
    """Return how many classes a program processes at a time."""
    return max(2, min(16, next_power_of_2(max(1, num_classes))))


def _padded(num_latents: int) -> int:
    return max(2, next_power_of_2(num_latents))


class Lanes(NamedTuple):
    """Layout of a warp of the relations: samples, and numbers along D per lane."""

    samples: int
    vector: int
    warps: int


def lanes(batch: int, num_latents: int, width: int, dtype: torch.dtype) -> Lanes:
    """Give a sample half a warp if there are many samples and the registers hold the rows.

    A lane holds M `vector` numbers of each of two tiles, and has 255 registers. With 16 bytes of a
    row per lane, a sample takes the fewest instructions; with 8, a small batch has twice the warps.
    """
    wide = dtype != torch.float32 and width >= 128 and num_latents <= 9 and batch > 1024
    vector = 8 if wide else 4
    across = width // vector
    # Two warps share wide rows of many latents, which is slower than one warp, but fits.
    warps = 2 if across > 32 and num_latents > 9 else 1
    return Lanes(max(1, 32 // across), vector, warps)


def _turns(num_latents: int) -> int:
    return next_power_of_2(max(1, num_latents // 2))


class Plan(NamedTuple):
    """The grids and the kernels' compile-time options for a batch.

    Attributes:
        branches: Grid of the kernels of branches.
        samples: Grid of the kernels of relations.
        branch: Options of the kernels of branches.
        relation: Options of the kernels of relations.
    """

    branches: tuple[int, int]
    samples: tuple[int]
    branch: dict[str, Any]
    relation: dict[str, Any]


@functools.lru_cache(maxsize=256)
def plan_launches(
    batch: int,
    num_latents: int,
    width: int,
    num_classes: int,
    dtype: torch.dtype,
    reduction: str,
    products: str,
) -> Plan:
    """Return the plan for sizes, types and options, computed once."""
    size, share = blocks(batch, width, dtype), lanes(batch, num_latents, width, dtype)
    return Plan(
        (num_latents, ceil_div(batch, size.samples)),
        (ceil_div(batch, share.samples),),
        {
            "M": num_latents,
            "D": width,
            "BN": size.samples,
            "BK": size.terms,
            "SHARE": reduction == "share",
            "PRECISION": products,
            "num_warps": size.warps,
        },
        {
            "M": num_latents,
            "MP": _padded(num_latents),
            "TURNS": _turns(num_latents),
            "D": width,
            "SUB": share.samples,
            "VECTOR": share.vector,
            "KB": _classes(num_classes),
            "REDUCTION": reduction,
            "num_warps": share.warps,
        },
    )


@functools.lru_cache(maxsize=256)
def plan_sums(
    num_latents: int,
    width: int,
    in_features: int,
    num_classes: int,
    dtype: torch.dtype,
    products: str,
) -> tuple[tuple[int], dict[str, Any]]:
    """Return the grid and the options of the kernel of the parameters' gradients."""
    tile = min(64, width)
    # Products in float32 do not use the tensor cores, so more threads share the sums.
    block, warps = (16, 8) if dtype == torch.float32 else (64, 4)
    across = ceil_div(in_features, 64) + 2 * ceil_div(width, 64)
    programs = num_latents * ceil_div(width, tile) * across
    programs += ceil_div(num_classes, tile) * ceil_div(width, 64)
    return (programs,), {
        "M": num_latents,
        "D": width,
        "BN": block,
        "BI": tile,
        "BJ": 64,
        "PRECISION": products,
        "num_warps": warps,
    }
