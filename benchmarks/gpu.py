"""Run all checks and benchmarks that require a GPU in under nine minutes and print a table.

    python -m benchmarks gpu [--out DIR] [--only tests,operators]

This uses one GPU, no network and what the group `test` and the extra `examples` install. Each part
has its own time limit; its output is kept if it fails or is stopped. Results go to
benchmarks/results/GPU, from which the documentation is built, or to DIR. All output goes to
gpu.log in runs/gpu or in DIR. The exit status is 1 if a part ran and failed or there is no GPU.
"""

import argparse
import importlib.util
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.machine import describe
from benchmarks.parts import ROOT, Part, format_table, python_command, run_all, select_parts
from benchmarks.schema import RESULTS

EAGER = ("loop", "reference", "ours", "triton", "triton graph")
COMPILED = ("ours compiled", "ours reduce-overhead")
SANITIZER = "compute-sanitizer"
KERNELS = ("triton", "hypothesis")
IMAGES = ("triton", "torchvision")
EXAMPLES = (*IMAGES, "matplotlib", "scipy", "sklearn", "tqdm")
"""Modules that a part requires, by import name."""
WORKERS = 8
"""Maximum number of concurrent test processes, which share the GPU's memory."""


def make_obstacle_check(*modules: str, program: str | None = None) -> Callable[[], str | None]:
    """Return a function that reports a missing GPU, or the modules and program not installed."""

    def obstacle() -> str | None:
        if not torch.cuda.is_available():
            return "no CUDA device"
        missing = [name for name in modules if importlib.util.find_spec(name) is None]
        if program is not None and not Path(program).is_file():
            missing.append(program)
        return f"not installed: {', '.join(missing)}" if missing else None

    return obstacle


def make_parts(out: Path) -> tuple[Part, ...]:
    """Return the parts; their results go to `out`."""
    kernels = python_command("-m", "benchmarks", "kernels")
    whole = ("whole-step", "--rounds", "15")
    training = ("throughput", "--rounds", "3", "--channels-last")
    added, speed = r"ours adds.*", r"224 pixels: [^;]*"
    return (
        _make_test_part(115),
        Part("kernels", kernels, 35, r"\d+ of \d+ agree.*", obstacle=make_obstacle_check(*KERNELS)),
        _make_sanitizer_part("memcheck", 50, r"ERROR SUMMARY: (.*)"),
        _make_sanitizer_part("racecheck", 50, r"RACECHECK SUMMARY: (.*)"),
        _make_operators_part("bfloat16", out, (*EAGER, *COMPILED), 85),
        _make_operators_part("float32", out, EAGER, 40),
        _make_part("whole-step", out, whole, 30, added, IMAGES),
        _make_part("whole-step-graph", out, (*whole, "--graph"), 30, added, IMAGES),
        _make_part("throughput", out, training, 45, speed, EXAMPLES),
        _make_part("throughput-graph", out, (*training, "--graph"), 45, speed, EXAMPLES),
    )


def _make_test_part(seconds: float) -> Part:
    command = [*python_command("-m", "pytest", "-m", "cuda and not slow", "-q")]
    # Test files that require a missing library are reported, and the others run.
    command += ["--continue-on-collection-errors"]
    if importlib.util.find_spec("xdist") is not None:
        command += ["-n", str(min(WORKERS, os.cpu_count() or 1)), "--dist", "worksteal"]
    needs = make_obstacle_check("pytest", "hypothesis")
    return Part("tests", command, seconds, r"(\d+ .*) in [\d.]+s", obstacle=needs)


def _make_sanitizer_part(tool: str, seconds: float, figure: str) -> Part:
    path = f"{os.environ.get('PATH', '')}:/usr/local/cuda/bin"
    program = shutil.which(SANITIZER, path=path) or SANITIZER
    return Part(
        f"sanitizer-{tool}",
        (
            *(program, "--tool", tool, "--error-exitcode", "1"),
            *python_command("-m", "benchmarks", "kernels", "--smallest"),
        ),
        seconds,
        figure,
        # Each array then has its own allocation, so that accesses beyond its end are detected.
        {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},
        make_obstacle_check(*KERNELS, program=program),
    )


def _make_operators_part(dtype: str, out: Path, versions: tuple[str, ...], seconds: float) -> Part:
    selection = ("--modes", "training", "--batches", "64", "1024", "65536", "--compiled-at", "64")
    # Do not start a batch that might not finish within the time limit.
    within = ("--rounds", "11", "--seconds", f"{0.6 * seconds:.0f}")
    return _make_part(
        f"operators-{dtype}",
        out,
        ("operators", *selection, *within, "--versions", *versions),
        seconds,
        r"N = 64\n(?:  .*\n)*?  (triton .*)",
        KERNELS,
        dtype,
    )


def _make_part(
    name: str,
    out: Path,
    arguments: tuple[str, ...],
    seconds: float,
    figure: str,
    needs: tuple[str, ...],
    dtype: str = "bfloat16",
) -> Part:
    benchmark, *options = arguments
    options += ["--device", "cuda", "--dtype", dtype, "--out", str(out)]
    command = python_command("-m", "benchmarks", benchmark, *options)
    return Part(name, command, seconds, figure, obstacle=make_obstacle_check(*needs))


def main(argv: list[str] | None = None) -> int:
    """Run the requested parts and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, help="folder for results and log")
    parser.add_argument("--only", help="names of parts, with commas between them")
    options = parser.parse_args(argv)
    machine = describe("cuda" if torch.cuda.is_available() else "cpu")
    # Parts run at the root of the repository, so a folder relative to elsewhere must be absolute.
    out = (options.out or RESULTS / machine.slug()).absolute()
    log = (out if options.out else ROOT / "runs" / "gpu") / "gpu.log"
    everything = make_parts(out)
    try:
        selected = select_parts(everything, options.only)
    except ValueError as error:
        parser.error(str(error))
    outcomes = run_all(everything, selected, log)
    versions = f"torch {machine.torch}, Triton {machine.triton or 'missing'}"
    summary = (
        f"{machine.gpu or 'no GPU'}; {versions}; commit {machine.commit}\n{format_table(outcomes)}"
    )
    print(f"\n{summary}\n\nresults: {out}\neverything that was said: {log}")
    with log.open("a") as file:
        file.write(f"\n{summary}\n")
    # Without a GPU, nothing has been checked.
    return 1 if any(each.failed for each in outcomes) or make_obstacle_check()() else 0
