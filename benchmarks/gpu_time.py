"""Measure how long a GPU is busy in a step and how many kernels run; the rest is Python's time."""

from collections.abc import Callable, Iterable

import torch
from torch.profiler import ProfilerActivity, profile

STEPS = 5
COPIES = ("Memcpy", "Memset")
"""Prefixes of the names of GPU work that is not a kernel."""

Work = tuple[str, float, float]
"""A name, a start time and an end time, in microseconds."""


def measure_gpu_work(run: Callable[[], object]) -> tuple[float, int]:
    """Return the seconds for which the GPU is busy in a step and the number of kernels it runs."""
    for _ in range(2):
        run()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        for _ in range(STEPS):
            run()
        torch.cuda.synchronize()
    events = profiled.events() or []
    seconds, kernels = sum_busy_time(
        (event.name, event.time_range.start, event.time_range.end)
        for event in events
        if event.device_type.name == "CUDA" and not getattr(event, "is_user_annotation", False)
    )
    return seconds / STEPS, round(kernels / STEPS)


def sum_busy_time(work: Iterable[Work]) -> tuple[float, int]:
    """Return the busy seconds, with overlaps counted once, and the number of kernels."""
    busy, kernels, end = 0.0, 0, float("-inf")
    for name, began, ended in sorted(work, key=lambda each: each[1]):
        busy += max(0.0, ended - max(began, end))
        end = max(end, ended)
        kernels += not name.startswith(COPIES)
    return busy * 1e-6, kernels
