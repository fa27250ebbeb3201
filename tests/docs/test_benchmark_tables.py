"""The tables of the Benchmarks page say what was compared with what."""

import dataclasses
from typing import Any

import pytest

pytest.importorskip("matplotlib", reason="needs what draws the plots")

import benchmark_tables as tables
from benchmarks.machine import Machine
from benchmarks.schema import ORACLE, Measured, Results, WholeStep

CPU = Machine("Some CPU", 2, "", "Linux", "3.12", "2.11", "3.6", "abc")
GPU = dataclasses.replace(CPU, gpu="Some GPU")
TRIPLE = (1.0, 2.0, 3.0)


def row(version: str, **changes: Any) -> Measured:
    figures = (2.5, 80, 14336.0, 0, 0.0, 73e-6, 10, "")
    return dataclasses.replace(Measured(version, 64, TRIPLE, TRIPLE, TRIPLE, *figures), **changes)


def results(machine: Machine, baseline: str = "loop", *rows: Measured) -> Results:
    return Results("training", "float32", 9, baseline, machine, rows or (row("ours"),))


def cells(table: str) -> list[list[str]]:
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_a_gpu_is_said_to_be_busy_and_a_cpu_is_not() -> None:
    refused = row("triton", seconds=(), refused="off")
    head, _, *rows = cells(tables.tabulate_operators(results(GPU, "loop", row("ours"), refused)))
    ours = dict(zip(head, rows[0], strict=True))
    assert (ours["µs the GPU is busy"], ours["kernels it runs"]) == ("73", "10")
    assert len(rows[1]) == len(head)
    unknown = results(GPU, "loop", row("ours", busy=0.0, gpu_kernels=0))
    assert dict(zip(head, cells(tables.tabulate_operators(unknown))[2], strict=True))[head[3]] == ""
    head, _, first = cells(tables.tabulate_operators(results(CPU)))
    assert not any("GPU" in name for name in head)
    assert len(first) == len(head)


@pytest.mark.parametrize("machine", [CPU, GPU], ids=["cpu", "gpu"])
def test_a_ratio_is_to_the_baseline_that_was_measured(machine: Machine) -> None:
    version = "triton" if machine.gpu else "ours"
    now, before = (results(machine, name, row(version)) for name in ("loop", ORACLE))
    assert "times faster than `loop`" in tables.tabulate_operators(now)
    assert f"times faster than `{ORACLE}`" in tables.tabulate_operators(before)
    assert "times faster than `loop`" in tables.tabulate_targets([now])
    assert "times faster" not in tables.tabulate_targets([before])


def test_each_head_of_a_whole_step_goes_by_its_name() -> None:
    seconds = {"linear": (0.01, 0.0106, 0.011), ORACLE: TRIPLE, "ours": TRIPLE}
    added = {ORACLE: (144.7, 159.1, 166.6), "ours": (22.67, 26.33, 32.21)}
    step = WholeStep("resnet18", 224, 64, "bfloat16", 9, False, GPU, {**seconds}, {**added})
    found = cells(tables.tabulate_whole_steps([step]))[2:]
    assert [line[2:] for line in found] == [
        ["10.6 ms", f"`{ORACLE}`", "159.1 % (144.7, 166.6)"],
        ["10.6 ms", "`ours`", "26.3 % (22.7, 32.2)"],
    ]


def test_what_is_counted_is_counted_now() -> None:
    head, _, *rows = cells(tables.tabulate_counts())
    assert head == ["version", "kernels a step", "KiB saved a sample"]
    found = {line[0]: (int(line[1]), float(line[2])) for line in rows}
    assert found["`ours`"][0] <= 80 < found["`loop`"][0]
    assert found["`ours recompute`"][1] < found["`ours`"][1] < found["`loop`"][1]
