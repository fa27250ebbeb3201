"""The operators' benchmark counts, compares and times what it says it does.

Its roofline counts the bytes and operations that a fused step cannot do without.
"""

import itertools
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import gpu_time, operators, roofline, timing
from benchmarks.counting import count_kernels, count_saved_bytes, count_step_kernels
from benchmarks.gpu_time import sum_busy_time
from benchmarks.registry import VERSIONS, Mode, Sizes, build_step, make_floor_step, make_shared_head
from benchmarks.roofline import Rates, Work, count_work
from benchmarks.schema import Results, read

TINY, PAPER = Sizes(N=5, P=8, M=3, D=4, K=3), Sizes(N=1024)
EAGER = {v.name: v for v in VERSIONS if not v.compiled and not v.cuda_only}


def test_counts_kernels_and_no_views() -> None:
    x = torch.ones(3, 4)
    with count_kernels() as counted:
        (x.t().reshape(2, 6)[0] + 1).relu_()
        torch.empty(3).unsqueeze(0)
    # A transposed tensor is copied to be reshaped.
    assert counted == {"clone": 1, "add": 1, "relu_": 1}
    assert count_step_kernels(lambda: x.sum().add_(1)) == 2


def test_a_training_step_by_hand_is_80_kernels() -> None:
    step = build_step(EAGER["ours"], Sizes(N=14), "training")
    for _ in range(2):
        step.run()  # until every center has met data
    assert count_step_kernels(step.run) <= 80


@pytest.mark.parametrize(("name", "most"), [("ours", 14.0), ("ours recompute", 5.0)])
def test_what_a_sample_keeps(name: str, most: float) -> None:
    saved = operators.saved_per_sample(EAGER[name], Sizes(N=0), "cpu", torch.float32)
    assert 4.5 < saved / 1024 <= most


def test_counts_each_storage_once_and_no_parameter() -> None:
    layer = torch.nn.Linear(4, 4)
    x, seen = torch.ones(2, 4, requires_grad=True), torch.ones(2, 4)

    def forward() -> torch.Tensor:
        hidden: torch.Tensor = layer(x).tanh()
        return (hidden + seen).tanh() * hidden  # both are kept, one of them twice

    assert count_saved_bytes(forward, layer, x, seen) == 2 * 32


def test_the_floor_is_the_products_alone() -> None:
    products: dict[Mode, int] = {"inference": 3, "training": 9}
    for mode, count in products.items():
        with count_kernels() as counted:
            make_floor_step(TINY, mode).run()
        assert counted.pop("randn") > 0
        assert (counted.keys() <= {"mm", "bmm"}, counted.total()) == (True, count)


def test_rounds_are_paired_and_rotated(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(timing, "MIN_SECONDS", 0.0)
    steps = {name: lambda name=name: calls.append(name) for name in "abc"}
    seconds = timing.measure(steps, rounds=3)
    rounds = [calls[i : i + 3] for i in range(len(calls) - 9, len(calls), 3)]
    order = deque("abc")
    for each in rounds:
        assert each == list(order)
        order.rotate(-1)
    assert all(len(values) == 3 for values in seconds.values())


def test_percentiles_and_ratios() -> None:
    assert timing.percentiles([float(i) for i in range(11)]) == [2.0, 5.0, 8.0]
    assert timing.percentiles([4.0]) == [4.0, 4.0, 4.0]
    # The median of the quotients, not the quotient of the medians.
    assert timing.ratio([1.0, 8.0, 9.0], [1.0, 2.0, 9.0])[1] == 1.0


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be timed for longer than once."""
    monkeypatch.setattr(timing, "MIN_SECONDS", 0.0)
    monkeypatch.setattr(operators, "measure_rates", lambda *_: Rates(1e9, 1e9))


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_run_ends_in_a_valid_file(
    dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operators, "Sizes", lambda N: TINY)
    threads = torch.get_num_threads()
    said = ["--quick", "--rounds", "2", "--batches", "2", "--dtype", dtype]
    operators.main([*said, "--out", str(tmp_path)])
    assert torch.get_num_threads() == threads
    for mode in ("training", "inference"):
        found = read(tmp_path / f"operators-{mode}-{dtype}.json")
        assert isinstance(found, Results)
        assert found.baseline == "loop"
        names = {row.version for row in found.measured}
        assert names == {v.name for v in EAGER.values() if mode in v.modes} | {"gemm"}
        for row in found.measured:
            assert (len(row.times_faster), row.busy, row.gpu_kernels) == (3, 0.0, 0)
            assert (row.saved > 0) == (mode == "training" and row.version != "gemm")


def test_all_versions_share_their_parameters() -> None:
    heads = [make_shared_head(TINY).state_dict() for _ in range(2)]
    assert all(torch.equal(value, heads[1][key]) for key, value in heads[0].items())


@pytest.mark.usefixtures("at_once")
def test_a_run_that_is_short_of_time_leaves_batches_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = ["--quick", "--rounds", "1", "--modes", "inference", "--batches", "1", "2"]
    versions = ["--versions", "loop", "--seconds", "1e-9"]
    operators.main([*said, *versions, "--out", str(tmp_path)])
    found = read(tmp_path / "operators-inference-float32.json")
    assert isinstance(found, Results)
    assert {row.batch for row in found.measured} == {1}
    assert "inference, N = 2: left out" in capsys.readouterr().out


def test_what_is_slow_to_compile_is_compiled_where_it_is_asked_for() -> None:
    options = operators._parse(["--compiled-at", "64"])
    at = [
        [v.compiled for v in operators.select_versions(Sizes(n), "training", options) if v.compiled]
        for n in (64, 1024)
    ]
    assert at == [["default", "default"], []]


def test_the_work_of_a_gpu_is_that_of_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def event(name: str, began: float, device: str = "CUDA", annotation: bool = False) -> Any:
        return SimpleNamespace(
            name=name,
            time_range=SimpleNamespace(start=began, end=began + 2.0),
            device_type=SimpleNamespace(name=device),
            is_user_annotation=annotation,
        )

    steps = itertools.count(1)

    def step() -> None:
        began = 10.0 * next(steps)
        events.append(event("kernel", began))
        events.append(event("Memset (Device)", began + 5))
        events.append(event("launch", began + 7, "CPU"))
        events.append(event("step", began + 7, annotation=True))

    @contextmanager
    def recording(**_: Any) -> Iterator[Any]:
        events.clear()
        yield SimpleNamespace(events=lambda: events)

    events: list[Any] = []
    monkeypatch.setattr(gpu_time, "profile", recording)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    assert gpu_time.measure_gpu_work(step) == pytest.approx((4e-6, 1))
    # What has been set up in the first steps is not of the step that is told of.
    assert next(steps) > gpu_time.STEPS + 1


def test_the_gpu_is_busy_once_where_work_overlaps() -> None:
    work = [
        ("second", 3.0, 5.0),
        ("first", 0.0, 4.0),
        ("Memcpy HtoD (Pageable -> Device)", 4.5, 6.0),
        ("third", 10.0, 11.0),
        ("within", 10.2, 10.4),
    ]
    assert sum_busy_time(work) == pytest.approx((7e-6, 4))
    assert sum_busy_time([]) == (0.0, 0)


@pytest.mark.parametrize("mode", ["inference", "training"])
def test_operations_are_those_of_the_products_and_the_pairs(mode: Mode) -> None:
    sizes = PAPER._replace(N=32)
    with FlopCounterMode(display=False) as counter:
        make_floor_step(sizes, mode).run()
    distances = 3 * sizes.N * sizes.D * sizes.M * (sizes.M - 1) // 2
    found = sum(each.operations for each in count_work(sizes, mode, 4))
    times = 1 if mode == "inference" else 3
    assert found == counter.get_total_flops() + distances * times


def test_bytes_grow_with_the_batch_by_what_a_sample_moves() -> None:
    one, two = (count_work(PAPER._replace(N=n), "training", 4) for n in (1, 2))
    kept = 4 * 3 * 9 * 128 + 4 * 9 * 10
    assert two[0].bytes - one[0].bytes == 4 * (512 + 7) + kept
    staged = 2 * 4 * 3 * 9 * 128
    assert two[1].bytes - one[1].bytes == kept + staged + 2 * 4 * 512
    # Half the bytes in half the precision.
    full, half = (count_work(PAPER, "inference", size)[0].bytes for size in (4, 2))
    assert full == 2 * half


def test_a_pass_is_as_long_as_the_slower_of_the_two() -> None:
    assert Work(10, 1).seconds(Rates(5.0, 1.0)) == 2.0
    assert Work(10, 9).seconds(Rates(5.0, 3.0)) == 3.0
    rates = Rates(1e9, 1e12)
    total = sum(work.seconds(rates) for work in count_work(PAPER, "training", 2))
    assert roofline.min_seconds(PAPER, "training", torch.bfloat16, rates) == total


def test_rates_are_of_this_machine() -> None:
    rates = roofline.measure_rates("cpu", torch.float32, repeats=1)
    assert 1e8 < rates.bandwidth < 1e13
    assert 1e8 < rates.arithmetic < 1e15
