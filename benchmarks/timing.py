"""Time versions in paired rounds, each in a rotated order, so that ratios are within a round."""

import time
from collections.abc import Callable, Mapping
from statistics import median, quantiles

import torch

MIN_SECONDS = 0.02
"""Minimum seconds of one measurement; a faster step is repeated within it."""


def measure(
    steps: Mapping[str, Callable[[], object]], rounds: int, device: str = "cpu"
) -> dict[str, list[float]]:
    """Return the seconds per step of each version, one number per round."""
    repeats = {name: _count_repeats(step, device) for name, step in steps.items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    order = list(steps)
    for _ in range(rounds):
        for name in order:
            seconds[name].append(_time_step(steps[name], repeats[name], device))
        order.append(order.pop(0))
    return seconds


def _count_repeats(step: Callable[[], object], device: str) -> int:
    step()
    once = _time_step(step, 1, device)
    return max(1, round(MIN_SECONDS / once))


def _time_step(step: Callable[[], object], repeats: int, device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(repeats):
        step()
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / repeats


def percentiles(values: list[float]) -> list[float]:
    """Return the 20th, 50th and 80th percentile."""
    if len(values) == 1:
        return values * 3
    cuts = quantiles(values, n=10, method="inclusive")
    return [cuts[1], median(values), cuts[7]]


def ratio(over: list[float], under: list[float]) -> list[float]:
    """Return the percentiles of the ratios of paired rounds."""
    return percentiles([a / b for a, b in zip(over, under, strict=True)])
