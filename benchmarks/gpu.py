"""Check and measure all that a GPU is for, in under nine minutes, and sum it up in a table.

    python benchmarks/gpu.py [--out DIR] [--only tests,operators]

For one GPU, without a network, with what the extras `test` and `examples` install. Every part has a
time of its own, and what one has written is kept where it fails or is stopped. Results go to
benchmarks/results/GPU, from which the documentation is made, or to DIR; all that is said goes to
gpu.log, in runs/gpu or in DIR. Exit status 1 where a part did not pass, or where there is no GPU.
"""

import argparse
import importlib.util
import os
import shutil
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.machine import describe
from benchmarks.parts import ROOT, Part, chosen, python, run_all, table
from benchmarks.schema import RESULTS

EAGER = ("loop", "reference", "ours", "triton", "triton graph")
COMPILED = ("ours compiled", "ours reduce-overhead")
SANITIZER = "compute-sanitizer"
WORKERS = 8
"""Processes that test at a time at most: each has a share of the GPU's memory."""


def without_cuda() -> str | None:
    """Say that there is no GPU, where there is none."""
    return None if torch.cuda.is_available() else "no CUDA device"


def parts(out: Path) -> tuple[Part, ...]:
    """Return the parts, whose results go to `out`."""
    return (
        _tests(),
        Part(
            "kernels",
            python("benchmarks/kernels.py"),
            35,
            r"\d+ of \d+ agree.*",
            obstacle=without_cuda,
        ),
        _sanitizer("memcheck", r"ERROR SUMMARY: (.*)"),
        _sanitizer("racecheck", r"RACECHECK SUMMARY: (.*)"),
        _operators("bfloat16", out, (*EAGER, *COMPILED), 95),
        _operators("float32", out, EAGER, 45),
        _timed("whole-step", out, ("whole_step.py", "--rounds", "15"), 40, r"ours adds.*"),
        _timed(
            "throughput",
            out,
            ("throughput.py", "--rounds", "3", "--channels-last"),
            55,
            r"224 pixels: [^;]*",
        ),
    )


def _tests() -> Part:
    def obstacle() -> str | None:
        missing = importlib.util.find_spec("pytest") is None
        return without_cuda() or ("pytest is not installed" if missing else None)

    command = [*python("-m", "pytest", "-m", "cuda and not slow", "-q")]
    # What needs a library that is not there is said, and the rest is run.
    command += ["--continue-on-collection-errors"]
    if importlib.util.find_spec("xdist") is not None:
        command += ["-n", str(min(WORKERS, os.cpu_count() or 1)), "--dist", "worksteal"]
    return Part("tests", command, 130, r"(\d+ .*) in [\d.]+s", obstacle=obstacle)


def _sanitizer(tool: str, figure: str) -> Part:
    program = shutil.which(SANITIZER, path=f"{os.environ.get('PATH', '')}:/usr/local/cuda/bin")

    def obstacle() -> str | None:
        return without_cuda() or (None if program else f"{SANITIZER} is not installed")

    return Part(
        f"sanitizer-{tool}",
        (
            *(program or SANITIZER, "--tool", tool, "--error-exitcode", "1"),
            *python("benchmarks/kernels.py", "--smallest"),
        ),
        60,
        figure,
        # Each array is then an allocation of its own, with ends that can be overrun.
        {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},
        obstacle,
    )


def _operators(dtype: str, out: Path, versions: tuple[str, ...], seconds: float) -> Part:
    said = ("--modes", "training", "--batches", "64", "1024", "65536", "--compiled-at", "64")
    # A batch that could not be ended in time is not begun.
    within = ("--rounds", "11", "--seconds", f"{0.6 * seconds:.0f}")
    return _timed(
        f"operators-{dtype}",
        out,
        ("run.py", *said, *within, "--versions", *versions),
        seconds,
        r"N = 64\n(?:  .*\n)*?  (triton .*)",
        dtype=dtype,
    )


def _timed(
    name: str,
    out: Path,
    arguments: tuple[str, ...],
    seconds: float,
    figure: str,
    dtype: str = "bfloat16",
) -> Part:
    script, *said = arguments
    said += ["--device", "cuda", "--dtype", dtype, "--out", str(out)]
    command = python(f"benchmarks/{script}", *said)
    return Part(name, command, seconds, figure, obstacle=without_cuda)


def main(argv: list[str] | None = None) -> int:
    """Run what is asked for, and return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="folder for results and log")
    parser.add_argument("--only", help="names of parts, with commas between them")
    options = parser.parse_args(argv)
    machine = describe("cuda" if torch.cuda.is_available() else "cpu")
    # Parts run at the root of the repository, and may be told of a folder from elsewhere.
    out = (options.out or RESULTS / machine.slug()).absolute()
    log = (out if options.out else ROOT / "runs" / "gpu") / "gpu.log"
    everything = parts(out)
    try:
        asked = chosen(everything, options.only)
    except ValueError as error:
        parser.error(str(error))
    outcomes = run_all(everything, asked, log)
    versions = f"torch {machine.torch}, Triton {machine.triton or 'missing'}"
    summary = f"{machine.gpu or 'no GPU'}; {versions}; commit {machine.commit}\n{table(outcomes)}"
    print(f"\n{summary}\n\nresults: {out}\neverything that was said: {log}")
    with log.open("a") as file:
        file.write(f"\n{summary}\n")
    # Where there is no GPU nothing has been shown.
    return 1 if any(each.failed for each in outcomes) or without_cuda() else 0


if __name__ == "__main__":
    sys.exit(main())
