"""Compare values and gradients of the Triton kernels with the tests' loop in float64, per dtype.

    python -m benchmarks kernels [--smallest]

The sizes are the paper's widths with 1, 37, 64 and 1,024 samples. --smallest uses the smallest
sizes, for tools that check every memory access. The exit status is 1 if a result disagrees.
"""

import argparse

import torch

from benchmarks.agreement import find_disagreement
from benchmarks.registry import VERSIONS, Sizes

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
PAPER = tuple(Sizes(N) for N in (1, 37, 64, 1024))
SMALLEST = (Sizes(5, P=20, M=3, D=32, K=4),)


def main(argv: list[str] | None = None) -> int:
    """Check head and losses and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks kernels",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda", help="cpu interprets")
    parser.add_argument("--smallest", action="store_true")
    options = parser.parse_args(argv)
    triton = next(version for version in VERSIONS if version.name == "triton")
    agree = []
    for sizes in SMALLEST if options.smallest else PAPER:
        for dtype in DTYPES:
            reason = find_disagreement(triton, sizes, "training", options.device, dtype)
            print(f"{str(dtype).split('.')[1]}, N = {sizes.N}: {reason or 'agrees'}", flush=True)
            agree.append(reason is None)
    print(f"{sum(agree)} of {len(agree)} agree with the loop in float64")
    return 0 if all(agree) else 1
