"""The tables and plots of the Benchmarks page, from the result files of the benchmarks."""

import sys
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import matplotlib

matplotlib.use("agg")

import torch
from matplotlib import pyplot as plt

from benchmarks.counting import count_step_kernels
from benchmarks.machine import Machine
from benchmarks.operators import saved_per_sample
from benchmarks.registry import BASELINE, FLOOR, VERSIONS, Sizes, build_step
from benchmarks.schema import ORACLE, RESULTS, Measured, Results, Throughput, WholeStep, read

NOTHING = "*Nothing has been measured yet.*\n"
TARGETS = {1: 3.0, 64: 2.0, 256: 1.7, 1024: 1.6}
"""The aim: how many times faster than `loop` a training step is, by batch, in float32."""

Rows = dict[tuple[str, int], Measured]
"""Measurements by version and batch."""

INK = "#7a7a7a"
"""A gray that is readable on white and on black."""


def read_all_results() -> tuple[list[Results], list[WholeStep], list[Throughput]]:
    """Read all result files of the operators, of whole steps and of the examples."""
    kinds = ("operators", "whole-step", "throughput")
    found = [read(file) for kind in kinds for file in sorted(RESULTS.glob(f"*/{kind}-*.json"))]
    return (
        [each for each in found if isinstance(each, Results)],
        [each for each in found if isinstance(each, WholeStep)],
        [each for each in found if isinstance(each, Throughput)],
    )


def format_table(head: list[str], rows: Iterable[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def describe_machine(machine: Machine) -> str:
    """Describe a machine in one line."""
    device = machine.gpu or f"{machine.cpu}, {machine.threads} threads"
    versions = f"torch {machine.torch}, Python {machine.python}, {machine.system}"
    return f"{device}; {versions}; commit {machine.commit}"


def tabulate_versions() -> str:
    """Return a table that describes each version."""
    rows = [[f"`{version.name}`", version.description] for version in VERSIONS]
    rows.append([f"`{ORACLE}`", "a loop over branches and classes: the baseline of older files"])
    rows.append([f"`{FLOOR}`", "the matrix products of the merged form alone: the floor"])
    return format_table(["version", "what it is"], rows)


def tabulate_operators(results: Results) -> str:
    """Return a run's table: time, ratios and counts of every version at every batch."""
    of_gpu = ["µs the GPU is busy", "kernels it runs"] if results.machine.gpu else []
    head = [
        "N",
        "version",
        "µs (20 %, 80 %)",
        *of_gpu,
        f"times faster than `{results.baseline}`",
        "time over gemm",
        "time over roofline",
        "kernels",
        "KiB saved a sample",
    ]
    rows = [_row(row, on_gpu=bool(of_gpu)) for row in results.measured]
    title = f"### {results.mode.capitalize()}, {results.dtype}"
    run = f"{describe_machine(results.machine)}; {results.rounds} rounds."
    return f"{title}\n\n{run}\n\n{format_table(head, rows)}"


def _row(row: Measured, *, on_gpu: bool) -> list[str]:
    if row.refused:
        return [str(row.batch), f"`{row.version}`", "refused", *[""] * (7 if on_gpu else 5)]
    low, middle, high = (1e6 * value for value in row.seconds)
    # Results of the first format do not have these values.
    busy = [f"{1e6 * row.busy:.0f}" if row.busy else "", str(row.gpu_kernels or "")]
    return [
        str(row.batch),
        f"`{row.version}`",
        f"{middle:.0f} ({low:.0f}, {high:.0f})",
        *(busy if on_gpu else []),
        f"{row.times_faster[1]:.2f}" if row.times_faster else "",
        f"{row.over_floor[1]:.2f}",
        f"{row.over_roofline:.1f}",
        str(row.kernels or ""),
        f"{row.saved / 1024:.1f}" if row.saved else "",
    ]


def tabulate_counts() -> str:
    """Count the kernels and the saved memory of a training step of each version now."""
    sizes, rows = Sizes(N=64), []
    for version in VERSIONS:
        if not (version.compiled or version.cuda_only):
            step = build_step(version, sizes, "training")
            step.run()  # the first step, in which centers start, is not counted
            kernels = count_step_kernels(step.run)
            saved = saved_per_sample(version, sizes, "cpu", torch.float32) / 1024
            rows.append([f"`{version.name}`", str(kernels), f"{saved:.1f}"])
    return format_table(["version", "kernels a step", "KiB saved a sample"], rows)


def tabulate_targets(found: list[Results]) -> str:
    """Return a table that compares the aims with the measurements."""
    rows: list[list[str]] = []
    for results in found:
        measured = {(row.version, row.batch): row for row in results.measured if row.seconds}
        if results.machine.gpu:
            rows += _gpu_targets(results, measured)
        elif results.dtype == "float32":
            rows += _cpu_targets(results, measured)
    return format_table(["what", "measure", "aimed at", "measured"], rows) if rows else NOTHING


def _cpu_targets(results: Results, measured: Rows) -> list[list[str]]:
    rows = []
    for (version, batch), row in measured.items():
        over_floor = [f"time over `gemm`, N = {batch}", f"{row.over_floor[1]:.2f}"]
        if results.mode == "inference":
            if version == "ours compiled" and batch >= 64:
                rows.append([f"inference, `{version}`", over_floor[0], "≤ 1.15", over_floor[1]])
            continue
        # The aim is a ratio to the current baseline.
        if version == "ours" and batch in TARGETS and results.baseline == BASELINE:
            faster = f"{row.times_faster[1]:.2f}"
            what = f"times faster than `loop`, N = {batch}"
            rows.append(["training", what, f"≥ {TARGETS[batch]:g}", faster])
        if version == "ours" and batch >= 256:
            rows.append(["training", over_floor[0], "≤ 1.4", over_floor[1]])
    last = {version: row for (version, _), row in measured.items()}
    if results.mode == "training" and "ours" in last:
        rows.append(["training", "kernels a step", "≤ 80", str(last["ours"].kernels)])
        rows.append(["training", "KiB saved a sample", "≤ 14", f"{last['ours'].saved / 1024:.2f}"])
    if "ours recompute" in last:
        saved = last["ours recompute"].saved / 1024
        rows.append(["training, `recompute=True`", "KiB saved a sample", "≤ 5", f"{saved:.2f}"])
    return rows


def _gpu_targets(results: Results, measured: Rows) -> list[list[str]]:
    what, rows = f"{results.mode}, {results.dtype}, Triton", []
    if results.mode == "training" and ("triton", 64) in measured:
        names = [name for name in ("triton", "triton graph") if (name, 64) in measured]
        row = min((measured[name, 64] for name in names), key=lambda row: row.seconds[1])
        rows.append([what, "kernels a step", "≤ 12", str(measured["triton", 64].kernels)])
        if row.times_faster and results.baseline == BASELINE:
            faster = f"{row.times_faster[1]:.1f}"
            rows.append([what, "times faster than `loop`, N = 64", "≥ 15", faster])
        compiled = [
            other.seconds[1]
            for (version, batch), other in measured.items()
            if batch == 64 and ("compiled" in version or "reduce" in version)
        ]
        if compiled:
            ratio = f"{min(compiled) / row.seconds[1]:.2f}"
            rows.append([what, "times faster than the best compiled, N = 64", "≥ 1.2", ratio])
    if ("triton", 65536) in measured:
        over = f"{measured['triton', 65536].over_roofline:.2f}"
        rows.append([what, "time over roofline, N = 65536", "≤ 1.5", over])
    return rows


def tabulate_whole_steps(found: list[WholeStep]) -> str:
    """Return a table of the time that the heads add to a step of a whole network."""
    if not found:
        return NOTHING
    head = ["machine", "step", "linear", "head", "adds (20 %, 80 %)"]
    rows = [
        [
            each.machine.gpu or f"{each.machine.cpu}, {each.machine.threads} threads",
            f"{each.backbone}, {each.image_size} x {each.image_size}, batch {each.batch}, "
            f"{each.dtype}{', one CUDA graph' if each.graph else ''}",
            f"{1e3 * each.seconds['linear'][1]:.1f} ms",
            f"`{name}`",
            "{1:.1f} % ({0:.1f}, {2:.1f})".format(*added),
        ]
        for each in found
        for name, added in each.added.items()
    ]
    return format_table(head, rows)


def tabulate_throughputs(found: list[Throughput]) -> str:
    """Return a table of how fast the examples train, and how long they wait for data."""
    if not found:
        return NOTHING
    head = [
        "machine",
        "run",
        "crops",
        "images/s (20 %, 80 %)",
        "waiting for data",
        "data alone, images/s",
        "40 epochs of 12,271",
    ]
    rows = []
    for each in found:
        machine = each.machine.gpu or f"{each.machine.cpu}, {each.machine.threads} threads"
        run = f"{each.model}, batch {each.batch}, {each.dtype}, {each.settings}"
        for speed in each.speeds:
            low, middle, high = speed.training
            taken = f"{speed.recipe_seconds:.0f} s (aim: 60 s)" if speed.recipe_seconds else ""
            rows.append(
                [
                    machine,
                    run,
                    f"{speed.image_size} x {speed.image_size}",
                    f"{middle:.0f} ({low:.0f}, {high:.0f})",
                    f"{100 * speed.waiting[1]:.1f} %",
                    f"{speed.data[1]:.0f}",
                    taken,
                ]
            )
    return format_table(head, rows)


def draw_times(results: Results, file: Path) -> None:
    """Draw the time of a step against the batch size, one line for each version."""
    figure, axes = plt.subplots(figsize=(7.5, 4.2))
    names = list(dict.fromkeys(row.version for row in results.measured if not row.refused))
    for name in names:
        rows = [row for row in results.measured if row.version == name and row.seconds]
        style = {"color": INK, "linestyle": "--"} if name == FLOOR else {"marker": "o"}
        batches = [row.batch for row in rows]
        axes.plot(batches, [1e6 * row.seconds[1] for row in rows], label=name, **style)
    batches = sorted({row.batch for row in results.measured})
    axes.set(xscale="log", yscale="log", xlabel="samples in a batch", ylabel="microseconds a step")
    axes.set_xticks(batches, [str(number) for number in batches])
    axes.minorticks_off()
    axes.grid(alpha=0.25, color=INK)
    legend = axes.legend(frameon=False, fontsize="small", loc="upper left")
    for text in [*legend.get_texts(), axes.xaxis.label, axes.yaxis.label]:
        text.set_color(INK)
    axes.tick_params(colors=INK)
    for spine in axes.spines.values():
        spine.set_color(INK)
    figure.tight_layout()
    figure.savefig(file, transparent=True)
    plt.close(figure)


def write(folder: Path) -> None:
    """Write tables and plots to `folder`, from which the page includes them."""
    folder.mkdir(parents=True, exist_ok=True)
    found, steps, trained = read_all_results()
    parts = []
    for results in found:
        name = f"operators-{results.machine.slug()}-{results.mode}-{results.dtype}.svg"
        draw_times(results, folder / name)
        machine = describe_machine(results.machine)
        alt = f"Time of a step of {results.mode} against the batch, on {machine}"
        parts.append(f"{tabulate_operators(results)}\n![{alt}](_generated/{name})\n")
    (folder / "operators.md").write_text("\n".join(parts) or NOTHING)
    (folder / "versions.md").write_text(tabulate_versions())
    (folder / "counted.md").write_text(tabulate_counts())
    (folder / "targets.md").write_text(tabulate_targets(found))
    (folder / "whole_steps.md").write_text(tabulate_whole_steps(steps))
    (folder / "throughput.md").write_text(tabulate_throughputs(trained))
