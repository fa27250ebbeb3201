"""The roofline counts the bytes and operations that a fused step cannot do without."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import roofline
from benchmarks.registry import Mode, Sizes, floor
from benchmarks.roofline import Rates, Work, passes

PAPER = Sizes(N=1024)


@pytest.mark.parametrize("mode", ["inference", "training"])
def test_operations_are_those_of_the_products_and_the_pairs(mode: Mode) -> None:
    sizes = PAPER._replace(N=32)
    with FlopCounterMode(display=False) as counter:
        floor(sizes, mode).run()
    distances = 3 * sizes.N * sizes.D * sizes.M * (sizes.M - 1) // 2
    work = passes(sizes, mode, 4)
    assert sum(each.operations for each in work) == counter.get_total_flops() + distances * (
        1 if mode == "inference" else 3
    )


def test_bytes_grow_with_the_batch_by_what_a_sample_moves() -> None:
    one, two = (passes(PAPER._replace(N=n), "training", 4) for n in (1, 2))
    kept = 4 * 3 * 9 * 128 + 4 * 9 * 10
    assert two[0].bytes - one[0].bytes == 4 * (512 + 7) + kept
    staged = 2 * 4 * 3 * 9 * 128
    assert two[1].bytes - one[1].bytes == kept + staged + 2 * 4 * 512


def test_half_the_bytes_in_half_the_precision() -> None:
    full, half = (passes(PAPER, "inference", size)[0].bytes for size in (4, 2))
    assert full == 2 * half


def test_a_pass_is_as_long_as_the_slower_of_the_two() -> None:
    assert Work(10, 1).seconds(Rates(5.0, 1.0)) == 2.0
    assert Work(10, 9).seconds(Rates(5.0, 3.0)) == 3.0
    rates = Rates(1e9, 1e12)
    total = sum(work.seconds(rates) for work in passes(PAPER, "training", 2))
    assert roofline.least_seconds(PAPER, "training", torch.bfloat16, rates) == total


def test_rates_are_of_this_machine() -> None:
    rates = roofline.measure_rates("cpu", torch.float32, repeats=1)
    assert 1e8 < rates.bandwidth < 1e13
    assert 1e8 < rates.arithmetic < 1e15
