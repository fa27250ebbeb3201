"""Time all versions of the head and its losses against each other and write the results.

    python -m benchmarks operators [--device cuda] [--dtype bfloat16] [--quick]

Writes benchmarks/results/MACHINE/operators-MODE-DTYPE.json, from which the documentation's
Benchmarks page is built. A version that disagrees with the loop in float64 is not timed. Do not
use the machine for anything else in the meantime.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.agreement import find_disagreement
from benchmarks.counting import count_saved_bytes, count_step_kernels
from benchmarks.gpu_time import measure_gpu_work
from benchmarks.machine import describe
from benchmarks.registry import (
    BASELINE,
    FLOOR,
    VERSIONS,
    Mode,
    Sizes,
    Step,
    Version,
    build_step,
    make_batch,
    make_floor_step,
    make_shared_head,
)
from benchmarks.roofline import measure_rates, min_seconds
from benchmarks.schema import RESULTS, Measured, Results, write
from benchmarks.timing import measure, percentiles, ratio

AGREE_AT = 64
"""Largest batch size at which a version is compared with the loop; larger batches use this size."""


def main(argv: list[str] | None = None) -> None:
    """Measure what the options select."""
    options = _parse(argv)
    torch.set_num_threads(options.threads)
    began = time.perf_counter()
    options.disagreements = {}
    options.rates = measure_rates(options.device, getattr(torch, options.dtype))
    for mode in options.modes:
        rows: list[Measured] = []
        for number in options.batches:
            if rows and options.seconds and time.perf_counter() - began > options.seconds:
                print(f"{mode}, N = {number}: left out, {options.seconds:.0f} s have passed")
                continue
            rows += measure_batch(options.sizes._replace(N=number), mode, options)
            # Write after each batch, so that an interrupted run keeps its measurements.
            write_results(mode, rows, options)


def write_results(mode: Mode, rows: list[Measured], options: argparse.Namespace) -> None:
    """Write the measurements of a mode."""
    machine = describe(options.device)
    results = Results(mode, options.dtype, options.rounds, BASELINE, machine, tuple(rows))
    folder = options.out or RESULTS / machine.slug()
    write(folder / f"operators-{mode}-{options.dtype}.json", results)


def measure_batch(sizes: Sizes, mode: Mode, options: argparse.Namespace) -> list[Measured]:
    """Build, check and time all versions at one batch size."""
    dtype = getattr(torch, options.dtype)
    # Each batch size is a new shape, and the compiler stops recompiling at the eighth.
    torch.compiler.reset()
    steps, compiling, refused = {}, {}, {}
    for version in select_versions(sizes, mode, options):
        reason = _find_refusal(version, sizes, mode, options)
        if reason is not None:
            refused[version.name] = reason
            continue
        step = build_step(version, sizes, mode, options.device, dtype)
        start = time.perf_counter()
        step.run()
        compiling[version.name] = time.perf_counter() - start if version.compiled else 0.0
        steps[version.name] = step
    steps[FLOOR] = make_floor_step(sizes, mode, options.device, dtype)
    runs = {name: step.run for name, step in steps.items()}
    seconds = measure(runs, options.rounds, options.device)
    rows = [
        _make_row(name, sizes, mode, options, step, seconds, compiling.get(name, 0.0))
        for name, step in steps.items()
    ]
    print(f"{mode}, N = {sizes.N}")
    for row in rows:
        faster = f"{row.times_faster[1]:6.2f} x {BASELINE}" if row.times_faster else ""
        busy = f"{row.busy * 1e6:8.0f} us busy, {row.gpu_kernels} kernels" if row.busy else ""
        print(f"  {row.version:22} {row.seconds[1] * 1e6:10.0f} us {faster} {busy}", flush=True)
    empty: Any = ()
    for name, reason in refused.items():
        print(f"  {name:22} refused: {reason}", flush=True)
        rows.append(Measured(name, sizes.N, empty, empty, empty, 0, 0, 0, 0, 0, 0, 0, reason))
    return rows


def select_versions(sizes: Sizes, mode: Mode, options: argparse.Namespace) -> list[Version]:
    """Return the versions to measure at these sizes."""
    return [
        version
        for version in VERSIONS
        if mode in version.modes
        and (options.device == "cuda" or not version.cuda_only)
        and (version.batch_sizes is None or sizes.N in version.batch_sizes)
        and (options.versions is None or version.name in options.versions)
        and not (version.compiled and (options.quick or not _is_compiled_at(sizes, options)))
    ]


def _is_compiled_at(sizes: Sizes, options: argparse.Namespace) -> bool:
    return options.compiled_at is None or sizes.N in options.compiled_at


def _find_refusal(
    version: Version, sizes: Sizes, mode: Mode, options: argparse.Namespace
) -> str | None:
    if version.graph:
        return None  # it runs the kernels of the version that is not captured
    number = min(sizes.N, AGREE_AT)
    # All larger batches share one comparison with the loop.
    case = (version.name, number, mode)
    if case not in options.disagreements:
        sizes, dtype = sizes._replace(N=number), getattr(torch, options.dtype)
        options.disagreements[case] = find_disagreement(version, sizes, mode, options.device, dtype)
        if version.compiled:
            torch.compiler.reset()
    reason: str | None = options.disagreements[case]
    return reason


def _make_row(
    name: str,
    sizes: Sizes,
    mode: Mode,
    options: argparse.Namespace,
    step: Step,
    seconds: dict[str, list[float]],
    compile_seconds: float,
) -> Measured:
    version = next((each for each in VERSIONS if each.name == name), None)
    eager = version is not None and not version.compiled and not version.graph
    kernels, saved, peak = 0, 0.0, 0
    if eager:
        kernels = count_step_kernels(step.run)
        if mode == "training" and version is not None:
            saved = saved_per_sample(version, sizes, options.device, getattr(torch, options.dtype))
    if options.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        step.run()
        peak = torch.cuda.max_memory_allocated()
    busy, gpu_kernels = measure_gpu_work(step.run) if options.device == "cuda" else (0.0, 0)
    baseline, own = seconds.get(BASELINE), seconds[name]
    return Measured(
        version=name,
        batch=sizes.N,
        seconds=tuple(percentiles(own)),
        times_faster=tuple(ratio(baseline, own)) if baseline is not None else (),
        over_floor=tuple(ratio(own, seconds[FLOOR])),
        over_roofline=percentiles(own)[1]
        / min_seconds(sizes, mode, getattr(torch, options.dtype), options.rates),
        kernels=kernels,
        saved=saved,
        peak=peak,
        compile_seconds=compile_seconds,
        busy=busy,
        gpu_kernels=gpu_kernels,
        refused="",
    )


def saved_per_sample(version: Version, sizes: Sizes, device: str, dtype: torch.dtype) -> float:
    """Return the bytes saved for backward per additional sample, without those saved per batch."""

    def saved_bytes_at(number: int) -> int:
        given = sizes._replace(N=number)
        model, loss = version.build(make_shared_head(given), given)
        model, loss = model.to(device, dtype), loss.to(device)
        input, target = make_batch(given, device, dtype)
        input.requires_grad_()
        both = torch.nn.ModuleList([model, loss])
        return count_saved_bytes(lambda: loss(model(input), target).total, both, input, target)

    return (saved_bytes_at(128) - saved_bytes_at(64)) / 64


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks operators",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument(
        "--modes", nargs="+", choices=("training", "inference"), default=["training", "inference"]
    )
    parser.add_argument("--batches", nargs="+", type=int, help="numbers N of samples")
    parser.add_argument("--versions", nargs="+", choices=[version.name for version in VERSIONS])
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="few rounds, and nothing compiled")
    parser.add_argument(
        "--compiled-at", nargs="+", type=int, metavar="N", help="compile at these batches alone"
    )
    parser.add_argument("--seconds", type=float, help="begin no batch after so many")
    parser.add_argument("--out", type=Path, help="folder for the results")
    options = parser.parse_args(argv)
    if options.batches is None:
        options.batches = [1, 8, 64, 256, 1024] + ([65536] if options.device == "cuda" else [])
    if options.quick:
        options.rounds = min(options.rounds, 5)
    options.sizes = Sizes(N=0)
    return options
